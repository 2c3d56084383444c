import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import type { RemoteProcess } from '../lab/remote-process.ts';
import { failureOf } from './support/csi-client.ts';
import type { DriverUnit } from './support/driver-unit.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

/**
 * Writes 4 KiB blocks with O_DIRECT, each holding its number, round and round over a part of the volume; prints each
 * number that was acknowledged. Ends at the first error.
 */
const WRITER = `
import mmap, os, sys
path, first, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
number = 0
try:
    while True:
        number += 1
        page[0:8] = number.to_bytes(8, 'little')
        os.pwrite(fd, page, (first + number % blocks) * 4096)
        print(number, flush=True)
except OSError as error:
    print('ended', error.errno, flush=True)
`;
const BLOCKS = 2048;

/** The highest number on the LV itself, of the part that begins at block `first`, read past every cache on the storage host. */
async function highestOnDisk(storage: Machine, path: string, first = 0): Promise<number> {
  const { stdout } = await storage.exec(
    `python3 - '${path}' ${first} ${BLOCKS} <<'E'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 20)
best = 0
for chunk in range(int(sys.argv[3]) * 4096 // (1 << 20)):
    os.preadv(fd, [page], int(sys.argv[2]) * 4096 + (chunk << 20))
    for offset in range(0, 1 << 20, 4096):
        best = max(best, int.from_bytes(page[offset:offset + 8], 'little'))
print(best)
E`,
  );
  return Number(stdout);
}

interface Writes {
  readonly completed: number;
  readonly sectors: number;
  readonly inFlight: number;
}

/** What the kernel counts of the LV, in one short command. */
async function writesOf(storage: Machine, volume: TestVolume): Promise<Writes> {
  const { stdout } = await storage.exec(
    `cd /sys/class/block/$(basename $(readlink ${volume.lvPath})); read -r _ _ _ _ completed _ sectors _ < stat; read -r _ writes < inflight; echo $completed $sectors $writes`,
  );
  const [completed = Number.NaN, sectors = Number.NaN, inFlight = Number.NaN] = stdout.split(' ').map(Number);
  return { completed, sectors, inFlight };
}

/** How long a write that was on its way could still take: longer than the slow disk's delay. */
const LATE_MS = 8000;

/**
 * Detaches, and sees that from the answer on nothing lands: the first thing after it is a look at the LV's own counters,
 * with nothing in flight, and they are the same when whatever was still on its way would have come.
 */
async function detachForGood(storage: Machine, volume: TestVolume, detach: () => Promise<void>): Promise<void> {
  await detach();
  const atAnswer = await writesOf(storage, volume);
  expect(atAnswer.inFlight, 'in flight when ControllerUnpublishVolume has answered').to.equal(0);
  await new Promise((resolve) => setTimeout(resolve, LATE_MS));
  expect(await writesOf(storage, volume), 'writes after the answer').to.deep.equal(atAnswer);
}

async function startWriter(node: DriverUnit, volume: TestVolume, first = 0): Promise<RemoteProcess> {
  await node.machine.writeFile('/root/writer.py', WRITER);
  const writer = await node.machine.spawn(`python3 /root/writer.py ${volume.targetPath()} ${first} ${BLOCKS}`);
  await writer.waitForLine(/^50$/, 60_000);
  return writer;
}

const lastAcknowledged = (writer: RemoteProcess): number =>
  Number(writer.lines.filter((line) => /^\d+$/.test(line)).at(-1));

