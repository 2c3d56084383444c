import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { createProgress, type Progress } from '../lab/progress.ts';
import { codeOf } from './support/csi-client.ts';
import type { Deployment } from './support/deployment.ts';
import type { DriverUnit } from './support/driver-unit.ts';
import { leftovers } from './support/leftovers.ts';
import { untilDone } from './support/retry.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

async function expectNothingSuspended(deployment: Deployment): Promise<void> {
  const { stdout } = await deployment.lab.storage.exec(
    `dmsetup info -c --noheadings -o name,suspended | grep -i ':suspended' || true`,
  );
  expect(stdout).to.equal('');
}

/** What a test looks at around a call of a life. */
interface Looks {
  /** The process has died in this call and has not been started again. */
  readonly whileDead?: () => Promise<void>;
  /** It has been started again, and the call has not been repeated. */
  readonly onceBack?: () => Promise<void>;
  /** The call has been answered with OK. */
  readonly onceDone?: () => Promise<void>;
}

type Call = readonly [what: string, call: () => Promise<unknown>, looks?: Looks];

/** A step that a life passes, and where: the process is to die after it. */
interface Point {
  readonly name: string;
  /** Index of the call in which it is passed; of what the background does after the last answer, the number of calls. */
  readonly call: number;
  /** For the how manieth time in that life. */
  readonly time: number;
}

/** Lives once and notes each step's name. A step that is passed more than once counts the first and the last time. */
async function pointsOf(unit: DriverUnit, life: readonly Call[], settle: () => Promise<void>): Promise<Point[]> {
  const passed: Point[] = [];
  const times = new Map<string, number>();
  const note = async (call: number) => {
    for (const line of await unit.takeSteps()) {
      if (!line.startsWith('after:')) continue;
      const name = line.slice('after:'.length);
      const time = (times.get(name) ?? 0) + 1;
      times.set(name, time);
      passed.push({ name, call, time });
    }
  };
  await unit.takeSteps();
  for (const [index, [, call, looks]] of life.entries()) {
    await call();
    await looks?.onceDone?.();
    await note(index);
  }
  await settle();
  await note(life.length);
  return passed.filter(({ name, time }) => time === 1 || time === times.get(name));
}

async function comeAlive(unit: DriverUnit, looks: Looks | undefined): Promise<void> {
  await looks?.whileDead?.();
  await unit.resume();
  await unit.start();
  await looks?.onceBack?.();
}

/** One life in which the process dies at that point; each call that fails is repeated after a restart until it is done. */
async function liveAndDie(unit: DriverUnit, { name, time }: Point, life: readonly Call[]): Promise<void> {
  await unit.crashAt(`after:${name}#${time}`);
  let died = false;
  const comeBack = async (looks?: Looks) => {
    await unit.waitDeadAtPoint();
    died = true;
    await comeAlive(unit, looks);
  };
  for (const [what, call, looks] of life) {
    const code = await codeOf(call());
    if (code !== 'OK') {
      expect(died, `${what} fails with ${code}, and nobody died for it`).to.equal(false);
      await comeBack(looks);
      await untilDone(call, { dying: true });
    }
    await looks?.onceDone?.();
  }
  // A step of the background worker ends the process after the last answer.
  if (!died) await comeBack();
}

/** Repeats the call until it is done, or its process is dead: false then. */
async function doneAlive(unit: DriverUnit, what: string, call: () => Promise<unknown>): Promise<boolean> {
  for (let attempt = 1; ; attempt += 1) {
    const code = await codeOf(call());
    if (code === 'OK') return true;
    if (!(await unit.isRunning())) break;
    if (attempt === 20) throw new Error(`${what} fails with ${code} again and again, and nobody died for it`);
    await delay(500);
  }
  await unit.waitDeadAtPoint();
  return false;
}

/**
 * One life in which the process dies after one step after the other: each retry of a call gets one step further.
 * @returns the points at which it could not be made to die so, because a retry has no need of that step any more.
 */
