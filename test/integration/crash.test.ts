import { expect } from 'chai';
import { codeOf } from './support/csi-client.ts';
import type { Deployment } from './support/deployment.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

/** Calls again and again, as a CO does, while the answer is one of those that say "try again". */
async function untilDone(call: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; attempt < 30; attempt += 1) {
    const code = await codeOf(call());
    if (code === 'OK') return;
    if (!['ABORTED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'UNKNOWN', 'INTERNAL'].includes(code))
      throw new Error(`final code ${code}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error('still not done after 30 attempts');
}

async function expectNothingSuspended(deployment: Deployment): Promise<void> {
  const { stdout } = await deployment.lab.storage.exec(
    `dmsetup info -c --noheadings -o name,suspended | grep -i ':suspended' || true`,
  );
  expect(stdout).to.equal('');
}

describe('crashes and restarts', () => {
  const suite = useDeployment({ nodes: 1 });

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
      // As soon as an lvcreate runs, everything in the unit's control group dies.
      await deployment.lab.storage.exec(
        `for i in $(seq 1000); do pgrep -x lvcreate >/dev/null && break; sleep 0.01; done; pgrep -x lvcreate >/dev/null`,
      );
      await deployment.controller.killGroup();
      expect(await creating).to.not.equal('OK');
      await deployment.lab.storage.waitFor('! pgrep -x lvcreate', 30_000);
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

  // Every step that a life passes, found out by doing it once; then one death after each of them.
  it('the controller dies after each step of a life: the retry converges, one result, no leftovers', async function () {
    this.timeout(1_800_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { controller } = deployment;
    await controller.takeSteps();
    await (await new TestVolume(deployment, { name: 'crash-reference' }).up(node)).down(node);
    const steps = [
      ...new Set(
        (await controller.takeSteps())
          .filter((line) => line.includes('after:'))
          .map((line) => line.replace(/^.*(after:[a-z0-9-]+).*$/, '$1')),
      ),
    ];
    expect(steps.length).to.be.greaterThan(8);
    for (const [index, point] of steps.entries()) {
      const volume = new TestVolume(deployment, { name: `crash-${index}` });
      await controller.crashAt(point);
      let died = false;
      const life: (() => Promise<unknown>)[] = [
        () => volume.create(),
        () => volume.attach(node),
        () => volume.stage(node),
        () => volume.publish(node),
        () => volume.unpublish(node),
        () => volume.unstage(node),
        () => volume.detach(node),
        () => volume.delete(),
      ];
      for (const call of life) {
        const code = await codeOf(call());
        if (code === 'OK') continue;
        await controller.waitDead();
        died = true;
        await controller.resume();
        await controller.start();
        await untilDone(call);
      }
      // A step of the background worker kills the process after the last answer.
      if (!died) {
        await controller.waitDead();
        await controller.resume();
        await controller.start();
      }
      await expectNothingSuspended(deployment);
    }
    console.log(
      `      died once after each of ${steps.length} steps: ${steps.map((step) => step.slice(6)).join(', ')}`,
    );
  });

  it('the node plugin dies after each step of a life: the retry converges, no leftovers', async function () {
    this.timeout(1_800_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    await node.takeSteps();
    const reference = await new TestVolume(deployment, { name: 'crash-node-reference' }).up(node);
    await reference.expand(128 * MIB);
    await reference.nodeExpand(node);
    await reference.down(node);
    const steps = [
      ...new Set(
        (await node.takeSteps())
          .filter((line) => line.includes('after:'))
          .map((line) => line.replace(/^.*(after:[a-z0-9-]+).*$/, '$1')),
      ),
    ];
    expect(steps.length).to.be.greaterThan(5);
    const volume = await new TestVolume(deployment, { name: 'crash-node' }).create();
    for (const point of steps) {
      await node.crashAt(point);
      const life: (() => Promise<unknown>)[] = [
        () => volume.attach(node),
        () => volume.stage(node),
        () => volume.publish(node),
        () => volume.nodeExpand(node),
        () => volume.unpublish(node),
        () => volume.unstage(node),
        () => volume.detach(node),
      ];
      for (const call of life) {
        const code = await codeOf(call());
        if (code === 'OK') continue;
        await node.waitDead();
        await node.resume();
        await node.start();
        await untilDone(call);
      }
      await node.resume();
    }
    await volume.delete();
    console.log(
      `      died once after each of ${steps.length} steps: ${steps.map((step) => step.slice(6)).join(', ')}`,
    );
  });
});
