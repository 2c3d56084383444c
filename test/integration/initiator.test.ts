/** The initiator adapter on a real node against real LIO targets: iscsid, kernel sessions, SCSI disks. */
import { expect } from 'chai';
import type { IscsiSession, LoginSpec, ScsiDisk, TargetReach } from '../../src/iscsi/initiator/types.ts';
import { Lab } from '../lab/lab.ts';
import { type HandMadeTarget, HandMadeTargets, WITNESS_IQN } from './support/hand-made-targets.ts';
import type { AgentCall } from './support/initiator-agent.ts';
import { InitiatorMachine } from './support/initiator-machine.ts';

const MIB = 2 ** 20;
const CHAP = { user: 'user-of-this-attachment', password: 'secret-of-this-attachment' };
const MUTUAL = { user: 'the-target-itself', password: 'secret-of-the-target' };
const LOCK = '/run/lock/iscsi/lock.write';

describe('initiator', function () {
  this.timeout(1_200_000);

  let lab: Lab;
  let node: InitiatorMachine;
  let targets: HandMadeTargets;
  let count = 0;

  before('start a lab', async function () {
    this.timeout(1_200_000);
    lab = await Lab.start({ nodes: 1 });
    await prepare();
  });

  after(() => lab?.stop());

  afterEach('nothing is left on the node', async function () {
    const left = await node.leftovers();
    if (left.length === 0) return;
    await lab.reset();
    await prepare();
    if (this.currentTest?.state === 'passed') throw new Error(`left behind:\n${left.join('\n')}`);
  });

  async function prepare(): Promise<void> {
    const machine = lab.machine('node-1');
    node = new InitiatorMachine(machine);
    targets = new HandMadeTargets(lab.storage);
    await node.install();
  }

  /** A target of its own for each use, with CHAP. */
  async function makeTarget(options: Partial<Parameters<HandMadeTargets['make']>[1]> = {}): Promise<HandMadeTarget> {
    count += 1;
    return await targets.make(`vol${count}`, { initiatorIqn: node.machine.iqn, chap: CHAP, ...options });
  }

  const spec = (target: HandMadeTarget, change: Partial<LoginSpec> = {}): LoginSpec => ({
    targetIqn: target.targetIqn,
    portal: target.portal,
    chap: CHAP,
    mutualChap: undefined,
    ...change,
  });
  const logout = ({ targetIqn, portal }: HandMadeTarget): AgentCall => ['logout', targetIqn, portal];
  const reach = async ({ targetIqn, portal }: HandMadeTarget): Promise<AgentCall> => {
    const sessions = (await node.call('sessions')) as readonly IscsiSession[];
    const sid = sessions.find((session) => session.targetIqn === targetIqn)?.sid ?? 0;
    return ['reach', { sid, targetIqn, portal }];
  };

  /** Logged in, with its disk. */
  async function attach(target: HandMadeTarget): Promise<ScsiDisk> {
    const [, disk] = await node.run([
      ['login', spec(target)],
      ['findDisk', { $: 0 }, 0],
    ]);
    return disk?.value as ScsiDisk;
  }

  const recordPath = (target: HandMadeTarget): string =>
    `/etc/iscsi/nodes/${target.targetIqn}/${target.portal.replace(':', ',')}`;

  for (const pod of [false, true]) {
    it(`logs in, finds the disk, sees it grow, flushes, logs out, and leaves nothing (${pod ? 'as in a pod' : 'on the host'})`, async () => {
      const target = await makeTarget({ mutualChap: MUTUAL });
      const calls: AgentCall[] = [
        ['problems'],
        ['initiatorIqn'],
        ['login', spec(target, { mutualChap: MUTUAL })],
        ['findDisk', { $: 2 }, 0],
        ['sessions'],
        ['disks', { $: 2 }],
      ];
      const [problems, iqn, session, disk, sessions, disks] = await node.run(calls, { pod });
      const found = disk?.value as ScsiDisk;
      expect(problems?.value).to.deep.equal([]);
      expect(iqn?.value).to.equal(node.machine.iqn);
      expect(session?.value).to.include({
        targetIqn: target.targetIqn,
        portal: target.portal,
        state: 'LOGGED_IN',
        chapUser: CHAP.user,
      });
      expect(disk?.value).to.include({ serial: target.serial, sizeBytes: 64 * MIB, readOnly: false });
      expect(found.wwid).to.equal(`naa.6001405${target.serial.slice(0, 25)}`);
      expect(sessions?.value).to.deep.equal([session?.value]);
      expect(disks?.value).to.deep.equal([disk?.value]);

      const { stdout: settings } = await node.machine.exec(
        `stat -c %a ${recordPath(target)}; cat /sys/class/iscsi_session/session*/recovery_tmo /sys/class/iscsi_connection/*/ping_tmo; iscsiadm -m node -T ${target.targetIqn} | grep -E 'startup|scan|authmethod|noop'`,
      );
      expect(settings.split('\n')).to.deep.equal([
        '600',
        '900',
        '5',
        'node.startup = manual',
        'node.session.auth.authmethod = CHAP',
        'node.session.scan = manual',
        'node.conn[0].startup = manual',
        'node.conn[0].timeo.noop_out_interval = 5',
        'node.conn[0].timeo.noop_out_timeout = 5',
      ]);

      await targets.grow(target, 96);
      const [grown] = await node.run([['rescan', disk?.value]], { pod });
      expect(grown?.value).to.include({ serial: target.serial, sizeBytes: 96 * MIB });

      await node.machine.exec(`printf written > ${found.path}`);
      await node.run(
        [
          ['removeDisk', disk?.value, { flush: true, timeoutMs: 30_000 }],
          ['removeDisk', disk?.value, { flush: true, timeoutMs: 30_000 }],
          ['disks', session?.value],
          logout(target),
          logout(target),
          ['deleteRecord', target.targetIqn],
        ],
        { pod },
      );
      const { stdout: written } = await lab.storage.exec(
        // iblock writes past the page cache, which may hold what udev read when the device was made.
        `dd if=/dev/mapper/${target.name} bs=4096 count=1 iflag=direct | head -c 7`,
      );
      expect(written).to.equal('written');
      expect(await node.leftovers()).to.deep.equal([]);
    });
  }

  it('says why a login fails, soon, and leaves no session and no record', async () => {
    const target = await makeTarget();
    const disabled = await makeTarget();
    await targets.enable(disabled, false);
    const ofOthers = await makeTarget({ initiatorIqn: 'iqn.1993-08.org.debian:01:somebody-else' });
    const closed = { ...target, portal: target.portal.replace('3260', '3999') };
    const wrong = { chap: { user: CHAP.user, password: 'not-the-password' } };
    const calls: [kind: string, AgentCall][] = [
      ['auth-failed', ['login', spec(target, wrong)]],
      ['auth-failed', ['login', spec(target, { chap: undefined })]],
      ['auth-failed', ['login', spec(ofOthers)]],
      ['target-not-found', ['login', spec(disabled)]],
      ['target-not-found', ['login', spec({ ...target, targetIqn: `${target.targetIqn}-none` })]],
      ['unreachable', ['login', spec(closed)]],
    ];
    const answers = await node.request({ calls: calls.map(([, call]) => call), loginTimeoutMs: 10_000 });
    expect(answers.map((answer) => answer.error?.kind)).to.deep.equal(calls.map(([kind]) => kind));
    for (const { durationMs, error } of answers) {
      expect(durationMs, error?.message).to.be.below(30_000);
      expect(error?.message).to.not.include('secret').and.not.include('not-the-password');
    }
    expect(await node.leftovers()).to.deep.equal([]);
  });

  it('logs in to 20 targets at once, no secret in any argument, each disk the right one', async () => {
    const all: HandMadeTarget[] = [];
    while (all.length < 20) all.push(await makeTarget({ sizeMib: 8 }));
    // iscsiadm's every start is written down by a wrapper that comes first in the adapter's PATH, and the process list
    // is sampled beside it.
    const wrapper = '/usr/local/sbin/iscsiadm';
    const started = '/run/iscsiadm-starts';
    const log = `{ echo "$@"; env; } >> ${started}; exec /usr/sbin/iscsiadm "$@"`;
    await node.machine.writeFile(wrapper, `#!/bin/sh\n${log}\n`, 0o755);
    const sampler = await node.machine.spawn('while :; do cat /proc/[0-9]*/cmdline 2>/dev/null; sleep 0.3; done');
    const logins = await node.request({
      calls: all.map((target) => ['login', spec(target)]),
      parallel: true,
      loginTimeoutMs: 120_000,
      loginConcurrency: 5,
    });
    await sampler.kill();
    const starts = await node.machine.readFile(started);
    await node.machine.exec(`rm ${wrapper} ${started}`);
    expect(logins.map(({ error }) => error?.message)).to.deep.equal(all.map(() => undefined));
    expect(starts.match(/--login/g)).to.have.length(20);
    expect(sampler.output).to.include('iscsid');
    expect(`${starts}${sampler.output}`).to.not.include(CHAP.password);
    const { stdout: modes } = await node.machine.exec('find /etc/iscsi/nodes -type f -printf "%m\\n" | sort | uniq -c');
    expect(modes.trim()).to.equal('20 600');
    const disks = await node.request({ calls: logins.map(({ value }) => ['findDisk', value, 0]), parallel: true });
    expect(disks.map(({ value, error }) => error?.message ?? (value as ScsiDisk | undefined)?.serial)).to.deep.equal(
      all.map(({ serial }) => serial),
    );
    const ends = await node.request({ calls: all.map(logout), parallel: true });
    expect(ends.map(({ error }) => error?.message)).to.deep.equal(all.map(() => undefined));
    expect(await node.leftovers()).to.deep.equal([]);
  });

  it('never takes over a session that it did not make, and replaces a record that a discovery has made', async () => {
    const target = await makeTarget();
    await node.machine.exec(`iscsiadm -m discovery -t st -p ${target.portal}`);
    await node.call('login', spec(target));
    const { stdout: records } = await node.machine.exec(`find /etc/iscsi/nodes/${target.targetIqn} -type f`);
    expect(records).to.equal(recordPath(target));
    const { kind } = await node.failure(['login', spec(target)]);
    expect(kind).to.equal('session-exists');
    expect(await node.call('sessions')).to.have.length(1);
    await node.run([logout(target)]);
    await node.machine.exec(`iscsiadm -m discoverydb -t st -p ${target.portal} -o delete; rm -rf /etc/iscsi/nodes/*`);
  });

  it('survives its own death at every step of a login and a logout', async () => {
    const target = await makeTarget();
    const points = [
      'before:iscsi-record-new',
      'before:iscsi-record-write',
      'after:iscsi-record-write',
      'after:iscsi-login',
    ];
    for (const point of points) {
      await node.dieAt(point, [['login', spec(target)]]);
      const [, , session] = await node.run([
        logout(target),
        ['deleteRecord', target.targetIqn],
        ['login', spec(target)],
      ]);
      expect(session?.value, point).to.include({ state: 'LOGGED_IN' });
    }
    for (const point of [
      'before:iscsi-logout',
      'after:iscsi-logout',
      'before:iscsi-record-delete',
      'after:iscsi-record-delete',
    ]) {
      await node.dieAt(point, [logout(target)]);
      const [, session] = await node.run([logout(target), ['login', spec(target)]]);
      expect(session?.value, point).to.include({ state: 'LOGGED_IN' });
    }
    await node.run([logout(target)]);
  });

  it("waits for somebody else's database lock, never breaks it, and names it", async () => {
    const target = await makeTarget();
    await node.run([['login', spec(target)], logout(target)]);
    await node.machine.exec(`touch ${LOCK}`);
    const { kind, error } = await node
      .failure(['deleteRecord', target.targetIqn])
      .catch(() => ({ kind: 'none', error: undefined }));
    expect([kind, error], 'nothing to delete needs no lock').to.deep.equal(['none', undefined]);
    // iscsiadm 2.1.8 itself waits 30 s and then goes on without the lock, removing it: the record is written here.
    await node.machine.exec(`mkdir -p /etc/iscsi/nodes/${target.targetIqn}; touch ${recordPath(target)}`);
    const busy = await node.failure(['deleteRecord', target.targetIqn]);
    expect(busy.kind).to.equal('lock-busy');
    expect(busy.error?.message).to.include(LOCK);
    await node.machine.exec(`test -e ${LOCK} && test -e ${recordPath(target)} && rm ${LOCK}`);
    await node.call('deleteRecord', target.targetIqn);
  });

  it('tells a refusing target from an unreachable one, and ends a revoked session with queued I/O within seconds', async () => {
    const kinds = {
      healthy: await makeTarget(),
      'ACL removed': await makeTarget(),
      'password changed': await makeTarget(),
      disabled: await makeTarget(),
      'target removed': await makeTarget(),
    };
    const all = Object.values(kinds);
    const disks: ScsiDisk[] = [];
    for (const target of all) disks.push(await attach(target));
    // Each writes until a write fails; with pauses, since an emulated machine is slow.
    for (const [index, { path }] of disks.entries()) {
      const write = `dd if=/dev/zero of=${path} bs=4k count=4 oflag=direct 2>/dev/null && sleep 0.5`;
      await node.machine.exec(
        `(while ${write}; do :; done; touch /run/ended-${index}) >/dev/null 2>&1 & echo $! > /run/writer-${index}`,
      );
    }
    await targets.removeAcl(kinds['ACL removed'], node.machine.iqn);
    await targets.changePassword(kinds['password changed'], node.machine.iqn);
    await targets.enable(kinds.disabled, false);
    await targets.removeTarget(kinds['target removed']);
    await node.machine.waitFor(`test $(grep -l FAILED /sys/class/iscsi_session/*/state | wc -l) = 4`, 60_000);
    const calls: AgentCall[] = [];
    for (const target of all) calls.push(await reach(target));
    const answers = (await node.request({ calls })).map(({ value }) => value as TargetReach);
    expect(answers.map((answer) => (answer.kind === 'refused' ? answer.reason : answer.kind))).to.deep.equal([
      'logged-in',
      'authorization',
      'authentication',
      'unavailable',
      'unavailable',
    ]);
    await targets.makeWitness();
    const knock: AgentCall = ['knock', { targetIqn: WITNESS_IQN, portal: kinds.healthy.portal }];
    expect((await node.run([knock]))[0]?.value, 'enabled, without LUN or ACL').to.equal('authorization');
    await targets.setWitness(false);
    expect((await node.run([knock]))[0]?.value, 'disabled').to.equal('unavailable');

    const [, ...revoked] = all.map((target, index) => ({ target, disk: disks[index] }));
    const ends = await node.request({
      calls: revoked.flatMap(({ target, disk }): AgentCall[] => [
        ['removeDisk', disk, { flush: false, timeoutMs: 20_000 }],
        logout(target),
      ]),
    });
    expect(ends.map(({ error }) => error?.message)).to.deep.equal(ends.map(() => undefined));
    // A second or two; far more on a machine that emulates several labs, and still not the 900 s of replacement_timeout.
    for (const { durationMs } of ends) expect(durationMs).to.be.below(45_000);
    await node.machine.waitFor('test $(ls /run/ended-* | wc -l) = 4', 10_000);
    expect(await node.call('sessions')).to.have.length(1);

    await lab.machine('node-1').linkDown();
    await node.machine.waitFor('grep -q FAILED /sys/class/iscsi_session/*/state', 60_000);
    const asked = await reach(kinds.healthy);
    const [down] = await node.run([asked]);
    expect(down?.value).to.deep.equal({ kind: 'unreachable' });
    await lab.machine('node-1').linkUp();
    await node.machine.waitFor('grep -q LOGGED_IN /sys/class/iscsi_session/*/state', 60_000);
    const [up] = await node.run([asked]);
    expect(up?.value).to.deep.equal({ kind: 'logged-in' });
    await node.machine.exec('kill $(cat /run/writer-0); while pgrep -x dd; do sleep 0.1; done');
    await node.run([['removeDisk', disks[0], { flush: true, timeoutMs: 60_000 }], logout(kinds.healthy)]);
  });

  it('refuses to remove a disk that cannot be written back, or that something still uses', async () => {
    const target = await makeTarget();
    const disk = await attach(target);
    await node.machine.exec(`dmsetup create holder --table "0 2048 linear ${disk.path} 0"`);
    const used = await node.failure(['removeDisk', disk, { flush: true, timeoutMs: 20_000 }]);
    expect(used.kind).to.equal('in-use');
    await node.machine.exec('dmsetup remove holder');
    await targets.failIo(target);
    // Into the page cache only; nothing has failed yet.
    await node.machine.exec(`dd if=/dev/zero of=${disk.path} bs=4k count=64 conv=notrunc`);
    const lost = await node.failure(['removeDisk', disk, { flush: true, timeoutMs: 60_000 }]);
    expect(lost.kind).to.equal('flush-failed');
    await node.machine.exec(`test -b ${disk.path}`);
    await node.run([['removeDisk', disk, { flush: false, timeoutMs: 60_000 }], logout(target)]);
  });
});
