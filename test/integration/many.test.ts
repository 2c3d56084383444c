import { expect } from 'chai';
import { untilDone } from './support/retry.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

const COUNT = 50;

describe('many volumes at once', () => {
  const suite = useDeployment({ nodes: 1 });

  it(`${COUNT} volumes created, attached and staged at once to one node: each device is the right one, by WWN and content`, async function () {
    this.timeout(1_200_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volumes = Array.from(
      { length: COUNT },
      (_, index) => new TestVolume(deployment, { name: `many-${index}`, kind: 'block', sizeBytes: 4 * MIB }),
    );
    // Fifty at once on an emulated processor: a call that takes longer than its deadline is repeated, as a CO does.
    await Promise.all(volumes.map((volume) => untilDone(() => volume.create())));
    expect(new Set(volumes.map((volume) => volume.id)).size).to.equal(COUNT);
    // Each LV gets its own id as content, on the storage host, before it is exported.
    const fill = volumes
      .map((volume) => `printf %s ${volume.id} | dd of=${volume.lvPath} bs=4k conv=sync,fsync oflag=direct status=none`)
      .join('\n');
    await deployment.lab.storage.exec(`set -e\n${fill}`);
    await Promise.all(volumes.map((volume) => untilDone(() => volume.attach(node))));
    await Promise.all(volumes.map((volume) => untilDone(() => volume.stage(node))));
    await Promise.all(volumes.map((volume) => untilDone(() => volume.publish(node))));

    const check = volumes
      .map((volume) => {
        const serial = volume.contexts.get(node.machine.name)?.['serial'] ?? 'none';
        // The NAA id holds the first 25 digits of the serial (see docs/design.md).
        return `d=/sys/dev/block/$((0x$(stat -c %t ${volume.targetPath()}))):$((0x$(stat -c %T ${volume.targetPath()}))); echo ${volume.id} $(cat $d/device/wwid) ${serial} $(dd if=${volume.targetPath()} bs=4k count=1 iflag=direct status=none | tr -d '\\0 ')`;
      })
      .join('\n');
    const { stdout } = await node.machine.exec(check, { timeoutMs: 300_000 });
    const lines = stdout.split('\n');
    expect(lines).to.have.length(COUNT);
    for (const line of lines) {
      const [id, wwid, serial, content] = line.split(' ');
      expect(content).to.equal(id);
      expect(wwid).to.equal(`naa.6001405${serial?.slice(0, 25)}`);
    }
    const { entries } = await (await deployment.controller.client()).call<{
      entries: { status: { published_node_ids: string[] } }[];
    }>('Controller', 'ListVolumes', {});
    expect(entries.filter((entry) => entry.status.published_node_ids.length === 1)).to.have.length(COUNT);

    await Promise.all(volumes.map((volume) => untilDone(() => volume.unpublish(node))));
    await Promise.all(volumes.map((volume) => untilDone(() => volume.unstage(node))));
    await Promise.all(volumes.map((volume) => untilDone(() => volume.detach(node))));
    await Promise.all(volumes.map((volume) => untilDone(() => volume.delete())));
  });
});
