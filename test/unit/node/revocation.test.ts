import { expect } from 'chai';
import type { RefusalReason, TargetReach } from '../../../src/iscsi/initiator/types.ts';
import type { BenchVolume, NodeBench } from './support/node-bench.ts';
import { useNodeBench } from './support/node-bench.ts';

const refused = (reason: RefusalReason): TargetReach => ({ kind: 'refused', reason, forMs: 0 });

describe('sessions of revoked attachments: real mounts on loop devices, FAKE initiator', () => {
  const suite = useNodeBench();
  let bench: NodeBench;
  let volume: BenchVolume;
  /** Of an imagined clock: the plugin looks every 30 s. */
  let nowMs = 0;

  before(() => {
    bench = suite.bench;
  });
  beforeEach(async () => {
    const { initiator } = bench;
    initiator.reachAnswer = refused('authorization');
    initiator.witnessAnswers = ['authorization'];
    volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    volume.session.state = 'FAILED';
    initiator.calls.length = 0;
  });
  afterEach(async () => {
    if (isLive(volume)) volume.session.state = 'LOGGED_IN';
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  const isLive = ({ targetIqn }: BenchVolume): boolean =>
    bench.initiator.live.some((session) => session.targetIqn === targetIqn);

  /** Looks for so long; answers after how many seconds the session had gone. */
  async function goneAfter(seconds: number): Promise<number | undefined> {
    const beganMs = nowMs;
    while (nowMs - beganMs <= seconds * 1000) {
      await bench.plugin.endRevoked(nowMs);
      if (!isLive(volume)) return (nowMs - beganMs) / 1000;
      nowMs += 30_000;
    }
    return undefined;
  }

  it('no access any more: ended at the second look, I/O failed first, mounts and record left for kubelet', async () => {
    expect(await goneAfter(60)).to.equal(30);
    expect(bench.initiator.calls.filter((call) => !/^(knock|reach)/.test(call))).to.deep.equal(['logout offline']);
    expect(volume.mounts).to.have.length(2);
    expect(volume.record).to.include({ phase: 'staged' });
  });

  for (const reason of ['unavailable', 'not-found'] as const) {
    it(`no target any more (${reason}): only once the controller would have made it again`, async () => {
      bench.initiator.reachAnswer = refused(reason);
      expect(await goneAfter(600)).to.equal(360);
    });
  }

  it('never while it works, may come back, is refused for its credentials, or the witness does not tell', async () => {
    const { initiator } = bench;
    const stays = async (how: string): Promise<void> => {
      expect(await goneAfter(900), how).to.equal(undefined);
    };
    for (const answer of ['unavailable', 'no-answer', 'not-found', 'accepted'] as const) {
      initiator.witnessAnswers = [answer];
      initiator.calls.length = 0;
      await stays(`witness: ${answer}`);
      expect(new Set(initiator.calls), 'nothing but the witness is asked').to.have.lengthOf(1);
    }
    initiator.witnessAnswers = ['authorization'];
    for (const answer of [
      { kind: 'accepted' },
      { kind: 'unreachable' },
      { kind: 'logged-in' },
      refused('authentication'),
      refused('other'),
    ] as const) {
      initiator.reachAnswer = answer;
      await stays(JSON.stringify(answer));
    }
    initiator.reachAnswer = refused('authorization');
    volume.session.state = 'LOGGED_IN';
    await stays('logged in');
  });

  it('counts anew after an answer that is no refusal, and after a witness that was silent', async () => {
    const { initiator } = bench;
    initiator.reachAnswer = refused('unavailable');
    expect(await goneAfter(300)).to.equal(undefined);
    initiator.reachAnswer = { kind: 'accepted' };
    expect(await goneAfter(0)).to.equal(undefined);
    initiator.reachAnswer = refused('unavailable');
    expect(await goneAfter(300)).to.equal(undefined);
    // It was silent in between: a comparison has found something to repair.
    initiator.witnessAnswers = ['unavailable'];
    expect(await goneAfter(0)).to.equal(undefined);
    initiator.witnessAnswers = ['authorization'];
    expect(await goneAfter(600)).to.equal(360);
  });

  it('asks the witness once for all volumes, and one that cannot be read does not keep it from the others', async () => {
    const other = bench.raw();
    await other.stage();
    other.session.state = 'FREE';
    bench.initiator.calls.length = 0;
    bench.initiator.witnessAnswers = ['no-answer'];
    await bench.plugin.endRevoked(nowMs);
    expect(bench.initiator.calls).to.have.lengthOf(1);
    bench.initiator.witnessAnswers = ['authorization'];
    const record = other.sh(`cat '${other.recordPath}'`);
    other.sh(`echo nonsense > '${other.recordPath}'`);
    expect(await goneAfter(60)).to.equal(30);
    expect(isLive(other)).to.equal(true);
    other.sh(`cat > '${other.recordPath}' <<'E'\n${record}\nE`);
    await other.unstage();
    other.expectNothingLeft();
  });

  it('leaves a volume alone while a call on it is in progress', async () => {
    nowMs += 30_000;
    await bench.plugin.endRevoked(nowMs);
    nowMs += 30_000;
    const { reach } = bench.initiator;
    const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    bench.initiator.reach = async () => {
      asked.resolve();
      await answer.promise;
      return refused('authorization');
    };
    const call = volume.publish().catch((error: unknown) => error);
    await asked.promise;
    await bench.plugin.endRevoked(nowMs);
    answer.resolve();
    expect(String(await call)).to.match(/has been revoked/);
    expect(isLive(volume)).to.equal(true);
    bench.initiator.reach = reach;
    expect(await goneAfter(60)).to.be.a('number');
  });

  it('killed on the way: the next life ends it', async () => {
    await bench.plugin.endRevoked(nowMs);
    nowMs += 30_000;
    bench.dieAt('before:stale-session-logout');
    await bench.plugin.endRevoked(nowMs);
    expect(isLive(volume)).to.equal(true);
    bench.restart();
    expect(await goneAfter(60)).to.equal(30);
  });
});