async function liveAndDieOften(
  unit: DriverUnit,
  points: readonly Point[],
  life: readonly Call[],
  progress: Progress,
): Promise<Point[]> {
  const missed = new Set(points);
  for (const [index, [what, call, looks]] of life.entries()) {
    let done = false;
    for (const point of points.filter((one) => one.call === index)) {
      await unit.crashAt(`after:${point.name}`);
      done = await doneAlive(unit, what, call);
      if (done) break;
      missed.delete(point);
      progress.line(`${what}: died after ${point.name}`);
      await comeAlive(unit, looks);
    }
    await unit.resume();
    if (!done) await untilDone(call, { dying: true });
    await looks?.onceDone?.();
  }
  for (const point of points.filter((one) => one.call === life.length)) {
    await unit.stop();
    await unit.crashAt(`after:${point.name}`);
    if (await unit.startAndDie()) missed.delete(point);
    await unit.resume();
    await unit.start();
  }
  return [...missed];
}

/**
 * Stops (SIGSTOP) an lvcreate of the driver's that is at work (and no longer the shell before it), so that it can't end
 * before something else has been done.
 * @returns its pid; undefined when it ended before that, or never came
 */
async function stopLvcreate(storage: Machine, delayS: number): Promise<number | undefined> {
  const { stdout } = await storage.exec(`
    for i in $(seq 2000); do pid=$(pgrep -f '^lvm lvcreate ') && break; done
    sleep ${delayS}
    [ -n "$pid" ] && kill -STOP $pid || exit 0
    while read -r _ _ state _ < /proc/$pid/stat && [ $state != Z ]; do
      [ $state = T ] && echo $pid && break
    done
    true`);
  return stdout === '' ? undefined : Number(stdout);
}

for (const pod of [false, true])
  describe(`crashes and restarts${pod ? ', the driver in namespaces of its own as in a pod' : ''}`, () => {
    const suite = useDeployment({ nodes: 1, pod });

    it('controller killed while a node writes: no I/O error, and the same session after the restart', async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const volume = await new TestVolume(deployment, { name: 'crash-live' }).up(node);
      const at = volume.targetPath();
      const writer = await node.machine.spawn(
        `while [ ! -e /run/stop-writer ]; do dd if=/dev/urandom of=${at}/w bs=64k count=8 conv=fsync status=none || exit 1; done`,
      );
      const session = (await node.machine.exec('ls /sys/class/iscsi_session')).stdout;
      const errors = `cat /sys/class/iscsi_connection/*/../../../../../*/statistics/* 2>/dev/null; dmesg | grep -c -i -E 'I/O error|connection[0-9:]+ detected conn error' || true`;
      const before = (await node.machine.exec(errors)).stdout;
      await deployment.controller.kill();
      await deployment.controller.start();
      await deployment.controller.stop();
      await deployment.controller.start();
      await node.kill();
      await node.start();
      await node.machine.exec('touch /run/stop-writer');
      expect(await writer.wait(60_000)).to.equal(0);
      await node.machine.exec('rm /run/stop-writer');
      expect((await node.machine.exec('ls /sys/class/iscsi_session')).stdout).to.equal(session);
      expect((await node.machine.exec(errors)).stdout).to.equal(before);
      await volume.down(node);
    });

    it("the controller's whole control group is killed during lvcreate: the command ends, nothing stays suspended", async function () {
      this.timeout(1_200_000);
      const { deployment } = suite;
      const { controller, lab } = deployment;
      const node = nodeOf(deployment, 0);
      let hits = 0;
      for (let round = 0; round < 8 && hits < 3; round += 1) {
        const volume = new TestVolume(deployment, { name: `crash-group-${round}`, kind: 'block' });
        const creating = codeOf(volume.create());
        // As soon as it runs, or in the middle of its work.
        const pid = await stopLvcreate(lab.storage, (round % 3) * 0.1);
        if (pid === undefined) {
          expect(await creating).to.equal('OK');
          await volume.delete();
          continue;
        }
        hits += 1;
        await controller.killGroup();
        const { stdout: seen } = await lab.storage.exec(
          `cut -d ' ' -f 3 /proc/${pid}/stat; grep -o '[^/]*$' /proc/${pid}/cgroup; kill -CONT ${pid}`,
          { check: false },
        );
        expect(seen, 'it lives, stopped as it was').to.match(
          /^T\n.*lvm-iscsi-csi-vg-cinder-volumes-[0-9a-f]{12}[.]scope$/,
        );
        expect(await creating).to.not.equal('OK');
        await lab.storage.waitFor(`! kill -0 ${pid} 2>/dev/null`, 30_000);
        await expectNothingSuspended(deployment);
        // It ran to its end: the LV is there, whole, with its tags.
        const { stdout } = await lab.storage.exec(
          "lvs --noheadings -o lv_tags --select 'lv_name=~^volume-' cinder-volumes",
        );
        expect(stdout).to.contain('lic:serial=');
        await controller.start();
        await untilDone(() => volume.create(), { dying: true });
        await volume.bringTo(node);
        await volume.down(node);
      }
      expect(hits, 'rounds in which the group died during an lvcreate').to.be.greaterThan(0);
    });
  });

