/** Zeroing, wiping and trust over fakes: what is run, in which order, and what a failure or a stop leaves behind. */
import { expect } from 'chai';
import { RateLimiter } from '../../../src/lvm/rate-limit.ts';
import { BlankTrust, type ScrubProgress, scrub, scrubTags } from '../../../src/lvm/scrub.ts';
import { type LogicalVolume, LvmError } from '../../../src/lvm/types.ts';
import { segmentBytes, wipedBytes } from '../../../src/lvm/wipe-progress.ts';
import { Wiper, type WiperStatus } from '../../../src/lvm/wiper.ts';
import { zeroRange } from '../../../src/lvm/zero.ts';
import { captureLog } from './captured-log.ts';
import { FakeVg, FakeZeroing, failure, GIB, MIB } from './fake-vg.ts';

const isDeleted = (lv: LogicalVolume): boolean => lv.tags.includes('wipe');
const isOurs = (lv: LogicalVolume): boolean => lv.name.startsWith('volume') || isDeleted(lv);

describe('lvm/zero', () => {
  it('goes in growing chunks and flushes at the end', async () => {
    const commands = new FakeZeroing();
    const progress: number[] = [];
    await zeroRange(commands, '/dev/vg/x', 0, GIB, { onProgress: (done) => progress.push(done / MIB) });
    expect(progress).to.deep.equal([64, 192, 448, 960, 1024]);
    expect(commands.lines[1]).to.equal(`blkdiscard --zeroout --offset ${64 * MIB} --length ${128 * MIB} /dev/vg/x`);
    expect(commands.lines.at(-1)).to.equal('sync -- /dev/vg/x');
  });

  it('writes exactly the range: edges by dd, the rest by blkdiscard', async () => {
    const commands = new FakeZeroing();
    await zeroRange(commands, '/dev/vg/x', 5000, 20_000);
    const dd = 'dd if=/dev/zero of=/dev/vg/x';
    const rest = 'iflag=count_bytes bs=4M conv=notrunc,nocreat oflag=seek_bytes status=none';
    expect(commands.lines).to.deep.equal([
      `${dd} seek=5000 count=3192 ${rest}`,
      'blkdiscard --zeroout --offset 8192 --length 16384 /dev/vg/x',
      `${dd} seek=24576 count=424 ${rest}`,
      'sync -- /dev/vg/x',
    ]);
    expect(commands.programs, 'not flock, which only starts them').to.deep.equal(['dd', 'blkdiscard', 'dd', 'sync']);
    commands.lines.length = 0;
    await zeroRange(commands, '/dev/vg/x', 0, 0);
    expect(commands.lines).to.deep.equal([]);
  });

  it('falls back to dd where BLKZEROOUT is not to be had', async () => {
    const commands = new FakeZeroing();
    commands.answer = (line) =>
      line.startsWith('blkdiscard') ? failure(1, 'blkdiscard: x: BLKZEROOUT ioctl failed: Operation not supported') : 0;
    await zeroRange(commands, '/dev/vg/x', 0, 128 * MIB);
    expect(commands.lines.filter((line) => line.startsWith('blkdiscard'))).to.have.length(1);
    expect(commands.lines.filter((line) => line.includes('oflag=seek_bytes,direct'))).to.have.length(2);
  });

  it('a failure is told, and nothing after it is done', async () => {
    const commands = new FakeZeroing();
    commands.answer = () => failure(1, 'blkdiscard: cannot open /dev/vg/x: Device or resource busy');
    const error: unknown = await zeroRange(commands, '/dev/vg/x', 0, GIB).catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(LvmError).with.property('kind', 'in-use');
    expect(commands.lines).to.have.length(1);
  });

  it('tries again while another process holds the device’s lock', async () => {
    const commands = new FakeZeroing();
    let locked = 2;
    commands.answer = () => (locked-- > 0 ? 75 : 0);
    await zeroRange(commands, '/dev/vg/x', 0, MIB);
    expect(commands.lines.filter((line) => line.startsWith('blkdiscard'))).to.have.length(3);
  });

  it('stops between chunks, flushed', async () => {
    const commands = new FakeZeroing();
    const stop = new AbortController();
    const onProgress = (): void => stop.abort(new Error('stopped'));
    const result = zeroRange(commands, '/dev/vg/x', 0, GIB, { onProgress, signal: stop.signal });
    expect(await result.catch((error: Error) => error.message)).to.equal('stopped');
    expect(commands.lines).to.have.length(2);
    expect(commands.lines.at(-1)).to.contain('sync');
  });
});

