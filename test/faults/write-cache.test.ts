/**
 * What a disk has acknowledged and not yet written when the power fails. A node that goes on asks for a flush afterwards,
 * and is told that all is there: src/lvm/disk-caches.ts. The load of power.test.ts meets that by chance; here it is certain.
 */
import { expect } from 'chai';
import { nodeOf, useDeployment } from '../integration/support/suite.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';

const PATTERN = 'what-the-node-was-told-is-written';
const OFFSET = 4096;

/** O_DIRECT, so that the write has gone to the disk when it returns; no flush. Arguments: device, offset, text. */
const WRITE = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
block = mmap.mmap(-1, 4096)
block.write(sys.argv[3].encode())
print(os.pwrite(fd, block, int(sys.argv[2])))
`;

/** Argument: device. */
const FLUSH = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR); os.fsync(fd); print('flushed')";

const VARIANTS = [
  {
    title: 'the disk’s cache turned off: it is there, as the flush after it says',
    cache: 'write through',
    found: PATTERN,
  },
  { title: 'the same with a SCSI disk', bus: 'scsi', cache: 'write through', found: PATTERN },
  // The kernel does not ask such a disk again, and goes on flushing.
  { title: 'the same with an NVMe disk', bus: 'nvme', found: PATTERN },
  // The control: with the volatile cache it must be lost.
  { title: 'a volatile cache kept: it is lost, and the flush after it says nothing', keep: true, found: '' },
  // The attachment, and all else that LVM has been told, is there: the driver has flushed it.
  { title: 'a cache that cannot be turned off: it is lost, the attachment is not', fixedCache: true, found: '' },
] as const;

describe('a write that was done and not flushed when the power of the storage host failed', () => {
  for (const variant of VARIANTS) {
    const { title, bus, cache, keep, fixedCache, found } = {
      bus: 'virtio' as const,
      cache: 'write back',
      keep: false,
      fixedCache: false,
      ...variant,
    };
    describe(title, () => {
      const suite = useDeployment({
        nodes: 1,
        scrub: false,
        controllerOptions: [`--disk-write-cache=${keep ? 'keep' : 'off'}`],
        storage: { disks: [{ name: 'vg', bus, fixedCache }] },
      });

      it('after the boot', async function () {
        this.timeout(900_000);
        const { deployment } = suite;
        const { lab, controller } = deployment;
        const node = nodeOf(deployment, 0);
        const volume = await new TestVolume(deployment, { name: 'cut', kind: 'block', sizeBytes: 16 * MIB }).up(node);
        const look = `cat /sys/class/block/$(basename $(readlink -f ${lab.storage.disks[0]}))/queue/write_cache`;
        const cacheNow = async () => (await lab.storage.exec(look)).stdout;
        expect(await cacheNow()).to.equal(cache);
        // With a cache that is falsely said to last the attachment's tag is lost too; only the write is to be.
        if (keep) await lab.storage.exec(`sync ${lab.storage.disks[0]}`);
        const python = async (script: string, ...args: readonly string[]) =>
          (await node.machine.exec(`python3 - ${args.join(' ')}`, { input: script, timeoutMs: 240_000 })).stdout;
        expect(await python(WRITE, volume.targetPath(), String(OFFSET), PATTERN)).to.equal('4096');
        await lab.storage.powerCut();
        await lab.storage.boot();
        await controller.start();
        expect(await python(FLUSH, volume.targetPath())).to.equal('flushed');
        // After the boot too, before any volume was served.
        expect(await cacheNow()).to.equal(cache);
        const { stdout } = await lab.storage.exec(
          `dd if=${volume.gatePath} bs=4096 skip=${OFFSET / 4096} count=1 iflag=direct status=none | tr -d '\\000'`,
        );
        expect(stdout).to.equal(found);
        const told = (text: string) => controller.log().then((log) => log.includes(text));
        expect(await told('the volatile write cache of these disks cannot be turned off')).to.equal(fixedCache);
        expect(await told('the volatile write cache of a disk is turned off')).to.equal(!fixedCache && !keep);
        await volume.down(node);
      });
    });
  }
});
