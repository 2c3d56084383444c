import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { failureOf, type Mode } from './support/csi-client.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

/** PERSISTENT RESERVE IN, READ KEYS (SPC-4), by the kernel's SG_IO: no sg3-utils on the machines. */
async function reservationKeys(machine: Machine, device: string): Promise<string> {
  const { stdout } = await machine.exec(`python3 - '${device}' <<'E'
import ctypes, fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
command = ctypes.create_string_buffer(bytes([0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0]), 10)
data, sense = ctypes.create_string_buffer(64), ctypes.create_string_buffer(32)
# struct sg_io_hdr
header = ctypes.create_string_buffer(struct.pack('iiBBHIPPPIIiPBBBBHHiII', ord('S'), -3, 10, 32, 0, 64,
  ctypes.addressof(data), ctypes.addressof(command), ctypes.addressof(sense), 20000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
fcntl.ioctl(fd, 0x2285, header)
status = struct.unpack_from('iiBBHIPPPIIiPBBBBHHiII', header)[13]
if status == 2: print('refused: check condition, sense key', sense.raw[2] & 15 if sense.raw[0] & 0x7f < 0x72 else sense.raw[1] & 15)
else: print(struct.unpack_from('>I', data, 4)[0] // 8, 'keys')
E`);
  return stdout;
}

