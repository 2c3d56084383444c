/** Gate and target adapters on a real kernel, with real initiators, without the rest of the driver. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { Lab } from '../lab/lab.ts';
import type { AgentAnswer, AgentCall } from './support/target-agent.ts';
import { acl, chap, TargetMachine, type TestTarget } from './support/target-machine.ts';
import { TargetNode, type Writer } from './support/target-node.ts';

describe('gates and targets', function () {
  this.timeout(900_000);
  let lab: Lab;
  let host: TargetMachine;
  let one: TargetNode;
  let two: TargetNode;
  let volumes = 0;
  const made: TestTarget[] = [];

  before(async () => {
    lab = await Lab.start({ nodes: 2 });
    host = await TargetMachine.prepare(lab);
    one = new TargetNode(lab.machine('node-1'), host.portal);
    two = new TargetNode(lab.machine('node-2'), host.portal);
  });

  after(() => lab?.stop());

  const newVolume = async (): Promise<TestTarget> => {
    volumes += 1;
    const volume = await host.createVolume(volumes);
    made.push(volume);
    return volume;
  };

  afterEach('nothing is left', async () => {
    const volumesOfTest = made.splice(0);
    for (const volume of volumesOfTest) for (const node of [one, two]) await node.logout(volume);
    // All of them at once, step by step.
    const teardowns = volumesOfTest.map((volume) => volume.teardown());
    await host.ok(...[0, 1, 2, 3].map((index) => ['all', teardowns.map((calls) => calls[index])] as const));
    await host.storage.exec("dmsetup ls | grep -o '^slow-[^[:space:]]*' | xargs -rn1 dmsetup remove --retry");
    for (const volume of volumesOfTest) await host.removeVolume(volume);
    expect(await host.leftovers()).to.equal('');
  });

  const exported = async (...nodes: TargetNode[]): Promise<TestTarget> => {
    const volume = await newVolume();
    await host.ok(volume.gate(), volume.ensure(nodes.map(({ machine }) => acl(machine))));
    return volume;
  };

  const contentOf = async (volume: TestTarget): Promise<string> => {
    const { stdout } = await host.storage.exec(`dd if=${volume.lvPath} bs=1M iflag=direct status=none | sha256sum`);
    return stdout;
  };

  /** What no fence may ever allow. */
  const nothingLands = async (volume: TestTarget, seconds: number): Promise<void> => {
    const before = await contentOf(volume);
    await delay(seconds * 1000);
    expect(await contentOf(volume), 'the LV has changed after the fence').to.equal(before);
  };

  /** A device over the LV on which each write takes 5 s. @returns its path. */
  const slowDevice = async (volume: TestTarget): Promise<string> => {
    await host.storage.exec(
      `modprobe dm-delay
       n=$(blockdev --getsz ${volume.lvPath})
       dmsetup create slow-${volume.volumeId} --table "0 $n delay ${volume.lvPath} 0 0 ${volume.lvPath} 0 5000"`,
    );
    return `/dev/mapper/slow-${volume.volumeId}`;
  };

  /** Runs the call while a write is on its way through the slow device that cannot end before the call has. */
  const whileStuck = async (volume: TestTarget, call: AgentCall): Promise<AgentAnswer | undefined> => {
    const answeredSign = '/run/target-agent-answered';
    const slow = `slow-${volume.volumeId}`;
    // What is delayed now is let through by the suspend; the next write waits for the resume, and 5 s more. The resume is
    // the host's own: until it comes, the agent cannot end.
    await host.storage.exec(
      `rm -f ${answeredSign}; dmsetup suspend ${slow}
       setsid sh -c 'until [ -e ${answeredSign} ]; do sleep 0.2; done; dmsetup resume ${slow}' </dev/null >/dev/null 2>&1 &`,
    );
    await host.storage.waitFor(
      `read -r _ writes < /sys/class/block/$(basename $(readlink -f ${volume.gatePath}))/inflight; [ "$writes" -gt 0 ]`,
    );
    return (await host.run([call], { answeredSign }))[0];
  };

  describe('building', () => {
    it('lets in who has an ACL and the right password, and nobody else', async () => {
      const volume = await exported(one);
      expect(await one.refused(volume, { ...chap('node-1'), password: 'not-the-password' } as never)).to.match(/auth/i);
      expect(await one.refused(volume, { kind: 'none' })).to.match(/login/i);
      expect(await two.refused(volume, chap('node-1'))).to.match(/login|auth/i);
      const device = await one.login(volume);
      const { stdout } = await one.machine.exec(
        `tail -c +5 /sys/class/block/${device.slice(5)}/device/vpd_pg80; cat /sys/class/block/${device.slice(5)}/device/wwid`,
      );
      // LIO ends the serial with a NUL byte.
      expect(stdout).to.equal(`${volume.serial}\0naa.6001405${volume.serial.slice(0, 25)}`);
      const discovery = (node: TargetNode) =>
        node.machine.exec(`iscsiadm -m discoverydb -t st -p ${host.portal} -D -o nonpersistent 2>&1; true`);
      expect((await discovery(one)).stdout).to.contain(volume.targetIqn);
      expect((await discovery(two)).stdout, 'a stranger sees no target').not.to.contain(volume.targetIqn);
    });

    it('knows mutual CHAP, and takes a new password for the next login', async () => {
      const volume = await newVolume();
      const mutual = { user: 'the-target', password: 'mutual-password' };
      const auth = { ...chap('node-1'), mutual } as ReturnType<typeof chap>;
      await host.ok(volume.gate(), volume.ensure([acl(one.machine, auth)]));
      await one.login(volume, auth);
      await one.logout(volume);
      const wrong = { ...auth, mutual: { ...mutual, password: 'another-password' } } as typeof auth;
      expect(await one.refused(volume, wrong)).to.match(/login|auth/i);
      const changed = { ...chap('node-1'), password: 'a-new-password' } as typeof auth;
      await host.ok(volume.ensure([acl(one.machine, changed)]));
      expect(await one.refused(volume, chap('node-1'))).to.match(/auth/i);
      await one.login(volume, changed);
    });

    it('touches nothing when all is right: same session, no step, no pause', async () => {
      const volume = await exported(one);
      const device = await one.login(volume);
      const session = await one.sessions(volume);
      const writer = await one.write(device);
      const calls = [volume.gate(), volume.ensure([acl(one.machine)]), ['targets.list'] as const];
      for (let time = 0; time < 3; time += 1) {
        const [gate, target, list] = await host.ok(...calls);
        expect([gate?.steps, target?.steps]).to.deep.equal([[], []]);
        expect(list?.value).to.deep.include({
          volumeId: volume.volumeId,
          targetIqn: volume.targetIqn,
          enabled: true,
          portals: [host.portal],
          aclInitiators: [one.machine.iqn],
          admittedInitiators: [one.machine.iqn],
          backstoreDevice: volume.gatePath,
          backings: [volume.gatePath],
          hasOwnBackstore: true,
          sessions: [{ initiatorIqn: one.machine.iqn }],
        } as never);
      }
      expect((await writer.stop()).error).to.equal(null);
      expect(await one.sessions(volume)).to.equal(session);
    });

    it('write-protects what is read-only, for that node alone', async () => {
      const volume = await newVolume();
      await host.ok(volume.gate(), volume.ensure([acl(one.machine), acl(two.machine, chap('node-2'), true)]));
      const [writable, readonly] = [await one.login(volume), await two.login(volume)];
      expect((await two.machine.exec(`cat /sys/class/block/${readonly.slice(5)}/ro`)).stdout).to.equal('1');
      const write = 'dd if=/dev/zero bs=4k count=1 oflag=direct status=none of=';
      expect(
        (await two.machine.exec(`blockdev --setrw ${readonly}; ${write}${readonly}`, { check: false })).exitCode,
      ).to.equal(1);
      await one.machine.exec(`${write}${writable}`);
    });

    it('keeps access whose credentials it does not know, and gives none', async () => {
      const volume = await exported(one);
      const kept = acl(one.machine, { kind: 'keep' });
      const [answer] = await host.ok(volume.ensure([kept, acl(two.machine, { kind: 'keep' })]));
      expect(answer?.steps).to.deep.equal([]);
      await one.login(volume);
      expect(await two.refused(volume, chap('node-2'))).to.match(/login|auth/i);
    });

    it('serves without CHAP when it is off', async () => {
      const volume = await newVolume();
      await host.ok(volume.gate(), volume.ensure([acl(one.machine, { kind: 'none' })]));
      const device = await one.login(volume, { kind: 'none' });
      await host.ok(volume.ensure([acl(one.machine, { kind: 'none' }), acl(two.machine, { kind: 'none' })]));
      await two.login(volume, { kind: 'none' });
      const writer = await one.write(device);
      await host.ok(volume.revoke(two.machine));
      expect((await writer.stop()).error).to.equal(null);
      expect(await two.refused(volume, { kind: 'none' })).to.match(/login|auth/i);
    });

    it('builds many at once, each behind a gate of its own', async () => {
      const many = [];
      for (let index = 0; index < 8; index += 1) many.push(await newVolume());
      await host.ok(
        ['all', many.map((volume) => volume.gate())],
        ['all', many.map((volume) => volume.ensure([acl(one.machine)]))],
      );
      const again = await host.ok(...many.map((volume) => volume.ensure([acl(one.machine)])));
      expect(again.flatMap(({ steps }) => steps)).to.deep.equal([]);
      const last = many.at(-1) as TestTarget;
      await one.machine.exec(
        `echo of-the-last | dd of=${await one.login(last)} bs=512 conv=sync oflag=direct status=none`,
      );
      expect((await host.storage.exec(`head -c 11 ${last.lvPath}`)).stdout).to.equal('of-the-last');
    });

    it('leaves the portal for later when asked to', async () => {
      const volume = await newVolume();
      await host.ok(volume.gate(), ['targets.ensure', volume.spec([acl(one.machine)]), { portals: false }]);
      expect(await one.refused(volume, chap('node-1'))).not.to.equal('');
      await host.ok(['targets.openPortals', volume.targetIqn]);
      await one.login(volume);
    });

    it('says what is wrong with a portal, a device, a stranger', async () => {
      const volume = await newVolume();
      await host.ok(volume.gate());
      const [problems] = await host.run([['targets.problems']], { portals: ['192.0.2.1:3260', host.portal] });
      expect(problems?.value).to.have.length(1);
      expect(String(problems?.value)).to.contain('192.0.2.1:3260').and.to.contain(host.storage.address);
      const taken = `${host.storage.address}:3999`;
      const other = await host.storage.spawn('exec python3 -m http.server 3999');
      await host.storage.waitFor('ss -ltn | grep -q :3999', 30_000);
      const [bad] = await host.run([volume.ensure([acl(one.machine)])], { portals: [taken] });
      await other.kill();
      expect(bad?.error).to.include({ name: 'TargetError', reason: 'portal' });
      expect(bad?.error?.message).to.contain(taken).and.to.contain('another program listens there');
      const [missing, foreign] = await host.run([
        volume.ensure([acl(one.machine)], { devicePath: '/dev/mapper/gate-nothing' }),
        ['targets.remove', volume.volumeId, 'iqn.2003-01.org.other:x', { timeoutMs: 1000 }],
      ]);
      expect(missing?.error).to.include({ name: 'TargetError', reason: 'device' });
      expect(foreign?.error).to.include({ name: 'TargetError', reason: 'foreign' });
    });

    it('never swaps the device or serial under a session, and rebuilds when there is none', async () => {
      const volume = await exported(one);
      const writer = await one.write(await one.login(volume));
      const changed = volume.ensure([acl(one.machine)], { serial: 'f'.repeat(32) });
      const [refused] = await host.run([changed]);
      expect(refused?.error).to.include({ name: 'TargetError', reason: 'conflict' });
      expect((await writer.stop()).error).to.equal(null);
      await one.logout(volume);
      await host.ok(changed);
      const device = await one.login(volume);
      expect(
        (await one.machine.exec(`tail -c +5 /sys/class/block/${device.slice(5)}/device/vpd_pg80`)).stdout,
      ).to.equal(`${'f'.repeat(32)}\0`);
    });

    it('leaves what is not ours alone', async () => {
      await host.storage.exec(`
        modprobe target_core_file 2>/dev/null; cd /sys/kernel/config/target
        dmsetup create foreign --table "0 2048 zero"; dmsetup create gate-strange --table "0 2048 zero"
        mkdir -p core/iblock_0/other iscsi/iqn.2003-01.org.other:x/tpgt_1/lun/lun_0
        echo udev_path=/dev/mapper/foreign > core/iblock_0/other/control; echo 1 > core/iblock_0/other/enable
        ln -s core/iblock_0/other iscsi/iqn.2003-01.org.other:x/tpgt_1/lun/lun_0/x`);
      const tree =
        'cd /sys/kernel/config/target; find core/iblock_0 iscsi/iqn.2003* | sort; dmsetup table foreign gate-strange';
      const before = (await host.storage.exec(tree)).stdout;
      const volume = await exported(one);
      await one.login(volume);
      await one.logout(volume);
      await host.ok(...volume.teardown());
      expect((await host.storage.exec(tree)).stdout).to.equal(before);
      const [refused, list] = await host.run([['gates.remove', 'volume-strange'], ['gates.list']]);
      expect(refused?.error).to.include({ name: 'GateError', reason: 'foreign' });
      expect(list?.value).to.deep.equal([]);
      await host.storage.exec(`
        cd /sys/kernel/config/target; t=iscsi/iqn.2003-01.org.other:x
        rm $t/tpgt_1/lun/lun_0/x; rmdir $t/tpgt_1/lun/lun_0 $t/tpgt_1 $t core/iblock_0/other core/iblock_0
        dmsetup remove foreign; dmsetup remove gate-strange`);
    });
  });

  describe('fencing', () => {
    it('revokes one of two: the other never notices', async () => {
      const volume = await exported(one, two);
      const stays = await one.write(await one.login(volume, chap('node-1'), 120), { first: 0 });
      const goes = await two.write(await two.login(volume), { first: 4000 });
      const session = await one.sessions(volume);
      const [answer] = await host.ok(volume.revoke(two.machine));
      const [stopped, other] = [await goes.report(), await stays.stop()];
      expect(stopped.error).to.be.a('string');
      expect(other.error).to.equal(null);
      expect(await one.sessions(volume)).to.equal(session);
      console.log(
        `      revoke ${answer?.durationMs} ms; the other's longest pause ${other.longestPauseS.toFixed(2)} s`,
      );
      expect(await two.refused(volume, chap('node-2'))).to.match(/login|auth/i);
      await nothingLands(volume, 3);
    });

    it('revokes who is not in the spec, at the next ensure', async () => {
      const volume = await exported(one, two);
      const goes = await two.write(await two.login(volume));
      await host.ok(volume.ensure([acl(one.machine)]));
      expect((await goes.report()).error).to.be.a('string');
      await nothingLands(volume, 2);
    });

    it('disables a target: its node is cut off within a second, and nothing lands afterwards', async () => {
      const volume = await exported(one);
      const writer = await one.write(await one.login(volume));
      const [answer] = await host.ok(volume.disable());
      const returnedAt = Number((await host.storage.exec('date +%s.%N')).stdout);
      await nothingLands(volume, 3);
      const report = await writer.report();
      console.log(
        `      disable ${answer?.durationMs} ms, the last write ${(returnedAt - report.lastAcknowledged).toFixed(2)} s before`,
      );
      expect(report.error).to.be.a('string');
      expect(report.lastAcknowledged).to.be.lessThan(returnedAt);
      expect(await one.refused(volume, chap('node-1'))).not.to.equal('');
    });

    it('severs a gate over a slow disk: not one byte lands after it has returned', async () => {
      const volume = await newVolume();
      const slow = await slowDevice(volume);
      await host.ok(volume.gate(64, slow), volume.ensure([acl(one.machine)]));
      const writer = await one.write(await one.login(volume));
      const early = await whileStuck(volume, volume.sever(1000));
      expect(early?.error, 'no success before the I/O has drained').to.include({ name: 'GateTimeoutError' });
      const [joined] = await host.ok(volume.sever(30_000));
      console.log(`      the retry took ${joined?.durationMs} ms`);
      await nothingLands(volume, 12);
      expect((await writer.report(90_000)).error).to.be.a('string');
    });

    it('disables a target over a slow disk: no success before its I/O has ended', async () => {
      const volume = await newVolume();
      const slow = await slowDevice(volume);
      await host.ok(volume.gate(64, slow), volume.ensure([acl(one.machine)]));
      const writer = await one.write(await one.login(volume));
      const early = await whileStuck(volume, volume.disable(1000));
      expect(early?.error).to.include({ name: 'TargetTimeoutError', reason: 'timeout' });
      await host.ok(volume.disable(40_000));
      await nothingLands(volume, 12);
      expect((await writer.report(90_000)).error).to.be.a('string');
    });

    it('revokes one of two over a slow disk, in the same way', async () => {
      const volume = await newVolume();
      const slow = await slowDevice(volume);
      await host.ok(volume.gate(64, slow), volume.ensure([acl(one.machine), acl(two.machine)]));
      await one.login(volume);
      const writer = await two.write(await two.login(volume));
      const early = await whileStuck(volume, volume.revoke(two.machine, 1000));
      expect(early?.error).to.include({ name: 'TargetTimeoutError' });
      await host.ok(volume.revoke(two.machine, 40_000));
      await nothingLands(volume, 12);
      expect((await writer.report(90_000)).error).to.be.a('string');
    });
  });

  describe('the gate', () => {
    it('grows under I/O', async () => {
      const volume = await exported(one);
      const device = await one.login(volume);
      const writer = await one.write(device);
      await host.storage.exec(`lvextend -qq -L 96M ${volume.lvPath}`);
      const [answer] = await host.ok(volume.gate(96));
      expect(answer?.steps).to.deep.equal(['gate-reload', 'gate-swap']);
      await one.machine.exec(`echo 1 > /sys/class/block/${device.slice(5)}/device/rescan`);
      expect((await one.machine.exec(`blockdev --getsize64 ${device}`)).stdout).to.equal(String(96 * 2 ** 20));
      const report = await writer.stop();
      expect(report.error).to.equal(null);
      console.log(`      longest pause of the writer ${report.longestPauseS.toFixed(2)} s`);
    });

    it('refuses to be rebuilt or removed while it is held open', async () => {
      const volume = await exported(one);
      const other = await newVolume();
      const answers = await host.run([
        volume.gate(64, other.lvPath),
        volume.gate(32),
        ['gates.remove', volume.volumeId],
        volume.sever(),
        volume.gate(),
      ]);
      const reasons = answers.map(({ error }) => error?.reason);
      expect(reasons).to.deep.equal(['in-use', 'in-use', 'in-use', undefined, 'severed']);
      await host.ok(['targets.remove', volume.volumeId, volume.targetIqn, { timeoutMs: 20_000 }], volume.gate());
      const [gates] = await host.ok(['gates.list']);
      expect(gates?.value).to.deep.include({
        volumeId: volume.volumeId,
        path: volume.gatePath,
        suspended: false,
        table: 'linear',
        sizeBytes: 64 * 2 ** 20,
        backing: (
          await host.storage.exec(`stat -L -c %t:%T ${volume.lvPath} | (IFS=: read a b; echo $((16#$a)):$((16#$b)))`)
        ).stdout.trim(),
        openCount: 0,
      } as never);
    });

    it('says whose LV it serves', async () => {
      const volume = await newVolume();
      const vgUuid = (await host.storage.exec('vgs --noheadings -o vg_uuid')).stdout.trim();
      const answers = await host.ok(
        volume.gate(),
        ['gates.servesOtherVg', volume.volumeId, vgUuid],
        ['gates.servesOtherVg', volume.volumeId, 'abcdef-0000-0000-0000-0000-0000-000000'],
        volume.sever(),
        ['gates.servesOtherVg', volume.volumeId, 'abcdef-0000-0000-0000-0000-0000-000000'],
      );
      expect(answers.map(({ value }) => value)).to.deep.equal([undefined, false, true, undefined, false]);
    });

    it('stops the I/O of several at once, and goes on with it', async () => {
      const first = await exported(one);
      const second = await exported(one);
      const writers = [];
      for (const volume of [first, second]) writers.push(await one.write(await one.login(volume)));
      // What the writers write, twice: well within the guard's time, under emulation too.
      const sums = `for i in 1 2; do for d in ${first.lvPath} ${second.lvPath}; do dd if=$d bs=1M count=4 iflag=direct status=none | cksum; done; sleep 1; done`;
      const [answer] = await host.ok(['underSuspension', [first.volumeId, second.volumeId], sums]);
      const [a, b, ...later] = String(answer?.value).trim().split('\n');
      expect(later).to.deep.equal([a, b]);
      for (const writer of writers) expect((await writer.stop()).error).to.equal(null);
    });

    /** Who suspended it is dead: only its guard can let the I/O go on. */
    const guardResumes = async (volume: TestTarget, writer: Writer): Promise<void> => {
      const suspended = `dmsetup info -c --noheadings -o suspended ${volume.gatePath}`;
      expect((await host.storage.exec(suspended)).stdout).to.match(/^Suspended/);
      await host.storage.waitFor(`${suspended} | grep -q Active`, 15_000);
      await delay(1000);
      const report = await writer.stop();
      expect(report.error).to.equal(null);
      console.log(`      the writer waited ${report.longestPauseS.toFixed(2)} s`);
      expect(report.longestPauseS).to.be.lessThan(10);
    };

    it('is resumed by its guard when the process dies with its whole control group, as a pod does', async () => {
      const volume = await exported(one);
      const writer = await one.write(await one.login(volume, chap('node-1'), 120));
      await host.diesAsPod([['underSuspension', [volume.volumeId], 'true']], 'after:gate-suspend');
      await guardResumes(volume, writer);
    });

    it('is resumed by its guard when the process dies, and by resumeAll', async () => {
      const volume = await exported(one);
      const writer = await one.write(await one.login(volume, chap('node-1'), 120));
      expect(await host.dies([['underSuspension', [volume.volumeId], 'true']], 'after:gate-suspend')).to.equal(true);
      await guardResumes(volume, writer);
      await host.storage.exec(`dmsetup suspend ${volume.gatePath}`);
      const [resumed] = await host.ok(['gates.resumeAll']);
      expect(resumed?.value).to.deep.equal([volume.volumeId]);
    });

    it('never calls a cut consistent that was cut short', async () => {
      const volume = await exported(one);
      const writer = await one.write(await one.login(volume));
      const [late, inTime] = await host.run([
        ['underSuspension', [volume.volumeId], 'sleep 12'],
        ['underSuspension', [volume.volumeId], 'true'],
      ]);
      expect(late?.error).to.include({ name: 'GateError', reason: 'cut-short' });
      expect(inTime?.error).to.equal(undefined);
      expect((await writer.stop()).error).to.equal(null);
    });

    it('does not stay suspended after a suspend that came too late', async () => {
      const volume = await newVolume();
      const slow = await slowDevice(volume);
      await host.ok(volume.gate(64, slow));
      // Ten writes that take 5 s, one after the other: the drain takes longer than a suspension may.
      await host.storage.exec(
        `for i in 1 2 3; do dd if=/dev/zero of=${volume.gatePath} bs=4k count=1 oflag=direct status=none & sleep 2; done >/dev/null 2>&1 &`,
      );
      await host.storage.exec(
        `dmsetup suspend ${volume.gatePath} & sleep 0.2; dmsetup resume ${volume.gatePath}; wait; dmsetup resume ${volume.gatePath}`,
      );
      await host.storage.exec(
        `setsid dd if=/dev/zero of=${volume.gatePath} bs=4k count=1 oflag=direct status=none >/dev/null 2>&1 & sleep 0.3`,
      );
      const [answer] = await host.run([['underSuspension', [volume.volumeId], 'true']]);
      expect([undefined, 'GateTimeoutError']).to.include(answer?.error?.name);
      await delay(10_000);
      const { stdout } = await host.storage.exec(
        `dmsetup info -c --noheadings -o suspended ${volume.gatePath}; pgrep -fc '[g]ate-guard' || true`,
      );
      expect(stdout).to.match(/^Active\s+0/);
    });
  });

  describe('crashes', () => {
    it('at each step of building and removing are repaired by the next call', async function () {
      this.timeout(1_800_000);
      const volume = await newVolume();
      const build = [volume.gate(), volume.ensure([acl(one.machine), acl(two.machine, chap('node-2'), true)])];
      const built = (await host.ok(...build)).flatMap(({ steps }) => steps);
      const removed = (await host.ok(...volume.teardown())).flatMap(({ steps }) => steps);
      const points = (steps: readonly string[]) =>
        steps.map((step, index) => `after:${step}#${steps.slice(0, index + 1).filter((one) => one === step).length}`);
      const [buildPoints, removePoints] = [points(built), points(removed)];
      expect(await host.leftovers()).to.equal('');
      for (let index = 0; index < Math.max(buildPoints.length, removePoints.length); index += 1) {
        const [buildPoint, removePoint] = [buildPoints[index], removePoints[index]];
        if (buildPoint !== undefined) {
          expect(await host.dies(build, buildPoint), buildPoint).to.equal(true);
          // Now and then a removal is what comes next.
          if (index % 4 === 3) {
            await host.ok(...volume.teardown());
            expect(await host.leftovers(), `removal after ${buildPoint}`).to.equal('');
          }
        }
        const answers = await host.ok(...build, ...build, ['targets.list']);
        expect(
          answers.slice(2, 4).flatMap(({ steps }) => steps),
          `second time after ${buildPoint}`,
        ).to.deep.equal([]);
        expect(answers[4]?.value, `after ${buildPoint}`).to.have.lengthOf(1);
        if (removePoint === undefined) {
          await host.ok(...volume.teardown());
          continue;
        }
        expect(await host.dies(volume.teardown(), removePoint), removePoint).to.equal(true);
        // Now and then it is built again from what is left.
        if (index % 4 === 1) {
          const [severed] = await host.run(build);
          if (severed?.error === undefined) await host.ok(...build);
        }
        await host.ok(...volume.teardown());
        expect(await host.leftovers(), `after ${removePoint}`).to.equal('');
      }
      await host.ok(...build);
      const device = await one.login(volume);
      await one.machine.exec(`dd if=/dev/zero of=${device} bs=4k count=1 oflag=direct status=none`);
    });

    it('in a fence, with the node writing, do not undo it', async () => {
      const points = [
        'after:target-revoke-password',
        'after:target-acl-cut',
        'after:target-acl-lun-unlink',
        'after:target-acl-lun-remove',
      ];
      for (const point of points) {
        const volume = await exported(one, two);
        const stays = await one.write(await one.login(volume), { first: 4000 });
        const goes = await two.write(await two.login(volume));
        expect(await host.dies([volume.revoke(two.machine)], point), point).to.equal(true);
        await host.ok(volume.revoke(two.machine));
        expect((await goes.report()).error).to.be.a('string');
        expect((await stays.stop()).error, point).to.equal(null);
        await nothingLands(volume, 1);
      }
    });
  });

  describe('speed', () => {
    it('of building a target, beside what the kernel alone takes', async () => {
      await host.storage.exec('lvcreate -qq -y -Wn -Zn -L 4M -n floor cinder-volumes');
      const many = [];
      for (let index = 0; index < 10; index += 1) many.push(await newVolume());
      const calls = many.flatMap((volume) => [
        volume.gate(),
        volume.ensure([acl(one.machine)]),
        volume.ensure([acl(one.machine)]),
        ['floorMs', '/dev/cinder-volumes/floor', one.machine.iqn] as const,
      ]);
      const answers = await host.run(calls, { watch: false });
      expect(answers.filter(({ error }) => error !== undefined)).to.deep.equal([]);
      const median = (offset: number, value: (answer: (typeof answers)[number]) => unknown): number => {
        const values = answers.filter((_answer, index) => index % 4 === offset).map((answer) => Number(value(answer)));
        return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
      };
      const took = [0, 1, 2].map((offset) => median(offset, ({ durationMs }) => durationMs));
      console.log(
        `      medians: gate ${took[0]} ms, target ${took[1]} ms, target again ${took[2]} ms; ` +
          `a target's configfs calls alone ${median(3, ({ value }) => value)} ms`,
      );
      await host.storage.exec('lvremove -qq -y cinder-volumes/floor');
    });
  });
});
