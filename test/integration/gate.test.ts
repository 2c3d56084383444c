import { expect } from 'chai';
import type { Deployment } from './support/deployment.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { TestVolume } from './support/volume-life.ts';

const BOOTED_VOLUMES = 5;

/**
 * Waits for the first socket that listens on port 3260 (0CBC), with the shell's own means: no process, so within 20 ms. Then
 * the controller is frozen, so that it completes nothing while we count, and let go again.
 */
const whenThePortalListens = (unit: string) => `
exec 9<> <(:)
until mapfile -t sockets </proc/net/tcp; [[ "\${sockets[*]}" == *':0CBC 00000000:0000 0A '* ]]; do read -rt 0.02 -u 9 _; done
frozen=/sys/fs/cgroup/system.slice/${unit}/cgroup.freeze
echo 1 > $frozen
cd /sys/kernel/config/target/iscsi
links() { find . -type l -path "./*:volume-*/tpgt_1/$1" | wc -l; }
enabled=$(cat ./*:volume-*/tpgt_1/enable | grep -c 1)
echo "{\\"gates\\": $(dmsetup ls | grep -c '^gate-'), \\"luns\\": $(links 'lun/*'), \\"mapped\\": $(links 'acls/*'), \\"enabled\\": $enabled}"
echo 0 > $frozen`;

/**
 * The storage host reboots under a writer. What is there at the moment when its portal listens for the first time must be
 * all; the writer never sees an error.
 */
async function rebootUnderIo(
  deployment: Deployment,
  name: string,
  afterStart: () => Promise<void> = async () => {},
): Promise<void> {
  const node = nodeOf(deployment, 0);
  const { storage } = deployment.lab;
  const volumes = [];
  for (let index = 0; index < BOOTED_VOLUMES; index += 1)
    volumes.push(await new TestVolume(deployment, { name: `${name}-${index}`, kind: 'block' }).up(node));
  const writer = await node.machine.spawn(
    `dd if=/dev/zero of=${volumes[0]?.targetPath()} bs=4k count=2000 oflag=direct status=none`,
  );
  await storage.reboot();
  const looking = await storage.spawn(whenThePortalListens(deployment.controller.unit));
  const starting = deployment.controller.start();
  const found = JSON.parse(await looking.waitForLine(/^\{/, 300_000)) as object;
  await starting;
  const all = volumes.length;
  expect(found, 'when the portal first listens').to.deep.equal({ gates: all, luns: all, mapped: all, enabled: all });
  await afterStart();
  expect(await writer.wait(180_000), 'the pod never saw an error').to.equal(0);
  for (const volume of volumes) await volume.down(node);
}

const suspendedOf = (volume: TestVolume) => `dmsetup info -c --noheadings -o suspended ${volume.gatePath}`;

describe('the gate', () => {
  const suite = useDeployment({ nodes: 1, watchSteps: true });

  /** Changes of gates, targets and LVs that the controller has made, in order. */
  const takeChanges = async (): Promise<string[]> =>
    (await suite.deployment.controller.takeSteps())
      .filter((line) => /^after:(gate|target|lv)-/.test(line))
      .map((line) => line.slice('after:'.length));

  it('LVM commands of the driver run while a gate is suspended', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'gate-suspended' }).up(node);
    await storage.exec(`dmsetup suspend ${volume.gatePath}`);
    const other = await new TestVolume(deployment, { name: 'gate-other' }).up(node);
    await other.down(node);
    expect((await storage.exec(suspendedOf(volume))).stdout, 'all the time').to.match(/^Suspended/);
    await storage.exec(`dmsetup resume ${volume.gatePath}`);
    await volume.down(node);
  });

  // That nothing waits for longer than 10 s when the driver itself has suspended a gate and dies: target.test.ts.
  it('a gate left suspended without a guard is resumed at the next start, before anything else is changed', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'gate-crash' }).up(node);
    await deployment.controller.kill();
    await storage.exec(`dmsetup suspend ${volume.gatePath}`);
    const writer = await node.machine.spawn(
      `dd if=/dev/zero of=${volume.targetPath()}/w bs=4k count=1 conv=fsync status=none`,
    );
    await takeChanges();
    expect((await storage.exec(suspendedOf(volume))).stdout).to.match(/^Suspended/);
    expect(writer.running, 'the write waits').to.equal(true);
    await deployment.controller.start();
    expect(await writer.wait(30_000)).to.equal(0);
    expect((await takeChanges())[0]).to.equal('gate-resume-leftover');
    await volume.down(node);
  });

  it('after a reboot of the storage host, gates and targets are there before the portal answers', async function () {
    this.timeout(900_000);
    const { deployment } = suite;
    await rebootUnderIo(deployment, 'gate-boot', async () => {
      const changes = await takeChanges();
      const firstPortal = changes.indexOf('target-portal-add');
      expect(firstPortal, changes.join(' ')).to.be.greaterThan(-1);
      const building = changes.slice(0, firstPortal);
      for (const step of ['gate-create', 'target-backstore-enable', 'target-acl-lun-link', 'target-enable'])
        expect(
          building.filter((one) => one === step),
          step,
        ).to.have.lengthOf(BOOTED_VOLUMES);
      // From there on nothing of a volume's is built: portals, the target that holds them, and that it may speak at last.
      const opening = changes.slice(firstPortal);
      expect(opening.filter((step, index) => step !== opening[index - 1])).to.deep.equal([
        'target-portal-add',
        'target-holder-make',
        'target-holder-tpg-make',
        'target-portal-add',
        'target-tpg-attribute',
        'target-witness-enable',
      ]);
    });
  });
});

// What is watched is made step by step; users get each target in one go.
describe('the gate, as users run it', () => {
  const suite = useDeployment({ nodes: 1 });

  it('after a reboot of the storage host, gates and targets are there before the portal answers', async function () {
    this.timeout(900_000);
    await rebootUnderIo(suite.deployment, 'gate-boot');
  });
});
