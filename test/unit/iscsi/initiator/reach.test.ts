import { expect } from 'chai';
import type { LoginAnswer, LoginProbe } from '../../../../src/iscsi/initiator/login-probe.ts';
import { Reach } from '../../../../src/iscsi/initiator/reach.ts';
import { Sessions } from '../../../../src/iscsi/initiator/sessions.ts';
import { Sysfs } from '../../../../src/iscsi/initiator/sysfs.ts';
import { FakeHost } from './support/host.ts';

const IQN = 'iqn.2010-10.org.openstack:vol1';
const SPEC = { sid: 1, targetIqn: IQN, portal: '10.77.0.10:3260' };

/** The target's answers are scripted here; the lab test asks real targets. */
describe('initiator: reach', () => {
  let host: FakeHost;
  let probes: LoginProbe[];
  let answers: LoginAnswer[];
  let reach: Reach;
  beforeEach(async () => {
    host = await FakeHost.make();
    probes = [];
    answers = [];
    reach = new Reach({
      sessions: new Sessions(new Sysfs(host.files, host.root)),
      initiatorIqn: async () => 'iqn.of:the-file',
      confirmMs: 1_500,
      probe: async (probe) => {
        probes.push(probe);
        return (answers.length > 1 ? answers.shift() : answers[0]) ?? expect.fail('no answer scripted');
      },
    });
  });
  afterEach(() => host.remove());

  const session = (state: string): Promise<void> =>
    host.session({ sid: 1, host: 6, targetIqn: IQN, state, username: 'u', password: 'p' });

  it('asks nobody while the session is up, or when there is none', async () => {
    expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'unreachable' });
    await session('LOGGED_IN');
    expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'logged-in' });
    expect(probes).to.deep.equal([]);
  });

  it("asks with the session's own name and credentials, at whichever portal", async () => {
    await session('FAILED');
    answers = [{ kind: 'refused', reason: 'authorization' }];
    expect(await reach.reach(SPEC)).to.deep.include({ kind: 'refused', reason: 'authorization' });
    expect(await reach.reach({ ...SPEC, portal: '10.77.0.11:3260' })).to.deep.include({ kind: 'refused' });
    expect(probes.at(-1)?.portal).to.deep.equal({ address: '10.77.0.11', port: 3260 });
    expect(probes[0]).to.deep.include({
      initiatorIqn: 'iqn.1993-08.org.debian:01:lab-node-1',
      targetIqn: IQN,
      portal: { address: '10.77.0.10', port: 3260 },
      chap: { user: 'u', password: 'p' },
    });
  });

  it('tells silence from a target that lets us in and has not got us back', async () => {
    await session('FAILED');
    answers = [{ kind: 'no-answer', detail: 'silence' }];
    expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'unreachable' });
    answers = [{ kind: 'accepted' }];
    expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'accepted' });
  });

  it('tells a refusal of whatever kind only when it stays', async () => {
    await session('FAILED');
    for (const answer of [{ kind: 'unavailable' }, { kind: 'refused', reason: 'authorization' }] as const) {
      answers = [answer, { kind: 'no-answer', detail: 'rebooting' }];
      expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'unreachable' });
      answers = [answer, { kind: 'accepted' }];
      expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'accepted' });
    }
    answers = [{ kind: 'refused', reason: 'authorization' }, { kind: 'unavailable' }];
    const told = await reach.reach(SPEC);
    if (told.kind !== 'refused') return expect.fail(told.kind);
    expect(told.reason).to.equal('unavailable');
    expect(told.forMs).to.be.at.least(1_500);
  });

  it('sees a session that comes back meanwhile', async () => {
    await session('FAILED');
    answers = [{ kind: 'unavailable' }];
    setTimeout(() => void host.write('sys/class/iscsi_session/session1/state', 'LOGGED_IN\n'), 200);
    expect(await reach.reach(SPEC)).to.deep.equal({ kind: 'logged-in' });
  });
});
