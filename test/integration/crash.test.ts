import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
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

type Call = readonly [what: string, call: () => Promise<unknown>];

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
  for (const [index, [, call]] of life.entries()) {
    await call();
    await note(index);
  }
  await settle();
  await note(life.length);
  return passed.filter(({ name, time }) => time === 1 || time === times.get(name));
}

/** One life in which the process dies at that point; each call that fails is repeated after a restart until it is done. */
async function liveAndDie(unit: DriverUnit, { name, time }: Point, life: readonly Call[]): Promise<void> {
  await unit.crashAt(`after:${name}#${time}`);
  let died = false;
  const comeBack = async () => {
    await unit.waitDeadAtPoint();
    died = true;
    await unit.resume();
    await unit.start();
  };
  for (const [what, call] of life) {
    const code = await codeOf(call());
    if (code === 'OK') continue;
    expect(died, `${what} fails with ${code}, and nobody died for it`).to.equal(false);
    await comeBack();
    await untilDone(call);
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
async function liveAndDieOften(unit: DriverUnit, points: readonly Point[], life: readonly Call[]): Promise<Point[]> {
  const missed = new Set(points);
  for (const [index, [what, call]] of life.entries()) {
    let done = false;
    for (const point of points.filter((one) => one.call === index)) {
      await unit.crashAt(`after:${point.name}`);
      done = await doneAlive(unit, what, call);
      if (done) break;
      missed.delete(point);
      await unit.resume();
      await unit.start();
    }
    await unit.resume();
    if (!done) await untilDone(call);
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

    it("the controller's whole control group is killed during lvcreate: the command ends, nothing stays suspended", async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      for (let round = 0; round < 3; round += 1) {
        const volume = new TestVolume(deployment, { name: `crash-group-${round}`, kind: 'block' });
        const creating = codeOf(volume.create());
        // As soon as an lvcreate runs (and no longer the shell before it), everything in the unit's control group dies.
        const { stdout: pid } = await deployment.lab.storage.exec(
          `for i in $(seq 1000); do pgrep -f '^lvm lvcreate ' && exit; done; exit 1`,
        );
        await deployment.controller.killGroup();
        const { stdout: after } = await deployment.lab.storage.exec(
          `kill -0 ${pid} && echo runs || lvs --noheadings -o lv_name cinder-volumes`,
        );
        expect(after, 'it goes on, or has done its work').to.match(/^runs$|volume-/);
        expect(await creating).to.not.equal('OK');
        await deployment.lab.storage.waitFor(`! kill -0 ${pid} 2>/dev/null`, 30_000);
        await expectNothingSuspended(deployment);
        // It ran to its end: the LV is there, whole, with its tags.
        const { stdout } = await deployment.lab.storage.exec('lvs --noheadings -o lv_tags cinder-volumes');
        expect(stdout).to.contain('lic:serial=');
        await deployment.controller.start();
        await untilDone(() => volume.create());
        await volume.bringTo(node);
        await volume.down(node);
      }
    });
  });

// Every step that a life passes, found out by living it once; then one death after each of them.
describe('a death after each step', () => {
  // Never scrubbed: zeroing has its steps too.
  const suite = useDeployment({ nodes: 2, watchSteps: true, scrub: false });

  /** Wiping of the last life must not pass steps in the next one. */
  async function nothingLeft(deployment: Deployment): Promise<void> {
    expect(await leftovers(deployment)).to.deep.equal([]);
  }

  function singleLife(deployment: Deployment, name: string): Call[] {
    const node = nodeOf(deployment, 0);
    const volume = new TestVolume(deployment, { name, sizeBytes: 32 * MIB });
    return [
      ['CreateVolume', () => volume.create()],
      ['ControllerPublishVolume', () => volume.attach(node)],
      ['NodeStageVolume', () => volume.stage(node)],
      ['ControllerExpandVolume', () => volume.expand(64 * MIB)],
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
      ['CreateVolume', () => volume.create()],
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
    const firsts = points.filter(({ time }) => time === 1);
    const missed = await liveAndDieOften(unit, firsts, newLife('crash-often'));
    await settle();
    const alone = points.filter((point) => point.time > 1 || missed.includes(point));
    for (const [index, point] of alone.entries()) {
      await liveAndDie(unit, point, newLife(`crash-alone-${index}`)).catch((error: unknown) => {
        throw new Error(`${point.name}#${point.time}: ${String(error)}`, { cause: error });
      });
      await settle();
    }
    const names = (some: readonly Point[]) => some.map(({ name, time }) => (time === 1 ? name : `${name}#${time}`));
    const often = firsts.filter((point) => !missed.includes(point));
    return `${often.length} in one life: ${names(often).join(', ')}; ${alone.length} in a life each: ${names(alone).join(', ')}`;
  }

  it('of the controller: the retry converges, one volume, no leftovers', async function () {
    this.timeout(7_200_000);
    const { deployment } = suite;
    const { controller } = deployment;
    const settle = async () => {
      await expectNothingSuspended(deployment);
      await nothingLeft(deployment);
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
  });

  it('of the node plugin: the retry converges, no leftovers', async function () {
    this.timeout(7_200_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volume = await new TestVolume(deployment, { name: 'crash-node', sizeBytes: 32 * MIB }).create();
    const life = (): Call[] => [
      ['ControllerPublishVolume', () => volume.attach(node)],
      ['NodeStageVolume', () => volume.stage(node)],
      ['NodePublishVolume', () => volume.publish(node)],
      ['ControllerExpandVolume', () => volume.expand(volume.sizeBytes + 8 * MIB)],
      ['NodeExpandVolume', () => volume.nodeExpand(node)],
      ['NodeUnpublishVolume', () => volume.unpublish(node)],
      ['NodeUnstageVolume', () => volume.unstage(node)],
      ['ControllerUnpublishVolume', () => volume.detach(node)],
    ];
    const settle = async () => {};
    const points = await pointsOf(node, life(), settle);
    expect(points.length).to.be.greaterThan(10);
    console.log(`      ${await dieEverywhere(node, points, life, settle)}`);
    await volume.delete();
  });
});
