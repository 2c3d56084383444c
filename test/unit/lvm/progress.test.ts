/** What an administrator is told of zeroing that somebody waits for: lines in the log, and numbers. */
import { expect } from 'chai';
import { AwaitedZeroing, type GrowthRange } from '../../../src/lvm/awaited-zeroing.ts';
import { increments, ProgressLog } from '../../../src/lvm/progress.ts';
import { RateLimiter } from '../../../src/lvm/rate-limit.ts';
import { captureLog } from './captured-log.ts';
import { FakeZeroing, failure, GIB, MIB } from './fake-vg.ts';

describe('progress of zeroing', () => {
  let captured: ReturnType<typeof captureLog>;

  beforeEach(() => {
    captured = captureLog();
  });
  afterEach(() => captured.restore());

  describe('in the log', () => {
    it('begins, goes on every ten seconds with an estimate, and ends', () => {
      let now = 5_000;
      const progress = new ProgressLog({
        what: 'zeroing',
        fields: { path: '/dev/vg/x' },
        totalBytes: 1000,
        now: () => now,
      });
      expect(progress.etaSeconds).to.equal(undefined);
      for (let bytes = 0; bytes < 1000; bytes += 40) {
        now += 1_000;
        progress.add(40);
      }
      progress.end();
      const fields = { path: '/dev/vg/x', totalBytes: 1000 };
      expect(captured.lines()).to.deep.equal([
        { ...fields, doneBytes: 0, msg: 'zeroing begins' },
        { ...fields, doneBytes: 400, percent: 40, etaSeconds: 15, msg: 'zeroing goes on' },
        { ...fields, doneBytes: 800, percent: 80, etaSeconds: 5, msg: 'zeroing goes on' },
        { ...fields, durationMs: 25_000, msg: 'zeroing is done' },
      ]);
    });

    it('what an earlier attempt has done counts, but not as speed', () => {
      let now = 0;
      const progress = new ProgressLog({
        what: 'scrub',
        fields: {},
        totalBytes: 1000,
        doneBytes: 500,
        now: () => now,
      });
      now += 10_000;
      progress.add(100);
      expect(captured.lines()[0]).to.include({ doneBytes: 500 });
      expect(captured.lines()[1]).to.deep.include({ doneBytes: 600, percent: 60, etaSeconds: 40 });
    });

    it('nothing to do is told in two lines', () => {
      new ProgressLog({ what: 'scrub', fields: {}, totalBytes: 0 }).end();
      expect(captured.lines()).to.have.length(2);
    });
  });

  it('running totals become increments', () => {
    const more: number[] = [];
    const tell = increments((bytes) => more.push(bytes));
    for (const total of [3, 3, 10]) tell(total);
    expect(more).to.deep.equal([3, 0, 7]);
  });

  describe('that a call waits for', () => {
    let commands: FakeZeroing;
    let zeroing: AwaitedZeroing;

    beforeEach(() => {
      commands = new FakeZeroing();
      zeroing = new AwaitedZeroing(commands, new RateLimiter(0));
    });

    const growth = (path: string, lengthBytes: number): GrowthRange => ({
      path,
      fromBytes: GIB,
      toBytes: GIB + lengthBytes,
      record: async () => undefined,
      signal: new AbortController().signal,
    });

    it('is told in the log and counted by reason', async () => {
      const seen: number[] = [];
      commands.answer = () => {
        seen.push(zeroing.status('create').waitingBytes);
        return 0;
      };
      await zeroing.zeroNew('/dev/vg/a', 128 * MIB);
      expect(seen).to.deep.equal([128 * MIB, 64 * MIB, 0]);
      commands.answer = () => 0;
      await zeroing.zeroGrowth(growth('/dev/vg/b', 64 * MIB));
      expect(zeroing.status('create')).to.deep.equal({ waitingBytes: 0, zeroedBytes: 128 * MIB });
      expect(zeroing.status('expand')).to.deep.equal({ waitingBytes: 0, zeroedBytes: 64 * MIB });
      expect(captured.lines().map(({ msg, path, totalBytes }) => ({ msg, path, totalBytes }))).to.deep.equal([
        { msg: 'zeroing of a new volume begins', path: '/dev/vg/a', totalBytes: 128 * MIB },
        { msg: 'zeroing of a new volume is done', path: '/dev/vg/a', totalBytes: 128 * MIB },
        { msg: 'zeroing of what an expansion added begins', path: '/dev/vg/b', totalBytes: 64 * MIB },
        { msg: 'zeroing of what an expansion added is done', path: '/dev/vg/b', totalBytes: 64 * MIB },
      ]);
    });

    it('opens a grown LV although its gate holds it, and a new one only when nobody does', async () => {
      await zeroing.zeroNew('/dev/vg/a', MIB);
      await zeroing.zeroGrowth(growth('/dev/vg/b', MIB));
      const forced = commands.lines.filter((line) => line.includes('--force'));
      expect(forced).to.have.length(1);
      expect(forced[0]).to.contain('/dev/vg/b');
    });

    it('leaves no backlog behind when it fails, and does not say that it is done', async () => {
      commands.answer = (line) => (line.includes(`--offset ${64 * MIB}`) ? failure(1, 'Input/output error') : 0);
      await zeroing.zeroNew('/dev/vg/a', GIB).then(
        () => expect.fail('no failure'),
        () => undefined,
      );
      expect(zeroing.status('create')).to.deep.equal({ waitingBytes: 0, zeroedBytes: 64 * MIB });
      expect(captured.lines().map(({ msg }) => msg)).to.deep.equal(['zeroing of a new volume begins']);
    });
  });
});