/** Every byte of the disk, before the driver came: the data of somebody who was here before. */
const FORMER = 'Z';
const DISK_MIB = 512;
const [CREATED_MIB, EXPANDED_MIB] = [16, 32];

/**
 * Looks at devices of the storage host, past its cache.
 * @param devices a shell pattern; @param range of dd, in MiB
 * @returns for each device how many runs of the disk's former content it shows; NaN for one that can't be read
 */
async function formerContent(storage: Machine, devices: string, range = ''): Promise<number[]> {
  const { stdout } = await storage.exec(`
    for d in ${devices}; do
      [ -b "$d" ] || continue
      dd if="$d" bs=1M ${range} iflag=direct status=none | grep -z -a -c ${FORMER.repeat(16)}
      [ "\${PIPESTATUS[0]}" = 0 ] || echo NaN
    done
    true`);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
}

/** What the next life gets has held another's data again: what was wiped would be blank whether it is zeroed or not. */
async function refill(storage: Machine): Promise<void> {
  await storage.exec(
    `set -e -o pipefail
     lvcreate -qq -y -Wn -Zn -L ${EXPANDED_MIB}M -n former cinder-volumes
     head -c ${EXPANDED_MIB}M /dev/zero | tr '\\0' ${FORMER} | dd of=/dev/cinder-volumes/former bs=1M iflag=fullblock oflag=direct conv=fsync status=none
     lvremove -qq -y cinder-volumes/former`,
  );
}

/** A block at this offset of a file or a device: padded with zeros, straight to the disk and from there. */
async function writeBlock(machine: Machine, path: string, words: string, block = 0): Promise<void> {
  await machine.exec(
    `echo -n ${words} | dd of='${path}' bs=4k seek=${block} oflag=direct conv=sync,notrunc,fsync status=none`,
  );
}

async function readBlock(machine: Machine, path: string, block = 0): Promise<string> {
  const command = `dd if='${path}' bs=4k skip=${block} count=1 iflag=direct status=none | tr -d '\\0'`;
  return (await machine.exec(command)).stdout;
}

/** A small file of a pod's on a staged volume: what has been written and synced has to be there for ever. */
function keptFile(node: DriverUnit, volume: TestVolume) {
  let writes = 0;
  const path = () => `${volume.stagingPath}/kept`;
  const isThere = async () => {
    expect(await readBlock(node.machine, path()), 'what was written and synced').to.equal(`write-${writes}`);
  };
  /** And that of an earlier life was there. */
  const write = async () => {
    if (writes > 0) await isThere();
    writes += 1;
    await writeBlock(node.machine, path(), `write-${writes}`);
  };
  return { isThere, write };
}

