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

/** Points to die at, "after:NAME#N" for the N-th time: of a step that is passed more than twice the first and the last time. */
function pointsOf(stepLog: readonly string[]): string[] {
  const names = stepLog.filter((point) => point.startsWith('after:'));
  const count = (name: string) => names.filter((other) => other === name).length;
  return [...new Set(names)].flatMap((name) => [...new Set([1, count(name)])].map((time) => `${name}#${time}`));
}

/** One life in which the process dies at that point; each call that fails is repeated after a restart until it is done. */
async function liveAndDie(unit: DriverUnit, point: string, life: readonly Call[]): Promise<void> {
  await unit.crashAt(point);
  let died = false;
  const comeBack = async () => {
    await unit.waitDead();
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

  async function pointsOfLife(deployment: Deployment, unit: DriverUnit, life: readonly Call[]): Promise<string[]> {
    await unit.takeSteps();
    for (const [, call] of life) await call();
    await nothingLeft(deployment);
    return pointsOf(await unit.takeSteps());
  }

  it('of the controller: the retry converges, one volume, no leftovers', async function () {
    this.timeout(3_600_000);
    const { deployment } = suite;
    const { controller } = deployment;
    const single = await pointsOfLife(deployment, controller, singleLife(deployment, 'crash-reference'));
    expect(single.length).to.be.greaterThan(15);
    const known = new Set(single.map((point) => point.split('#')[0]));
    // What is new in the life of a shared volume: one of two nodes is cut off.
    const shared = (
      await pointsOfLife(deployment, controller, sharedLife(deployment, 'crash-shared-reference'))
    ).filter((point) => !known.has(point.split('#')[0]));
    expect(shared.length).to.be.greaterThan(0);
    for (const [lives, points] of [
      [singleLife, single],
      [sharedLife, shared],
    ] as const) {
      for (const [index, point] of points.entries()) {
        await liveAndDie(controller, point, lives(deployment, `crash-${index}`)).catch((error: unknown) => {
          throw new Error(`${point}: ${String(error)}`, { cause: error });
        });
        await expectNothingSuspended(deployment);
        await nothingLeft(deployment);
      }
    }
    console.log(
      `      ${single.length + shared.length} deaths: ${[...single, ...shared].map((point) => point.slice(6)).join(', ')}`,
    );
  });

  it('of the node plugin: the retry converges, no leftovers', async function () {
    this.timeout(3_600_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volume = await new TestVolume(deployment, { name: 'crash-node', sizeBytes: 32 * MIB }).create();
    const life: Call[] = [
      ['ControllerPublishVolume', () => volume.attach(node)],
      ['NodeStageVolume', () => volume.stage(node)],
      ['NodePublishVolume', () => volume.publish(node)],
      ['ControllerExpandVolume', () => volume.expand(volume.sizeBytes + 8 * MIB)],
      ['NodeExpandVolume', () => volume.nodeExpand(node)],
      ['NodeUnpublishVolume', () => volume.unpublish(node)],
      ['NodeUnstageVolume', () => volume.unstage(node)],
      ['ControllerUnpublishVolume', () => volume.detach(node)],
    ];
    await node.takeSteps();
    for (const [, call] of life) await call();
    const points = pointsOf(await node.takeSteps());
    expect(points.length).to.be.greaterThan(10);
    for (const point of points) {
      await liveAndDie(node, point, life).catch((error: unknown) => {
        throw new Error(`${point}: ${String(error)}`, { cause: error });
      });
    }
    await volume.delete();
    console.log(`      ${points.length} deaths: ${points.map((point) => point.slice(6)).join(', ')}`);
  });
});
