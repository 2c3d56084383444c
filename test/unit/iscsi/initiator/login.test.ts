import { readdir, readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { DatabaseLock } from '../../../../src/iscsi/initiator/database-lock.ts';
import type { IscsiError } from '../../../../src/iscsi/initiator/errors.ts';
import { Iscsiadm } from '../../../../src/iscsi/initiator/iscsiadm.ts';
import { Logins } from '../../../../src/iscsi/initiator/login.ts';
import type { LoginAnswer } from '../../../../src/iscsi/initiator/login-probe.ts';
import { NodeRecords } from '../../../../src/iscsi/initiator/records.ts';
import { Sessions } from '../../../../src/iscsi/initiator/sessions.ts';
import { Sysfs } from '../../../../src/iscsi/initiator/sysfs.ts';
import { requestId, withContext } from '../../../../src/system/context.ts';
import { FakeHost, type Scripted } from './support/host.ts';

const IQN = 'iqn.2010-10.org.openstack:vol1';
const PORTAL = '10.77.0.10:3260';
const SPEC = { targetIqn: IQN, portal: PORTAL, chap: { user: 'u', password: 'a-secret' }, mutualChap: undefined };
const LOGIN = `iscsiadm -m node -T ${IQN} -p ${PORTAL} --login`;

/** iscsiadm and iscsid are scripted: their answers are rare or impossible to provoke; their real ones, see the lab test. */
describe('initiator: login and logout', () => {
  let host: FakeHost;
  let logins: Logins;
  let withConcurrency: (concurrency: number) => Logins;
  let answer: LoginAnswer;
  let onLogin: () => Promise<Scripted> | Scripted;
  let onLogout: (sid: number) => Promise<Scripted> | Scripted;
  let nextSid: number;

  beforeEach(async () => {
    host = await FakeHost.make();
    answer = { kind: 'accepted' };
    nextSid = 1;
    onLogin = async () => {
      await connect();
      return {};
    };
    onLogout = async (sid) => {
      await host.endSession(sid);
      return {};
    };
    const iscsiadm = new Iscsiadm(host.commands);
    const { files, root: hostRoot } = host;
    const options = {
      iscsiadm,
      records: new NodeRecords({ files, hostRoot, iscsiadm, lock: new DatabaseLock({ files, hostRoot, waitMs: 500 }) }),
      sessions: new Sessions(new Sysfs(files, hostRoot)),
      settings: { loginTimeoutMs: 3_000, replacementTimeoutSeconds: 900 },
      recordDefaults: async () => new Map(),
      askTarget: async () => answer,
    };
    withConcurrency = (concurrency) => new Logins({ ...options, concurrency });
    logins = withConcurrency(2);
    host.commands.script = async (line) => {
      const target = /-T (\S+)/.exec(line)?.[1];
      if (line.endsWith('-o new')) await host.write(`etc/iscsi/nodes/${target}/10.77.0.10,3260`, '');
      if (line.endsWith('--login')) return await onLogin();
      const sid = /-r ([0-9]+) -u$/.exec(line)?.[1];
      return sid === undefined ? {} : await onLogout(Number(sid));
    };
  });
  afterEach(() => host.remove());

  async function connect(targetIqn = IQN, state = 'LOGGED_IN'): Promise<number> {
    const sid = nextSid++;
    await host.session({ sid, host: sid + 10, targetIqn, state });
    return sid;
  }
  const records = async (): Promise<string[]> => await readdir(host.path('etc/iscsi/nodes'));
  const logIns = (): number => host.commands.lines.filter((line) => line.endsWith('--login')).length;
  async function failure(): Promise<IscsiError> {
    return (await logins.login(SPEC).then(
      () => expect.fail('the login was to fail'),
      (error: unknown) => error,
    )) as IscsiError;
  }

  it('writes the record, logs in, and has no secret in any argument', async () => {
    expect(await logins.login(SPEC)).to.include({ sid: 1, hostNumber: 11, state: 'LOGGED_IN' });
    expect(host.commands.lines.at(-1)).to.equal(LOGIN);
    expect(host.commands.lines.join('\n')).to.not.include('a-secret');
    expect(await readFile(host.path(`etc/iscsi/nodes/${IQN}/10.77.0.10,3260`), 'utf8')).to.include('= a-secret\n');
    await logins.logout(IQN, PORTAL);
    expect(await records()).to.deep.equal([]);
    await logins.logout(IQN, PORTAL);
  });

  it('never takes a session that was there before (15) for its own, and leaves it', async () => {
    await connect();
    onLogin = () => ({ exitCode: 15 });
    expect((await failure()).kind).to.equal('session-exists');
    expect(host.commands.lines.filter((line) => line.endsWith('-u'))).to.deep.equal([]);
    expect(await records()).to.deep.equal([]);
  });

  it('logs in again when the session that was in the way (15) has just ended', async () => {
    onLogin = async () => {
      if (logIns() === 1) return { exitCode: 15 };
      await connect();
      return {};
    };
    expect((await logins.login(SPEC)).sid).to.equal(1);
  });

  it('repeats after a database error (6), and looks whether the login was done all the same', async () => {
    onLogin = async () => {
      if (logIns() === 2) await connect();
      return { exitCode: 6 };
    };
    expect((await logins.login(SPEC)).sid).to.equal(1);
    expect(logIns()).to.equal(2);
  });

  it('takes the session when iscsiadm never answers but the login is done (open-iscsi 2.1.10)', async () => {
    onLogin = async () => {
      await connect();
      return { timedOut: true };
    };
    expect((await logins.login(SPEC)).sid).to.equal(1);
  });

  it('ends a half-made session after a timeout', async () => {
    onLogin = async () => {
      await connect(IQN, 'FREE');
      return { timedOut: true };
    };
    expect((await failure()).kind).to.equal('timeout');
    expect(host.commands.lines.at(-1)).to.equal('iscsiadm -m session -r 1 -u');
    expect(await records()).to.deep.equal([]);
  });

  for (const [exitCode, targetSays, kind] of [
    [24, { kind: 'refused', reason: 'authentication' }, 'auth-failed'],
    [24, { kind: 'refused', reason: 'authorization' }, 'auth-failed'],
    [24, { kind: 'accepted' }, 'auth-failed'],
    [24, { kind: 'no-answer', detail: 'the portal closed the connection' }, 'auth-failed'],
    [19, { kind: 'refused', reason: 'not-found' }, 'target-not-found'],
    [5, { kind: 'unavailable' }, 'target-not-found'],
    [8, { kind: 'unavailable' }, 'target-not-found'],
    [8, { kind: 'no-answer', detail: 'connect ECONNREFUSED' }, 'unreachable'],
    [4, { kind: 'accepted' }, 'unreachable'],
    [11, { kind: 'accepted' }, 'timeout'],
    [12, { kind: 'accepted' }, 'missing'],
    [18, { kind: 'accepted' }, 'iscsid-down'],
    [20, { kind: 'accepted' }, 'iscsid-down'],
    [99, { kind: 'accepted' }, 'other'],
  ] satisfies [number, LoginAnswer, string][]) {
    it(`exit code ${exitCode} and ${JSON.stringify(targetSays)} is ${kind}`, async () => {
      answer = targetSays;
      onLogin = () => ({ exitCode });
      const error = await failure();
      expect(error.kind).to.equal(kind);
      expect(error.message).to.include(IQN).and.not.include('a-secret');
      expect(await records()).to.deep.equal([]);
    });
  }

  it('ends every session of the portal by its number, and others of the target not', async () => {
    await connect();
    await connect(`${IQN}-other`);
    await host.session({ sid: 7, host: 17, targetIqn: IQN, address: '10.77.0.99' });
    await logins.logout(IQN, PORTAL);
    expect(host.commands.lines).to.deep.equal(['iscsiadm -m session -r 1 -u']);
  });

  it('takes a session that is gone for ended, whatever iscsiadm says', async () => {
    await connect();
    onLogout = async (sid) => {
      await host.endSession(sid);
      return { exitCode: 21 };
    };
    await logins.logout(IQN, PORTAL);
  });

  it('runs only so many logins at once, and one at a time for each target', async () => {
    let running = 0;
    let most = 0;
    onLogin = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 30));
      running -= 1;
      return { exitCode: 20 };
    };
    const specs = [1, 2, 3, 4, 5].map((n) => ({ ...SPEC, targetIqn: `${IQN}${n}` }));
    await Promise.allSettled([...specs, ...specs].map((spec) => logins.login(spec)));
    expect(most).to.equal(2);
    expect(logIns()).to.equal(10);
  });

  it('runs what waited in the queue under the id of its own call', async () => {
    const seen = new Map<string, string | undefined>();
    onLogin = async () => {
      const target = /-T (\S+)/.exec(host.commands.lines.at(-1) ?? '')?.[1] ?? '';
      seen.set(target, requestId());
      await connect(target);
      return {};
    };
    const serial = withConcurrency(1);
    const ids = new Map<string, string | undefined>();
    const calls = [1, 2, 3, 4].map((n) => {
      const targetIqn = `${IQN}${n}`;
      return withContext({}, async () => {
        ids.set(targetIqn, requestId());
        await serial.login({ ...SPEC, targetIqn });
      });
    });
    await Promise.all(calls);
    expect(new Set(ids.values()).size).to.equal(4);
    expect([...seen].sort()).to.deep.equal([...ids].sort());
  });

  it('bounds logouts for each portal, and a portal whose logouts hang keeps no other waiting', async () => {
    const other = '10.77.0.11:3260';
    const atOnce = { now: 0, most: 0 };
    let release = (): void => {};
    const hang = new Promise<void>((resolve) => {
      release = resolve;
    });
    for (const n of [1, 2, 3, 4]) await connect(`${IQN}${n}`);
    await host.session({ sid: 9, host: 19, targetIqn: `${IQN}9`, address: '10.77.0.11' });
    onLogout = async (sid) => {
      if (sid !== 9) {
        atOnce.now += 1;
        atOnce.most = Math.max(atOnce.most, atOnce.now);
        await hang;
        atOnce.now -= 1;
      }
      await host.endSession(sid);
      return {};
    };
    const hanging = [1, 2, 3, 4].map((n) => logins.logout(`${IQN}${n}`, PORTAL));
    await logins.logout(`${IQN}9`, other);
    // A login does not wait for the logouts either.
    expect((await logins.login(SPEC)).targetIqn).to.equal(IQN);
    expect(atOnce.now).to.equal(2);
    release();
    await Promise.all(hanging);
    expect(atOnce.most).to.equal(2);
  });
});
