import { expect } from 'chai';
import { nodeOf, useDeployment } from './support/suite.ts';
import { TestVolume } from './support/volume-life.ts';

describe('the gate', () => {
  const suite = useDeployment({ nodes: 1, watchSteps: true });

  it('LVM commands of the driver run while a gate is suspended', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'gate-suspended' }).up(node);
    await storage.exec(`dmsetup suspend ${volume.gatePath}`);
    const other = await new TestVolume(deployment, { name: 'gate-other' }).up(node);
    await other.down(node);
    await storage.exec(`dmsetup resume ${volume.gatePath}`);
    await volume.down(node);
  });

  it('a gate left suspended by a crash is resumed at the next start, before anything else', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'gate-crash' }).up(node);
    await deployment.controller.kill();
    await storage.exec(`dmsetup suspend ${volume.gatePath}`);
    const writer = await node.machine.spawn(
      `dd if=/dev/zero of=${volume.targetPath()}/w bs=4k count=1 conv=fsync status=none`,
    );
    await deployment.controller.start();
    expect(await writer.wait(30_000)).to.equal(0);
    await volume.down(node);
  });

  it('after a reboot of the storage host, gates and targets are there before the portal answers', async function () {
    this.timeout(900_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volumes = [];
    for (let index = 0; index < 5; index += 1)
      volumes.push(await new TestVolume(deployment, { name: `gate-boot-${index}`, kind: 'block' }).up(node));
    const writer = await node.machine.spawn(
      `dd if=/dev/zero of=${volumes[0]?.targetPath()} bs=4k count=2000 oflag=direct status=none`,
    );
    await deployment.controller.takeSteps();
    await storage.reboot();
    // From outside: what is there at the moment when the portal answers for the first time.
    const portal = node.machine.spawn(
      `until (exec 3<>/dev/tcp/${storage.address}/3260) 2>/dev/null; do sleep 0.05; done; echo answers`,
    );
    const starting = deployment.controller.start();
    await (await portal).waitForLine(/^answers$/, 300_000);
    const { stdout: found } = await storage.exec(
      `dmsetup ls | grep -c ^gate-; cat /sys/kernel/config/target/iscsi/*:volume-*/tpgt_1/enable | grep -c 1; ls -d /sys/kernel/config/target/iscsi/*:volume-*/tpgt_1/acls/*/lun_0/* | wc -l`,
    );
    await starting;
    const [gates, enabled, mapped] = found.split('\n').map(Number);
    expect(gates, 'gates when the portal first answers').to.equal(volumes.length);
    expect(enabled, 'targets in service then').to.equal(volumes.length);
    expect(mapped, 'LUNs mapped then').to.be.at.least(volumes.length);
    // In the order in which the controller did it: no portal before the last target was complete.
    const steps = (await deployment.controller.takeSteps()).map((line) =>
      line.replace(/^.*((before|after):[a-z0-9-]+).*$/, '$1'),
    );
    const firstPortal = steps.findIndex((step) => /portal/.test(step));
    const lastEnable = steps.findLastIndex((step) => /enable/.test(step));
    expect(firstPortal, steps.join(' ')).to.be.greaterThan(-1);
    expect(lastEnable, steps.join(' ')).to.be.greaterThan(-1).and.lessThan(firstPortal);
    expect(await writer.wait(180_000), 'the pod never saw an error').to.equal(0);
    for (const volume of volumes) await volume.down(node);
  });
});