// Every step that a life passes, found out by living it once; then one death after each of them.
describe('a death after each step', () => {
  // Never scrubbed: zeroing has its steps too, and what it forgets shows.
  const suite = useDeployment({
    nodes: 2,
    watchSteps: true,
    scrub: false,
    storage: {
      disks: [{ name: 'vg', sizeBytes: DISK_MIB * MIB, direct: true, fill: FORMER.charCodeAt(0) }],
    },
  });
  /** That the looks below can fail: after which command the LV showed what was there before. */
  const unzeroed = { created: false, grown: false };

  /** Wiping of the last life must not pass steps in the next one. */
  async function nothingLeft(deployment: Deployment): Promise<void> {
    expect(await leftovers(deployment)).to.deep.equal([]);
  }

  /** The volume is the only one. */
  function lookAtCreation(storage: Machine, volume: TestVolume): Looks {
    return {
      whileDead: async () => {
        const found = await formerContent(storage, '/dev/cinder-volumes/volume-*', 'count=1');
        unzeroed.created ||= found.some((runs) => runs > 0);
      },
      onceDone: async () => {
        expect(await formerContent(storage, volume.lvPath), 'of the former content').to.deep.equal([0]);
      },
    };
  }

  /** Through the gate the node sees nothing but its own; what it writes there is never zeroed. */
  function lookAtExpansion(storage: Machine, volume: TestVolume, kept: ReturnType<typeof keptFile>): Looks {
    const lastBlock = (EXPANDED_MIB * MIB) / 4096 - 1;
    let written = '';
    return {
      whileDead: async () => {
        expect(await formerContent(storage, volume.gatePath), 'shown to the node').to.deep.equal([0]);
        const added = await formerContent(storage, volume.lvPath, `skip=${CREATED_MIB} count=1`);
        unzeroed.grown ||= added.some((runs) => runs > 0);
        const { stdout: sizeBytes } = await storage.exec(`blockdev --getsize64 ${volume.gatePath}`);
        if (Number(sizeBytes) < EXPANDED_MIB * MIB) return;
        written = 'at-the-new-end';
        await writeBlock(storage, volume.gatePath, written, lastBlock);
      },
      // Not already once it is back: the zeroing goes on by then, and would pass the next point before it is asked for.
      onceDone: async () => {
        await kept.isThere();
        expect(await formerContent(storage, volume.lvPath), 'of the former content').to.deep.equal([0]);
        expect(await readBlock(storage, volume.lvPath, lastBlock)).to.equal(written);
      },
    };
  }

  function singleLife(deployment: Deployment, name: string): Call[] {
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = new TestVolume(deployment, { name, sizeBytes: CREATED_MIB * MIB });
    const kept = keptFile(node, volume);
    return [
      ['CreateVolume', () => volume.create(), lookAtCreation(storage, volume)],
      ['ControllerPublishVolume', () => volume.attach(node)],
      ['NodeStageVolume', () => volume.stage(node), { onceDone: kept.write }],
      ['ControllerExpandVolume', () => volume.expand(EXPANDED_MIB * MIB), lookAtExpansion(storage, volume, kept)],
      ['NodeUnstageVolume', () => volume.unstage(node)],
      ['ControllerUnpublishVolume', () => volume.detach(node)],
      ['DeleteVolume', () => volume.delete()],
    ];
  }

  function sharedLife(deployment: Deployment, name: string): Call[] {
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = new TestVolume(deployment, {
      name,
      kind: 'block',
      mode: 'MULTI_NODE_MULTI_WRITER',
      sizeBytes: 4 * MIB,
    });
    return [
      ['CreateVolume', () => volume.create(), lookAtCreation(deployment.lab.storage, volume)],
      ['ControllerPublishVolume to node-1', () => volume.attach(node1)],
      ['ControllerPublishVolume to node-2', () => volume.attach(node2)],
      ['ControllerUnpublishVolume of node-1', () => volume.detach(node1)],
      ['ControllerUnpublishVolume of node-2', () => volume.detach(node2)],
      ['DeleteVolume', () => volume.delete()],
    ];
  }

  /** All deaths of one kind of life. */
  async function dieEverywhere(
    unit: DriverUnit,
    points: readonly Point[],
    newLife: (name: string) => Call[],
    settle: () => Promise<void>,
  ): Promise<string> {
    const progress = createProgress('crash');
    progress.line(`${points.length} points to die at`);
    const firsts = points.filter(({ time }) => time === 1);
    const missed = await liveAndDieOften(unit, firsts, newLife('crash-often'), progress);
    await settle();
    const alone = points.filter((point) => point.time > 1 || missed.includes(point));
    for (const [index, point] of alone.entries()) {
      progress.line(`a life of its own, ${index + 1} of ${alone.length}: ${point.name}#${point.time}`);
      await liveAndDie(unit, point, newLife(`crash-alone-${index}`)).catch((error: unknown) => {
        throw new Error(`${point.name}#${point.time}: ${String(error)}`, { cause: error });
      });
      await settle();
    }
    const names = (some: readonly Point[]) => some.map(({ name, time }) => (time === 1 ? name : `${name}#${time}`));
    const often = firsts.filter((point) => !missed.includes(point));
    return `${often.length} in one life: ${names(often).join(', ')}; ${alone.length} in a life each: ${names(alone).join(', ')}`;
  }

  it("of the controller: the retry converges, one volume, no leftovers, blank, and the node's data is there", async function () {
    this.timeout(7_200_000);
    const { deployment } = suite;
    const { controller } = deployment;
    const settle = async () => {
      await expectNothingSuspended(deployment);
      await nothingLeft(deployment);
      await refill(deployment.lab.storage);
    };
    const single = (name: string) => singleLife(deployment, name);
    const points = await pointsOf(controller, single('crash-reference'), settle);
    expect(points.length).to.be.greaterThan(15);
    console.log(`      ${await dieEverywhere(controller, points, single, settle)}`);
    // What is new in the life of a shared volume: one of two nodes is cut off.
    const shared = (name: string) => sharedLife(deployment, name);
    const known = new Set(points.map(({ name }) => name));
    const more = (await pointsOf(controller, shared('crash-shared'), settle)).filter(({ name }) => !known.has(name));
    expect(more.length).to.be.greaterThan(0);
    console.log(`      shared: ${await dieEverywhere(controller, more, shared, settle)}`);
    expect(unzeroed, 'some deaths came before the zeroing').to.deep.equal({ created: true, grown: true });
  });

  it('of the node plugin: the retry converges, no leftovers, what was synced is there', async function () {
    this.timeout(7_200_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volume = await new TestVolume(deployment, { name: 'crash-node', sizeBytes: 32 * MIB }).create();
    const kept = keptFile(node, volume);
    const looks = { onceBack: kept.isThere, onceDone: kept.isThere };
    const life = (): Call[] => [
      ['ControllerPublishVolume', () => volume.attach(node)],
      ['NodeStageVolume', () => volume.stage(node), { onceDone: kept.write }],
      ['NodePublishVolume', () => volume.publish(node), looks],
      ['ControllerExpandVolume', () => volume.expand(volume.sizeBytes + 8 * MIB)],
      ['NodeExpandVolume', () => volume.nodeExpand(node), looks],
      ['NodeUnpublishVolume', () => volume.unpublish(node), looks],
      ['NodeUnstageVolume', () => volume.unstage(node)],
      ['ControllerUnpublishVolume', () => volume.detach(node)],
    ];
    // The volume itself lives on.
    const settle = async () => {
      const left = (await leftovers(deployment)).filter((line) => !line.includes(`LV: ${volume.id} `));
      expect(left).to.deep.equal([]);
    };
    const points = await pointsOf(node, life(), settle);
    expect(points.length).to.be.greaterThan(10);
    console.log(`      ${await dieEverywhere(node, points, life, settle)}`);
    // After the last death, too.
    await volume.attach(node);
    await volume.stage(node);
    await kept.isThere();
    await volume.unstage(node);
    await volume.detach(node);
    await volume.delete();
  });
});