describe('access modes, read-only and mount options', () => {
  const suite = useDeployment({ nodes: 2 });

  for (const mode of ['SINGLE_NODE_WRITER', 'SINGLE_NODE_MULTI_WRITER'] as Mode[]) {
    it(`${mode}: several pods of one node write, another node is refused`, async () => {
      const { deployment } = suite;
      const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
      const volume = await new TestVolume(deployment, { name: `modes-${mode}`, mode }).up(node1);
      await volume.publish(node1, 'pod-2');
      await node1.machine.exec(
        `echo one > ${volume.targetPath()}/f; echo two >> ${volume.targetPath('pod-2')}/f; [ "$(wc -l < ${volume.targetPath()}/f)" = 2 ]`,
      );
      const failure = await failureOf(volume.attach(node2));
      expect(failure.code).to.equal('FAILED_PRECONDITION');
      expect(failure.message).to.contain('node-1');
      await volume.unpublish(node1, 'pod-2');
      await node1.machine.exec(`grep -q one ${volume.targetPath()}/f`);
      await volume.down(node1);
    });
  }

  it('SINGLE_NODE_SINGLE_WRITER: a second pod is refused while the first is there, and let in after it', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, {
      name: 'modes-single-writer',
      mode: 'SINGLE_NODE_SINGLE_WRITER',
    }).up(node1);
    const second = await failureOf(volume.publish(node1, 'pod-2'));
    expect(second.code).to.equal('FAILED_PRECONDITION');
    expect(second.message).to.contain(volume.targetPath());
    // The same pod again is a retry, not a second pod.
    await volume.publish(node1);
    expect((await failureOf(volume.attach(node2))).code).to.equal('FAILED_PRECONDITION');
    await volume.unpublish(node1);
    await volume.publish(node1, 'pod-2');
    await node1.machine.exec(`touch ${volume.targetPath('pod-2')}/x`);
    await volume.unpublish(node1, 'pod-2');
    await volume.unstage(node1);
    await volume.detach(node1);
    await volume.delete();
  });

  it('SINGLE_NODE_READER_ONLY: read on one node, written by nobody, neither through the file system nor the device', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const writer = await new TestVolume(deployment, { name: 'modes-reader' }).up(node1);
    await node1.machine.exec(`echo filled > ${writer.targetPath()}/file && sync -f ${writer.targetPath()}/file`);
    await writer.takeFrom(node1);
    const reader = new TestVolume(deployment, { name: 'modes-reader', mode: 'SINGLE_NODE_READER_ONLY' });
    reader.id = writer.id;
    await reader.bringTo(node2);
    const { exitCode, stderr } = await node2.machine.exec(
      `[ "$(cat ${reader.targetPath()}/file)" = filled ] && touch ${reader.targetPath()}/x`,
      { check: false },
    );
    expect(exitCode).to.equal(1);
    expect(stderr).to.contain('Read-only file system');
    const device = (await node2.machine.exec(`findmnt -no SOURCE '${reader.stagingPath}'`)).stdout;
    const direct = await node2.machine.exec(
      `blockdev --setrw ${device}; dd if=/dev/zero of=${device} bs=4k count=1 oflag=direct status=none`,
      { check: false },
    );
    expect(direct.exitCode, 'the target itself refuses the write').to.equal(1);
    expect((await failureOf(reader.attach(node1))).code).to.equal('FAILED_PRECONDITION');
    await reader.takeFrom(node2);
    await writer.delete();
  });

  it("mount options reach the file system; one that is not the volume's is refused by name", async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    for (const [kind, mountFlags, expected] of [
      ['ext4', ['noatime', 'commit=30,data=writeback'], /noatime.*commit=30.*data=writeback/],
      ['xfs', ['noatime', 'logbsize=64k'], /noatime.*logbsize=64k/],
    ] as const) {
      const volume = await new TestVolume(deployment, {
        name: `modes-flags-${kind}`,
        kind,
        sizeBytes: 320 * MIB,
        mountFlags: [...mountFlags],
      }).up(node);
      const { stdout } = await node.machine.exec(`findmnt -no OPTIONS '${volume.targetPath()}'`);
      expect(stdout).to.match(expected);
      await volume.down(node);
    }
    const refused = await new TestVolume(deployment, { name: 'modes-flags-refused' }).create();
    await refused.attach(node);
    const bad = new TestVolume(deployment, { name: 'modes-flags-refused', mountFlags: ['noatime', 'bind'] });
    bad.id = refused.id;
    bad.contexts.set(node.machine.name, refused.contexts.get(node.machine.name) ?? {});
    const failure = await failureOf(bad.stage(node));
    expect(failure.code).to.equal('INVALID_ARGUMENT');
    expect(failure.message).to.contain('"bind"').and.to.contain('mountOptions');
    const unknown = new TestVolume(deployment, { name: 'modes-flags-refused', mountFlags: ['no-such-option'] });
    unknown.id = refused.id;
    unknown.contexts.set(node.machine.name, refused.contexts.get(node.machine.name) ?? {});
    expect((await failureOf(unknown.stage(node))).message).to.contain('no-such-option');
    await refused.unstage(node);
    await refused.detach(node);
    await refused.delete();
  });

  it('read-only publish of a writable volume', async () => {
    const { deployment } = suite;
    const node1 = nodeOf(deployment, 0);
    const volume = await new TestVolume(deployment, { name: 'life-ro' }).create();
    await volume.attach(node1);
    await volume.stage(node1);
    await volume.publish(node1, 'pod-ro', true);
    const { exitCode, stderr } = await node1.machine.exec(`touch ${volume.targetPath('pod-ro')}/x`, { check: false });
    expect(exitCode).to.not.equal(0);
    expect(stderr).to.contain('Read-only file system');
    await volume.publish(node1, 'pod-rw');
    await node1.machine.exec(`touch ${volume.targetPath('pod-rw')}/x`);
    await volume.unpublish(node1, 'pod-ro');
    await volume.unpublish(node1, 'pod-rw');
    await volume.unstage(node1);
    await volume.detach(node1);
    await volume.delete();
  });

  it('many readers: filled once, then mounted read-only on two nodes at once, with a dirty journal', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const writer = await new TestVolume(deployment, { name: 'life-rox' }).up(node1);
    await node1.machine.exec(`echo filled > ${writer.targetPath()}/file && sync -f ${writer.targetPath()}/file`);
    await writer.takeFrom(node1);
    const reader = new TestVolume(deployment, { name: 'life-rox', mode: 'MULTI_NODE_READER_ONLY' });
    reader.id = writer.id;
    for (const node of [node1, node2]) await reader.bringTo(node);
    for (const node of [node1, node2]) {
      await node.machine.exec(`[ "$(cat ${reader.targetPath()}/file)" = filled ]`);
      const { exitCode } = await node.machine.exec(`touch ${reader.targetPath()}/x`, { check: false });
      expect(exitCode).to.not.equal(0);
    }
    await reader.takeFrom(node1);
    await node2.machine.exec(`echo 3 > /proc/sys/vm/drop_caches; [ "$(cat ${reader.targetPath()}/file)" = filled ]`);
    await reader.takeFrom(node2);
    await writer.delete();
  });

  it('shared raw block: two nodes write at once, both see growth', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, {
      name: 'life-rwx',
      kind: 'block',
      mode: 'MULTI_NODE_MULTI_WRITER',
    }).create();
    for (const node of [node1, node2]) await volume.bringTo(node);
    // Whoever shares a disk may want to reserve it; where one node writes, nobody can.
    const single = await new TestVolume(deployment, { name: 'life-rwo', kind: 'block' }).up(node1);
    expect(await reservationKeys(node1.machine, volume.targetPath())).to.equal('0 keys');
    expect(await reservationKeys(node1.machine, single.targetPath())).to.match(
      /^refused: check condition, sense key 5/,
    );
    await single.down(node1);
    await node1.machine.exec(
      `echo from-node-1 | dd of=${volume.targetPath()} bs=4k conv=sync oflag=direct status=none`,
    );
    const { stdout } = await node2.machine.exec(
      `dd if=${volume.targetPath()} bs=4k count=1 iflag=direct status=none | tr -d '\\0 ' | head -1`,
    );
    expect(stdout).to.equal('from-node-1');
    await volume.expand(128 * MIB);
    for (const node of [node1, node2]) {
      await volume.nodeExpand(node);
      await node.machine.exec(`[ "$(blockdev --getsize64 ${volume.targetPath()})" = ${128 * MIB} ]`);
    }
    // One node leaves; the other one's I/O is not disturbed.
    const writer = await node2.machine.spawn(
      `while [ ! -e /run/stop-writer ]; do dd if=/dev/zero of=${volume.targetPath()} bs=4k count=8 seek=16 oflag=direct status=none || exit 1; done`,
    );
    await volume.takeFrom(node1);
    await node2.machine.exec('sleep 1; touch /run/stop-writer');
    expect(await writer.wait(30_000)).to.equal(0);
    await node2.machine.exec('rm /run/stop-writer');
    await volume.down(node2);
  });
});
