import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { failureOf } from './support/csi-client.ts';
import type { Deployment } from './support/deployment.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

/**
 * Writes 4 KiB blocks with O_DIRECT, each holding its number, round and round over the volume; prints each number that
 * was acknowledged. Ends at the first error.
 */
const WRITER = `
import mmap, os, sys
path, blocks = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
number = 0
try:
    while True:
        number += 1
        page[0:8] = number.to_bytes(8, 'little')
        os.pwrite(fd, page, (number % blocks) * 4096)
        print(number, flush=True)
except OSError as error:
    print('ended', error.errno, flush=True)
`;
const BLOCKS = 2048;

/** The highest number on the LV itself, read past every cache on the storage host. */
async function highestOnDisk(storage: Machine, path: string): Promise<number> {
  const { stdout } = await storage.exec(
    `python3 - '${path}' ${BLOCKS} <<'E'
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 1 << 20)
best = 0
for chunk in range(int(sys.argv[2]) * 4096 // (1 << 20)):
    os.preadv(fd, [page], chunk << 20)
    for offset in range(0, 1 << 20, 4096):
        best = max(best, int.from_bytes(page[offset:offset + 8], 'little'))
print(best)
E`,
  );
  return Number(stdout);
}

/** Nothing lands any more: the LV's own write counter in the kernel stands still over three seconds. */
async function expectNoWrites(storage: Machine, lvPath: string): Promise<void> {
  const { stdout } = await storage.exec(
    `d=$(basename $(readlink -f ${lvPath})); a=$(awk '{print $5, $7, $9}' /sys/block/$d/stat); sleep 3; b=$(awk '{print $5, $7, $9}' /sys/block/$d/stat); echo "$a / $b"; [ "$a" = "$b" ]`,
    { check: false },
  );
  const [before, after] = stdout.split(' / ');
  expect(after, 'writes, sectors written and in flight of the LV over 3 s').to.equal(before);
}

async function startWriter(deployment: Deployment, volume: TestVolume) {
  const node1 = nodeOf(deployment, 0).machine;
  await node1.writeFile('/root/writer.py', WRITER);
  const writer = await node1.spawn(`python3 /root/writer.py ${volume.targetPath()} ${BLOCKS}`);
  await writer.waitForLine(/^50$/, 60_000);
  return writer;
}

describe('fencing', () => {
  const suite = useDeployment({ nodes: 2 });

  it('a second node is refused, naming the first; after ControllerUnpublish not one byte of the first reaches the LV', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const { storage } = deployment.lab;
    const volume = await new TestVolume(deployment, { name: 'fence-live', kind: 'block' }).up(node1);
    const writer = await startWriter(deployment, volume);
    const refused = await failureOf(volume.attach(node2));
    expect(refused.code).to.equal('FAILED_PRECONDITION');
    expect(refused.message).to.contain('node-1');

    await volume.detach(node1);
    const atAnswer = await highestOnDisk(storage, volume.lvPath);
    await expectNoWrites(storage, volume.lvPath);
    expect(await highestOnDisk(storage, volume.lvPath)).to.equal(atAnswer);
    // What was acknowledged before is there.
    const acknowledged = Number(writer.lines.filter((line) => /^\d+$/.test(line)).at(-1));
    expect(atAnswer).to.be.at.least(acknowledged);

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
    const writer = await startWriter(deployment, volume);
    const dm = (await storage.exec(`basename $(readlink -f ${volume.lvPath})`)).stdout;
    const name = (await storage.exec(`cat /sys/block/${dm}/dm/name`)).stdout;
    // The LV's own table becomes a delay of the same disk: writes are on their way for 5 s.
    await storage.exec(
      `t=$(dmsetup table ${name}); set -- $t; dmsetup reload ${name} --table "0 $2 delay $4 $5 0 $4 $5 5000" && dmsetup resume ${name} && echo "$t" > /run/table`,
    );
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await volume.detach(node1);
    const atAnswer = await highestOnDisk(storage, volume.lvPath);
    await expectNoWrites(storage, volume.lvPath);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    expect(await highestOnDisk(storage, volume.lvPath), 'nothing was still on its way').to.equal(atAnswer);
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
    const writer = await startWriter(deployment, volume);
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
    await volume.unpublish(node1);
    await volume.unstage(node1);
    await writer.waitForLine(/^ended/, 60_000);
    await volume.down(node2);
  });

  it('a mounted file system with unwritten data on the fenced node: unstage ends, and never flushes into the next life', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, { name: 'fence-dirty', sizeBytes: 128 * MIB }).up(node1);
    const at = volume.targetPath();
    await node1.machine.exec(`echo safe > ${at}/safe && sync -f ${at}/safe && head -c 20M /dev/urandom > ${at}/dirty`);
    await volume.detach(node1);
    await volume.bringTo(node2);
    await node2.machine.exec(
      `[ "$(cat ${at}/safe)" = safe ] && echo second-life > ${at}/second && sync -f ${at}/second`,
    );
    await volume.unpublish(node1);
    await volume.unstage(node1);
    await volume.takeFrom(node2);
    // Back on node 1: no page of the first life may be seen.
    await volume.bringTo(node1);
    await node1.machine.exec(`[ "$(cat ${at}/second)" = second-life ]`);
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

  it('empty node id: detached from every node', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, {
      name: 'fence-all',
      kind: 'block',
      mode: 'MULTI_NODE_MULTI_WRITER',
    }).create();
    for (const node of [node1, node2]) await volume.bringTo(node);
    await (await deployment.controller.client()).call('Controller', 'ControllerUnpublishVolume', {
      volume_id: volume.id,
      node_id: '',
    });
    for (const node of [node1, node2]) {
      await volume.unpublish(node);
      await volume.unstage(node);
    }
    await volume.delete();
  });
});
