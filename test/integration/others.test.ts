/** What others have on the storage host, or have done there by hand, and what the driver makes of it. */
import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { failureOf } from './support/csi-client.ts';
import { type HandMadeTarget, HandMadeTargets } from './support/hand-made-targets.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { TestVolume } from './support/volume-life.ts';

const MEANWHILE = '/run/others-writer-stop';

describe('what others do on the storage host', () => {
  const suite = useDeployment({ nodes: 2 });

  /** By hand, as an OpenStack node would. @returns the device */
  const login = async (machine: Machine, { targetIqn, portal }: HandMadeTarget): Promise<string> => {
    const { stdout } = await machine.exec(`set -e
      iscsiadm -m node -o new -T ${targetIqn} -p ${portal} >/dev/null
      iscsiadm -m node -T ${targetIqn} -p ${portal} --login >/dev/null
      udevadm settle
      readlink -f /dev/disk/by-path/ip-${portal}-iscsi-${targetIqn}-lun-0`);
    return stdout;
  };

  const logout = (machine: Machine, { targetIqn, portal }: HandMadeTarget) =>
    machine.exec(`iscsiadm -m node -T ${targetIqn} -p ${portal} --logout; iscsiadm -m node -T ${targetIqn} -o delete`);

  it('a live target of Cinder, called like a volume of ours: it stays, with its session and its I/O, and is told once', async () => {
    const { deployment } = suite;
    const { controller, lab } = deployment;
    const [ours, theirs] = [nodeOf(deployment, 0), nodeOf(deployment, 1).machine];
    const targets = new HandMadeTargets(lab.storage);
    await controller.stop();
    const foreign = await targets.make(`volume-${randomUUID()}`, { initiatorIqn: theirs.iqn });
    const device = await login(theirs, foreign);
    const sessions = async () =>
      (await theirs.exec("iscsiadm -m session -P 1 | grep -E 'Target:|SID:' | tr -s ' \\t\\n' ' '")).stdout;
    const before = await sessions();
    expect(before).to.contain(foreign.targetIqn);
    const writer = await theirs.spawn(
      `while [ ! -e ${MEANWHILE} ]; do dd if=/dev/urandom of=${device} bs=4k count=64 oflag=direct status=none || exit 1; done`,
    );
    // The first comparison after a start, which takes away what nobody asked for; and a second one, with the same eyes.
    await controller.start();
    await controller.stop();
    await controller.start();
    const volume = await new TestVolume(deployment, { name: 'beside-cinder' }).up(ours);
    await volume.down(ours);
    await theirs.exec(`sleep 2; touch ${MEANWHILE}`);
    expect(await writer.wait(60_000), 'its I/O').to.equal(0);
    expect(await sessions(), 'the same session').to.equal(before);
    const told = (await controller.log()).split('\n').filter((line) => line.includes(foreign.targetIqn));
    expect(told, 'once at each start').to.have.lengthOf(2);
    for (const line of told) expect(JSON.parse(line)).to.include({ level: 'warn', count: 1 });
    await logout(theirs, foreign);
    await theirs.exec(`rm ${MEANWHILE}`);
    await targets.remove(foreign);
  });

  it("an export of others under a volume's own name: the volume is not attached, and theirs stays", async () => {
    const { deployment } = suite;
    const [ours, theirs] = [nodeOf(deployment, 0), nodeOf(deployment, 1).machine];
    const targets = new HandMadeTargets(deployment.lab.storage);
    const volume = await new TestVolume(deployment, { name: 'same-name' }).create();
    const foreign = await targets.make(volume.id, { initiatorIqn: theirs.iqn });
    expect(foreign.targetIqn).to.equal(volume.targetIqn);
    const refused = await failureOf(volume.attach(ours));
    expect(refused.code).to.equal('FAILED_PRECONDITION');
    expect(refused.message).to.contain(foreign.targetIqn).and.to.contain('targetcli ls');
    await login(theirs, foreign);
    await logout(theirs, foreign);
    await targets.remove(foreign);
    await volume.bringTo(ours);
    await volume.down(ours);
  });

  it('the tag of an attachment is removed by hand while the node writes: unpublish cuts the node off all the same', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'no-record', kind: 'block' }).up(node);
    const writer = await node.machine.spawn(
      `i=0; while dd if=/dev/urandom of=${volume.targetPath()} bs=4k count=16 oflag=direct status=none; do echo $((i += 1)); done; echo ended`,
    );
    await writer.waitForLine(/^3$/, 60_000);
    const { stdout: tags } = await storage.exec(
      `lvs --noheadings -o lv_tags ${volume.lvPath} | tr ',' '\\n' | tr -d ' '`,
    );
    const records = tags.split('\n').filter((tag) => tag.startsWith('lic:att'));
    expect(records, tags).not.to.be.empty;
    await storage.exec(`lvchange -qq ${records.map((tag) => `--deltag '${tag}'`).join(' ')} ${volume.lvPath}`);
    await volume.detach(node);
    const written = `cat /sys/class/block/$(basename $(readlink ${volume.lvPath}))/stat`;
    const atAnswer = (await storage.exec(written)).stdout;
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    expect((await storage.exec(written)).stdout, 'writes after the answer').to.equal(atAnswer);
    await volume.unpublish(node);
    await volume.unstage(node);
    await writer.waitForLine(/^ended/, 60_000);
    await volume.delete();
  });
});
