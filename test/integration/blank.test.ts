import { expect } from 'chai';
import type { Lab } from '../lab/lab.ts';
import type { Deployment } from './support/deployment.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

const DISK_MIB = 1024;
/** Non-zero bytes that a new file system has at most (each test prints what it found). A stranger's file would bring megabytes. */
const OWN_BYTES = MIB;
const fillWithPattern = async (lab: Lab) => {
  // "TENANT-A" over and over: the data of somebody who was here before.
  await lab.storage.exec(
    `yes TENANT-A | head -c ${DISK_MIB}M | dd of=${lab.storage.disks[0]} bs=1M oflag=direct iflag=fullblock status=none conv=fsync`,
    { timeoutMs: 300_000 },
  );
};

interface Traces {
  /** of the device, read whole through the node past its cache */
  readonly bytes: number;
  /** how often the pattern stands in them */
  readonly pattern: number;
  /** how many of them are not zero */
  readonly nonZero: number;
}

async function traces(deployment: Deployment, path: string): Promise<Traces> {
  const node = nodeOf(deployment, 0).machine;
  const { stdout } = await node.exec(
    `set -e
     dd if=${path} bs=1M iflag=direct status=none of=/root/image
     stat -c %s /root/image
     { grep -a -o 'ENANT-' /root/image || true; } | wc -l
     tr -d '\\0' < /root/image | wc -c
     rm /root/image`,
    { timeoutMs: 300_000 },
  );
  const [bytes = Number.NaN, pattern = Number.NaN, nonZero = Number.NaN] = stdout.split('\n').map(Number);
  return { bytes, pattern, nonZero };
}

const blank = ({ sizeBytes }: TestVolume): Traces => ({ bytes: sizeBytes, pattern: 0, nonZero: 0 });

async function wiped(deployment: Deployment): Promise<void> {
  await deployment.lab.storage.waitFor("! lvs --noheadings -o lv_name cinder-volumes | grep -q '_wipe-'", 300_000);
}

/** The device of a mounted volume, read whole: no pattern, and no more than superblocks, bitmaps, inode tables and journal headers. */
async function expectOnlyItsOwn(deployment: Deployment, volume: TestVolume): Promise<void> {
  const { machine } = nodeOf(deployment, 0);
  const device = (await machine.exec(`findmnt -no SOURCE '${volume.stagingPath}'`)).stdout;
  await machine.exec(`fsfreeze -f '${volume.stagingPath}'`);
  const found = await traces(deployment, device);
  await machine.exec(`fsfreeze -u '${volume.stagingPath}'`);
  console.log(`      ${volume.spec.name}: ${found.nonZero} bytes of ${volume.sizeBytes} are not zero`);
  expect(found.bytes, 'all of it was read').to.equal(volume.sizeBytes);
  expect(found.pattern).to.equal(0);
  expect(found.nonZero).to.be.greaterThan(0).and.lessThan(OWN_BYTES);
}

for (const scrub of [false, true]) {
  describe(`blank when handed out, on a disk full of another's data (${scrub ? 'after scrub' : 'never scrubbed'})`, () => {
    const suite = useDeployment({
      nodes: 1,
      scrub,
      beforeVg: fillWithPattern,
      storage: { disks: [{ name: 'vg', sizeBytes: DISK_MIB * MIB, direct: true }] },
    });

    it('raw: created, expanded, deleted and created again: all zeros', async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const volume = await new TestVolume(deployment, { name: 'blank-raw', kind: 'block', sizeBytes: 64 * MIB }).up(
        node,
      );
      expect(await traces(deployment, volume.targetPath())).to.deep.equal(blank(volume));
      await volume.expand(128 * MIB);
      await volume.nodeExpand(node);
      expect(await traces(deployment, volume.targetPath())).to.deep.equal(blank(volume));
      await node.machine.exec(
        `yes TENANT-B | head -c 128M | dd of=${volume.targetPath()} bs=1M oflag=direct iflag=fullblock conv=fsync status=none`,
      );
      await volume.down(node);
      await wiped(deployment);
      // So large that it gets extents that were the first one's.
      const next = await new TestVolume(deployment, { name: 'blank-next', kind: 'block', sizeBytes: 800 * MIB }).up(
        node,
      );
      expect(await traces(deployment, next.targetPath())).to.deep.equal(blank(next));
      await next.down(node);
    });

    for (const kind of ['ext4', 'xfs'] as const) {
      it(`${kind}: created, expanded, and created again where another's files were: nothing but the file system's own blocks`, async () => {
        const { deployment } = suite;
        const node = nodeOf(deployment, 0);
        const first = await new TestVolume(deployment, { name: `blank-${kind}`, kind, sizeBytes: 320 * MIB }).up(node);
        await expectOnlyItsOwn(deployment, first);
        await first.expand(400 * MIB);
        await first.nodeExpand(node);
        await expectOnlyItsOwn(deployment, first);
        await node.machine.exec(
          `yes TENANT-B | head -c 250M > ${first.targetPath()}/secrets; sync -f ${first.targetPath()}/secrets`,
          { timeoutMs: 300_000 },
        );
        await first.down(node);
        await wiped(deployment);
        // So large that it gets extents that were the first one's.
        const next = await new TestVolume(deployment, { name: `blank-${kind}-next`, kind, sizeBytes: 640 * MIB }).up(
          node,
        );
        await expectOnlyItsOwn(deployment, next);
        await next.down(node);
      });
    }
  });
}
