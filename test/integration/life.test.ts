import { expect } from 'chai';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

for (const pod of [false, true])
  describe(`a volume's whole life${pod ? ', the driver in namespaces of its own as in a pod' : ''}`, () => {
    const suite = useDeployment({ nodes: 2, pod });

    // The file system makes no difference to whose namespaces the commands run in.
    for (const kind of pod ? (['ext4'] as const) : (['ext4', 'xfs'] as const)) {
      it(`${kind}: written on one node, grown under I/O, read on another, gone`, async () => {
        const { deployment } = suite;
        const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
        const volume = await new TestVolume(deployment, { name: `life-${kind}`, kind, sizeBytes: 320 * MIB }).up(node1);
        expect(volume.sizeBytes).to.equal(320 * MIB);
        const at = volume.targetPath();
        const { stdout: type } = await node1.machine.exec(`findmnt -no FSTYPE '${at}'`);
        expect(type).to.equal(kind);
        const { stdout: sum } = await node1.machine.exec(
          `head -c 50M /dev/urandom > ${at}/data && sync -f ${at}/data && sha256sum < ${at}/data`,
        );

        // A writer that must not see one error while the volume grows below it.
        const writer = await node1.machine.spawn(
          `i=0; while [ ! -e /run/stop-writer ]; do i=$((i+1)); dd if=/dev/zero of=${at}/w bs=64k count=4 conv=fsync status=none || exit 1; done; echo wrote $i`,
        );
        expect((await volume.expand(640 * MIB))['node_expansion_required']).to.equal(true);
        await volume.nodeExpand(node1);
        await node1.machine.exec('touch /run/stop-writer');
        expect(await writer.wait(60_000)).to.equal(0);
        expect(writer.output).to.match(/^wrote [1-9]/m);
        await node1.machine.exec('rm /run/stop-writer');
        const { stdout: size } = await node1.machine.exec(`df --output=size -B1M '${at}' | tail -1`);
        expect(Number(size)).to.be.greaterThan(500);

        const client = await node1.client();
        const stats = await client.call<{ usage: { unit: string; total: string; used: string }[] }>(
          'Node',
          'NodeGetVolumeStats',
          { volume_id: volume.id, volume_path: at },
        );
        const bytes = stats.usage.find((usage) => usage.unit === 'BYTES');
        expect(Number(bytes?.total)).to.be.within(500 * MIB, 640 * MIB);
        expect(Number(bytes?.used)).to.be.greaterThan(50 * MIB);
        expect(Number(stats.usage.find((usage) => usage.unit === 'INODES')?.total)).to.be.greaterThan(0);

        await volume.takeFrom(node1);
        await volume.bringTo(node2);
        expect((await node2.machine.exec(`sha256sum < ${at}/data`)).stdout).to.equal(sum);
        await volume.down(node2);
      });
    }

    it("raw block: a device node in the pod's folder, grown, with its bytes on another node", async () => {
      const { deployment } = suite;
      const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
      const volume = await new TestVolume(deployment, { name: 'life-block', kind: 'block', sizeBytes: 64 * MIB }).up(
        node1,
      );
      const at = volume.targetPath();
      await node1.machine.exec(`[ -b ${at} ] && [ "$(blockdev --getsize64 ${at})" = ${64 * MIB} ]`);
      await node1.machine.exec(
        `head -c 1M /dev/urandom > /root/pattern && dd if=/root/pattern of=${at} bs=1M seek=63 oflag=direct conv=fsync status=none`,
      );
      const writer = await node1.machine.spawn(
        `i=0; while [ ! -e /run/stop-writer ]; do i=$((i+1)); dd if=/dev/zero of=${at} bs=64k count=4 oflag=direct conv=notrunc status=none || exit 1; done; echo wrote $i`,
      );
      await volume.expand(128 * MIB);
      await volume.nodeExpand(node1);
      await node1.machine.exec('touch /run/stop-writer');
      expect(await writer.wait(60_000)).to.equal(0);
      expect(writer.output).to.match(/^wrote [1-9]/m);
      await node1.machine.exec('rm /run/stop-writer');
      await node1.machine.exec(`[ "$(blockdev --getsize64 ${at})" = ${128 * MIB} ]`);
      const client = await node1.client();
      const stats = await client.call<{ usage: { unit: string; total: string }[] }>('Node', 'NodeGetVolumeStats', {
        volume_id: volume.id,
        volume_path: at,
      });
      expect(stats.usage.find((usage) => usage.unit === 'BYTES')?.total).to.equal(String(128 * MIB));
      const { stdout: sum } = await node1.machine.exec('sha256sum < /root/pattern');
      await volume.takeFrom(node1);
      await volume.bringTo(node2);
      const { stdout: found } = await node2.machine.exec(
        `dd if=${at} bs=1M skip=63 count=1 iflag=direct status=none | sha256sum`,
      );
      expect(found).to.equal(sum);
      await volume.down(node2);
    });
  });