describe('fencing', () => {
  const suite = useDeployment({ nodes: 2 });

  it('a second node is refused, naming the first; after ControllerUnpublish not one byte of the first reaches the LV', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'fence-live', kind: 'block' }).up(node1);
    const writer = await startWriter(node1, volume);
    const refused = await failureOf(volume.attach(node2));
    expect(refused.code).to.equal('FAILED_PRECONDITION');
    expect(refused.message).to.contain('node-1');

    await detachForGood(storage, volume, () => volume.detach(node1));
    // What was acknowledged before is there.
    expect(await highestOnDisk(storage, volume.lvPath)).to.be.at.least(lastAcknowledged(writer));

    await volume.bringTo(node2);
    await node2.machine.exec(
      `dd if=/dev/zero of=${volume.targetPath()} bs=1M count=8 oflag=direct conv=fsync status=none`,
    );
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(await highestOnDisk(storage, volume.lvPath), 'node-2 wiped it, and node-1 wrote nothing since').to.equal(0);

    // Then node 1 is asked to clean up, and can: its writer's process gets its error, nothing hangs.
    await volume.unpublish(node1);
    await (await node1.client()).call(
      'Node',
      'NodeUnstageVolume',
      { volume_id: volume.id, staging_target_path: volume.stagingPath },
      60_000,
    );
    await writer.waitForLine(/^ended/, 60_000);
    await volume.down(node2);
  });

  it('the same with 5 s of delay in the disk under the LV', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'fence-slow', kind: 'block' }).up(node1);
    const writer = await startWriter(node1, volume);
    const dm = (await storage.exec(`basename $(readlink -f ${volume.lvPath})`)).stdout;
    const name = (await storage.exec(`cat /sys/block/${dm}/dm/name`)).stdout;
    // The LV's own table becomes a delay of the same disk: writes are on their way for 5 s.
    await storage.exec(
      `t=$(dmsetup table ${name}); set -- $t; dmsetup reload ${name} --table "0 $2 delay $4 $5 0 $4 $5 5000" && dmsetup resume ${name} && echo "$t" > /run/table`,
    );
    await new Promise((resolve) => setTimeout(resolve, 2000));
    // One is on its way through the slow disk, and has seconds to go. The gate tells: a device with this delay counts what
    // it holds only when that is done (measured, Linux 6.1).
    await storage.waitFor(
      `read -r _ writes < /sys/class/block/$(basename $(readlink -f ${volume.gatePath}))/inflight; [ "$writes" -gt 0 ]`,
      30_000,
    );
    await detachForGood(storage, volume, () => volume.detach(node1));
    expect(await highestOnDisk(storage, volume.lvPath)).to.be.at.least(lastAcknowledged(writer));
    await storage.exec(`dmsetup reload ${name} --table "$(cat /run/table)" && dmsetup resume ${name}`);
    await volume.bringTo(node2);
    await volume.unpublish(node1);
    await volume.unstage(node1);
    await writer.waitForLine(/^ended/, 60_000);
    await volume.down(node2);
  });

  it('a node that is frozen meanwhile, and thaws later, still writing', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'fence-frozen', kind: 'block' }).up(node1);
    const writer = await startWriter(node1, volume);
    await node1.machine.freeze();
    await volume.detach(node1);
    await volume.bringTo(node2);
    await node2.machine.exec(
      `dd if=/dev/zero of=${volume.targetPath()} bs=1M count=8 oflag=direct conv=fsync status=none`,
    );
    await node1.machine.thaw();
    await node1.machine.waitForSsh();
    await new Promise((resolve) => setTimeout(resolve, 8000));
    expect(await highestOnDisk(storage, volume.lvPath), 'the thawed node wrote nothing').to.equal(0);
    // Nobody asks the node to clean up: kubelet waits for the pod's process, and that for its I/O. The node plugin sees by
    // itself that the attachment was revoked, and ends the session; the replacement timeout would take 15 minutes.
    await writer.waitForLine(/^ended/, 180_000);
    await node1.machine.waitFor(`! grep -l '${volume.id}' /sys/class/iscsi_session/session*/targetname`, 60_000);
    await volume.unpublish(node1);
    await volume.unstage(node1);
    await volume.down(node2);
  });

  it('a mounted file system with unwritten data on the fenced node: unstage ends, and never flushes into the next life', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'fence-dirty', sizeBytes: 128 * MIB }).up(node1);
    const at = volume.targetPath();
    /** 4 KiB blocks of the LV that are the dirty file's. */
    const dirtyBlocks = async (): Promise<number> => {
      const { stdout } = await storage.exec(
        `dd if=${volume.lvPath} bs=1M iflag=direct status=none | python3 -c 'import sys
block, found = b"D" * 4096, 0
while piece := sys.stdin.buffer.read(4096): found += piece == block
print(found)'`,
      );
      return Number(stdout);
    };
    // The kernel is not to write it back by itself before the test is over.
    const writeback = ['dirty_expire_centisecs', 'dirty_writeback_centisecs'].map((name) => `/proc/sys/vm/${name}`);
    await node1.machine.exec(
      writeback.map((file) => `cat ${file} >> /run/writeback; echo 600000 > ${file}`).join('; '),
    );
    await node1.machine.exec(
      `echo safe > ${at}/safe && sync -f ${at}/safe && head -c 20M /dev/zero | tr '\\0' D > ${at}/dirty`,
    );
    await volume.detach(node1);
    expect(await dirtyBlocks(), 'when it is detached').to.equal(0);
    await volume.bringTo(node2);
    await node2.machine.exec(
      `[ "$(cat ${at}/safe)" = safe ] && echo second-life > ${at}/second && sync -f ${at}/second`,
    );
    await volume.unpublish(node1);
    await volume.unstage(node1);
    expect(await dirtyBlocks(), 'when the first node has unstaged').to.equal(0);
    await volume.takeFrom(node2);
    // Back on node 1: no page of the first life may be seen.
    await volume.bringTo(node1);
    await node1.machine.exec(`[ "$(cat ${at}/second)" = second-life ] && sync`);
    expect(await dirtyBlocks(), 'when it is back').to.equal(0);
    await node1.machine.exec(
      `{ ${writeback.map((file) => `read n; echo $n > ${file}`).join('; ')}; } < /run/writeback`,
    );
    await volume.down(node1);
  });

  it('the stale session of a first life is never used when the volume comes back to a node that was not unstaged', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, { name: 'fence-stale' }).up(node1);
    const at = volume.targetPath();
    await node1.machine.exec(`echo first > ${at}/file && sync -f ${at}/file`);
    await volume.detach(node1);
    await volume.bringTo(node2);
    await node2.machine.exec(`echo second > ${at}/file && sync -f ${at}/file`);
    await volume.takeFrom(node2);
    // Kubernetes attaches again to node 1, which never heard of the detach: same paths, old session, old page cache.
    await volume.attach(node1);
    await volume.unpublish(node1);
    await volume.stage(node1);
    await volume.publish(node1);
    await node1.machine.exec(`[ "$(cat ${at}/file)" = second ]`);
    await volume.down(node1);
  });

  it('one of two nodes that share a volume is cut off, the other goes on; with an empty node id both are', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, {
      name: 'fence-all',
      kind: 'block',
      mode: 'MULTI_NODE_MULTI_WRITER',
    }).create();
    for (const node of [node1, node2]) await volume.bringTo(node);
    const [writer1, writer2] = [await startWriter(node1, volume), await startWriter(node2, volume, BLOCKS)];

    await volume.detach(node1);
    const cutOff = await highestOnDisk(storage, volume.lvPath);
    const [acknowledged1, acknowledged2] = [lastAcknowledged(writer1), lastAcknowledged(writer2)];
    expect(cutOff).to.be.at.least(acknowledged1);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(await highestOnDisk(storage, volume.lvPath), 'of the node that was cut off').to.equal(cutOff);
    expect(lastAcknowledged(writer2), 'of the other').to.be.greaterThan(acknowledged2);
    expect(await highestOnDisk(storage, volume.lvPath, BLOCKS)).to.be.greaterThan(acknowledged2);

    await detachForGood(storage, volume, async () => {
      await (await deployment.controller.client()).call('Controller', 'ControllerUnpublishVolume', {
        volume_id: volume.id,
        node_id: '',
      });
    });
    expect(await highestOnDisk(storage, volume.lvPath, BLOCKS)).to.be.at.least(lastAcknowledged(writer2));
    for (const [node, writer] of [
      [node1, writer1],
      [node2, writer2],
    ] as const) {
      await volume.unpublish(node);
      await volume.unstage(node);
      await writer.waitForLine(/^ended/, 60_000);
    }
    await volume.delete();
  });
});