describe('lvm/wiper', () => {
  let vg: FakeVg;
  let commands: FakeZeroing;
  let wiper: Wiper;
  const wiped: string[] = [];

  beforeEach(() => {
    vg = new FakeVg();
    commands = new FakeZeroing();
    wiped.length = 0;
    wiper = new Wiper({
      lvm: vg,
      commands,
      limiter: new RateLimiter(0),
      isDeleted,
      onWiped: (lvs) => wiped.push(...lvs.map((lv) => lv.uuid)),
    });
  });

  afterEach(() => wiper.stop());

  async function until(isReached: (status: WiperStatus) => boolean): Promise<WiperStatus> {
    for (const deadline = performance.now() + 5_000; performance.now() < deadline; ) {
      if (isReached(wiper.status())) return wiper.status();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new Error(`not reached: ${JSON.stringify(wiper.status())}`);
  }

  it('wipes what is deleted, nothing else, smallest first, and removes in one go', async () => {
    vg.add('big', 2 * GIB, ['wipe']);
    vg.add('volume-1', GIB, []);
    vg.add('small', 64 * MIB, ['wipe'], { active: false });
    vg.add('thin', GIB, ['wipe'], { segmentType: 'thin' });
    wiper.start();
    const status = await until((now) => now.removedVolumes === 3);
    expect(vg.lvs.map((lv) => lv.name)).to.deep.equal(['volume-1']);
    expect(status).to.include({ waitingBytes: 0, waitingVolumes: 0, etaSeconds: 0, wipedBytes: 2 * GIB + 64 * MIB });
    expect(commands.lines[0]).to.contain('/dev/vg/small');
    expect(commands.lines.some((line) => /volume-1|thin/.test(line))).to.equal(false);
    expect(vg.removed).to.deep.equal(['small+thin+big']);
    expect(wiped).to.have.length(3);
  });

  it('sleeps when there is nothing, and is woken', async () => {
    wiper.start();
    await until((now) => now.waitingVolumes === 0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    vg.add('a', 64 * MIB, ['wipe']);
    wiper.wake();
    await until((now) => now.removedVolumes === 1);
  });

  it('counts new ones while it works, and goes on after a stop where the tag says', async () => {
    vg.add('big', 4 * GIB, ['wipe']);
    let release: (() => void) | undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let chunks = 0;
    const run = commands.run.bind(commands);
    commands.run = async (request) => {
      if (request.args.includes('blkdiscard')) chunks += 1;
      if (chunks === 8) await gate;
      return await run(request);
    };
    wiper.start();
    await until(() => chunks === 8);
    vg.add('other', GIB, ['wipe']);
    wiper.wake();
    const { waitingBytes, etaSeconds, current } = await until((now) => now.waitingVolumes === 2);
    expect(waitingBytes).to.be.within(GIB, 5 * GIB);
    expect(etaSeconds).to.be.a('number');
    expect(current?.name).to.equal('big');
    const stopping = wiper.stop();
    release?.();
    await stopping;
    const done = wipedBytes(vg.lvs[0] ?? expect.fail('gone'));
    expect(done).to.be.greaterThan(GIB);
    expect(vg.removed).to.deep.equal([]);

    const successor = new Wiper({ lvm: vg, commands, limiter: new RateLimiter(0), isDeleted });
    wiper = successor;
    successor.start();
    const status = await until((now) => now.removedVolumes === 2);
    expect(status.wipedBytes).to.equal(5 * GIB - done);
  });

  it('does not record progress before it is flushed', async () => {
    vg.add('big', 4 * GIB, ['wipe']);
    const order: string[] = [];
    commands.answer = (line) => {
      order.push(line.split(' ')[0] ?? '');
      return 0;
    };
    const change = vg.changeTags.bind(vg);
    vg.changeTags = async (name, tags) => {
      order.push('tag');
      await change(name, tags);
    };
    wiper.start();
    await until((now) => now.removedVolumes === 1);
    for (const [index, what] of order.entries()) if (what === 'tag') expect(order[index - 1]).to.equal('sync');
    expect(order).to.include('tag');
  });

  it('a failure postpones that one only; a removal refused because of use wipes it again', async () => {
    vg.add('bad', 64 * MIB, ['wipe']);
    vg.add('good', 128 * MIB, ['wipe']);
    let failures = 1;
    commands.answer = (line) => (line.includes('/bad') && failures-- > 0 ? failure(1, 'Input/output error') : 0);
    wiper.start();
    const first = await until((now) => now.removedVolumes === 1);
    expect(first.waitingVolumes).to.equal(1);
    vg.failRemove = new LvmError('in-use', 'held');
    await until((now) => now.lastError === 'held');
    expect(wiper.status().waitingBytes).to.equal(64 * MIB);
    vg.failRemove = undefined;
    await until((now) => now.removedVolumes === 2);
    expect(commands.lines.filter((line) => line.includes('/bad') && line.startsWith('blkdiscard'))).to.have.length(3);
  });

  it('forgets its progress, in the tag too, when somebody holds an LV that was wiped', async () => {
    vg.add('big', 4 * GIB, ['wipe']);
    vg.failRemove = new LvmError('in-use', 'held');
    wiper.start();
    await until((now) => now.lastError === 'held');
    await wiper.stop();
    expect(vg.lvs[0]?.tags).to.deep.equal(['wipe']);
    commands.lines.length = 0;
    vg.failRemove = undefined;
    const successor = new Wiper({ lvm: vg, commands, limiter: new RateLimiter(0), isDeleted });
    wiper = successor;
    successor.start();
    expect((await until((now) => now.removedVolumes === 1)).wipedBytes).to.equal(4 * GIB);
  });

  it('touches nothing on a partial VG', async () => {
    vg.spaceId = undefined;
    vg.add('a', GIB, ['wipe']);
    wiper.start();
    await until((now) => now.lastError !== undefined);
    expect(commands.lines).to.deep.equal([]);
  });

  it('records progress neither too often nor too seldom', () => {
    expect(segmentBytes(100 * GIB, undefined)).to.equal(GIB);
    expect(segmentBytes(100 * GIB, GIB)).to.equal(10 * GIB);
    expect(segmentBytes(10_000 * GIB, 100 * MIB)).to.equal(6000 * MIB);
    expect(segmentBytes(GIB, 1)).to.equal(256 * MIB);
    const lv = vg.add('x', GIB, ['lic:wiped=5', 'lic:wiped=7']);
    expect(wipedBytes(lv)).to.equal(5);
    for (const tag of ['lic:wiped=-1', 'lic:wiped=1e3', `lic:wiped=${2 * GIB}`, 'lic:wiped='])
      expect(wipedBytes({ ...lv, tags: [tag] }), tag).to.equal(0);
  });
});

describe('lvm/scrub', () => {
  let vg: FakeVg;
  let commands: FakeZeroing;

  beforeEach(() => {
    vg = new FakeVg();
    commands = new FakeZeroing();
  });

  it('covers what becomes free meanwhile and what an earlier scrub left, and tags last', async () => {
    vg.add('volume-1', GIB, []);
    vg.add('_scrub-left', GIB, ['lic:scrub'], { active: false });
    const create = vg.createLinear.bind(vg);
    vg.createLinear = async (spec) => {
      await create(spec);
      // Somebody deletes a volume just now.
      vg.lvs = vg.lvs.filter((lv) => lv.name !== 'volume-1');
    };
    const change = vg.changeVgTags.bind(vg);
    vg.changeVgTags = async (tags) => {
      if (tags.add !== undefined) {
        expect(vg.lvs).to.deep.equal([]);
        expect(commands.lines.at(-1)).to.contain('sync');
      }
      await change(tags);
    };
    expect(await scrub({ lvm: vg, commands, isOurs })).to.deep.equal({ alreadyDone: false, scrubbedBytes: 10 * GIB });
    expect(vg.removed).to.have.length(1);
    const trust = new BlankTrust(vg, isOurs);
    expect(trust.isBlank(await vg.read())).to.equal(true);
    expect((await scrub({ lvm: vg, commands, isOurs })).alreadyDone).to.equal(true);
  });

  it('again: zeroes although the mark is there, and renews it', async () => {
    await scrub({ lvm: vg, commands, isOurs });
    const [mark] = scrubTags(await vg.read());
    commands.lines.length = 0;
    const again = await scrub({ lvm: vg, commands, isOurs, again: true });
    expect(again).to.deep.equal({ alreadyDone: false, scrubbedBytes: 10 * GIB });
    expect(commands.lines[0]).to.contain('blkdiscard --zeroout --offset 0 ');
    const renewed = scrubTags(await vg.read());
    expect(renewed).to.have.length(1);
    expect(renewed).not.to.include(mark);
  });

  it('goes on where a scrub was stopped', async () => {
    const stop = new AbortController();
    const onProgress = ({ doneBytes }: { doneBytes: number }): void => {
      if (doneBytes > 5 * GIB) stop.abort(new Error('stopped'));
    };
    const stopped = scrub({ lvm: vg, commands, isOurs, onProgress, signal: stop.signal });
    expect(await stopped.catch((error: Error) => error.message)).to.equal('stopped');
    const done = wipedBytes(vg.lvs[0] ?? expect.fail('gone'));
    expect(done).to.be.greaterThan(GIB);
    commands.lines.length = 0;
    const captured = captureLog();
    const seen: ScrubProgress[] = [];
    await scrub({ lvm: vg, commands, isOurs, onProgress: (progress) => seen.push(progress) });
    captured.restore();
    expect(commands.lines[0]).to.contain(`--offset ${done} `);
    expect(seen[0]?.doneBytes).to.be.within(done + 1, 10 * GIB);
    expect(seen[0]?.etaSeconds).to.be.a('number');
    expect(seen.at(-1)).to.deep.equal({ doneBytes: 10 * GIB, totalBytes: 10 * GIB, etaSeconds: 0 });
    const lines = captured.lines();
    expect(lines[0]).to.deep.equal({
      vgName: 'vg',
      doneBytes: done,
      totalBytes: 10 * GIB,
      msg: 'scrub of the free extents begins',
    });
    expect(lines.map(({ msg }) => msg).slice(1)).to.deep.equal([
      'scrub of the free extents is done',
      'the free extents of the volume group are blank now',
    ]);
    expect(scrubTags(await vg.read())).to.have.length(1);
  });

  it('a failure or a stop leaves no tag', async () => {
    vg.tags = [`lic:scrubbed=${vg.spaceId}.00000000`];
    commands.answer = () => failure(1, 'Input/output error');
    const result = scrub({ lvm: vg, commands, isOurs, again: true });
    expect(await result.catch((error: LvmError) => error.kind)).to.equal('write-failed');
    expect(scrubTags(await vg.read())).to.deep.equal([]);
    const stopped = scrub({ lvm: vg, commands, isOurs, signal: AbortSignal.abort(new Error('stopped')) });
    expect(await stopped.catch((error: Error) => error.message)).to.equal('stopped');
  });

  it('refuses a VG that holds LVs of others, is partial, or changes its disks meanwhile', async () => {
    vg.add('root', GIB, []);
    const kind = async (): Promise<string> =>
      await scrub({ lvm: vg, commands, isOurs }).then(
        () => 'ok',
        (error: LvmError) => error.kind,
      );
    expect(await kind()).to.equal('invalid');
    vg.lvs = [];
    vg.spaceId = undefined;
    expect(await kind()).to.equal('vg-partial');
    vg.spaceId = 'b'.repeat(32);
    commands.answer = () => {
      vg.spaceId = 'c'.repeat(32);
      return 0;
    };
    expect(await kind()).to.equal('other');
    expect(vg.tags).to.deep.equal([]);
    for (const moved of ['volume-1', 'the scrub’s own']) {
      vg.lvs = [];
      vg.add('volume-1', GIB, []);
      let done = false;
      commands.answer = () => {
        if (!done) vg.move(moved === 'volume-1' ? moved : (vg.lvs.at(-1)?.name ?? ''));
        done = true;
        return 0;
      };
      expect(await kind(), moved).to.equal('other');
      expect(vg.tags).to.deep.equal([]);
    }
  });

  describe('trust', () => {
    let trust: BlankTrust;

    beforeEach(async () => {
      await scrub({ lvm: vg, commands, isOurs });
      trust = new BlankTrust(vg, isOurs);
    });

    async function observed(): Promise<boolean> {
      const report = await vg.read();
      trust.observe(report);
      return trust.isBlank(report);
    }

    it('lasts while the driver alone creates, wipes and removes', async () => {
      expect(await observed()).to.equal(true);
      const lv = vg.add('volume-1', GIB, []);
      expect(await observed()).to.equal(true);
      trust.wiped([lv]);
      await vg.remove(['volume-1']);
      expect(await observed()).to.equal(true);
    });

    it('ends when an LV of the driver disappears or shrinks otherwise, and the tag goes', async () => {
      for (const change of ['remove', 'shrink']) {
        vg.lvs = [];
        await scrub({ lvm: vg, commands, isOurs, again: true });
        trust = new BlankTrust(vg, isOurs);
        const lv = vg.add('volume-1', GIB, []);
        expect(await observed()).to.equal(true);
        vg.lvs = change === 'remove' ? [] : [{ ...lv, sizeBytes: MIB }];
        expect(await observed(), change).to.equal(false);
        await new Promise((resolve) => setImmediate(resolve));
        expect(vg.tags).to.deep.equal([]);
      }
    });

    it('ends when an LV is moved: its old extents hold what was on it, with the same disks and the same LVs', async () => {
      vg.add('volume-1', GIB, []);
      expect(await observed()).to.equal(true);
      vg.move('volume-1');
      expect(await observed()).to.equal(false);
      await new Promise((resolve) => setImmediate(resolve));
      expect(vg.tags).to.deep.equal([]);
      await scrub({ lvm: vg, commands, isOurs });
      expect(await observed()).to.equal(true);
    });

    it('outlasts the growth of an LV, wherever the new extents lie', async () => {
      const lv = vg.add('volume-1', GIB, []);
      expect(await observed()).to.equal(true);
      const extents = [...lv.extents, { place: '/dev/vdc', first: 0, last: 255 }];
      vg.lvs = [{ ...lv, sizeBytes: 2 * GIB, extents }];
      expect(await observed()).to.equal(true);
    });

    it('ends when somebody else’s LV is seen, and stays away when the tag cannot be removed', async () => {
      vg.changeVgTags = () => Promise.reject(new LvmError('other', 'no'));
      vg.add('foreign', GIB, []);
      expect(await observed()).to.equal(false);
      vg.lvs = [];
      expect(await observed()).to.equal(false);
      expect(vg.tags).to.have.length(1);
    });

    it('ends with other disks: a disk of vgextend may hold anything', async () => {
      expect(await observed()).to.equal(true);
      vg.spaceId = 'd'.repeat(32);
      expect(await observed()).to.equal(false);
      await new Promise((resolve) => setImmediate(resolve));
      expect(vg.tags).to.deep.equal([]);
      await scrub({ lvm: vg, commands, isOurs });
      expect(await observed()).to.equal(true);
    });

    it('does not come back with a disk that was away and used elsewhere', async () => {
      const { spaceId } = vg;
      vg.changeVgTags = () => Promise.reject(new LvmError('other', 'no'));
      for (const first of ['the driver has seen it before', 'the driver started meanwhile']) {
        if (first.includes('started')) trust = new BlankTrust(vg, isOurs);
        else expect(await observed()).to.equal(true);
        vg.spaceId = 'd'.repeat(32);
        expect(await observed()).to.equal(false);
        vg.spaceId = spaceId;
        expect(await observed(), first).to.equal(false);
      }
    });

    it('outlasts a disk that is missing for a while: nobody could use it', async () => {
      const { spaceId } = vg;
      expect(await observed()).to.equal(true);
      vg.spaceId = undefined;
      expect(await observed()).to.equal(false);
      vg.spaceId = spaceId;
      expect(await observed()).to.equal(true);
    });

    it('of a new scrub counts, also when its disks are seen together with the tag', async () => {
      vg.spaceId = 'd'.repeat(32);
      await scrub({ lvm: vg, commands, isOurs });
      expect(await observed()).to.equal(true);
    });

    it('comes back with a new scrub, unless the removal may have been after it', async () => {
      vg.add('foreign', GIB, []);
      expect(await observed()).to.equal(false);
      vg.lvs = [];
      await new Promise((resolve) => setImmediate(resolve));
      expect(await observed()).to.equal(false);
      await scrub({ lvm: vg, commands, isOurs });
      expect(await observed()).to.equal(true);
      vg.add('volume-1', GIB, []);
      expect(await observed()).to.equal(true);
      vg.lvs = [];
      await scrub({ lvm: vg, commands, isOurs, again: true });
      expect(await observed()).to.equal(false);
    });
  });
});
