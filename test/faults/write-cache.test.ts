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

describe('a write that was done and not flushed when the power of the storage host failed', () => {
  for (const { policy, cache, found } of [
    { policy: 'off', cache: 'write through', found: PATTERN },
    // The control: the same with the disk's volatile cache must lose it.
    { policy: 'keep', cache: 'write back', found: '' },
  ] as const) {
    describe(`with --disk-write-cache ${policy}`, () => {
      const suite = useDeployment({
        nodes: 1,
        scrub: false,
        controllerOptions: [`--disk-write-cache=${policy}`],
        storage: { disks: [{ name: 'vg' }] },
      });

      it(
        policy === 'off' ? 'is there, as the flush after it says' : 'is lost, and the flush after it says nothing',
        async function () {
          this.timeout(900_000);
          const { deployment } = suite;
          const { lab, controller } = deployment;
          const node = nodeOf(deployment, 0);
          const volume = await new TestVolume(deployment, { name: 'cut', kind: 'block', sizeBytes: 16 * MIB }).up(node);
          const disk = async () =>
            (
              await lab.storage.exec(
                `cat /sys/class/block/$(basename $(readlink -f ${lab.storage.disks[0]}))/queue/write_cache`,
              )
            ).stdout;
          expect(await disk()).to.equal(cache);
          // The attachment's tag too is lost with a cache that is falsely said to last; only the write is to be.
          await lab.storage.exec(`sync ${lab.storage.disks[0]}`);
          const python = async (script: string, ...args: readonly string[]) =>
            (await node.machine.exec(`python3 - ${args.join(' ')}`, { input: script, timeoutMs: 240_000 })).stdout;
          expect(await python(WRITE, volume.targetPath(), String(OFFSET), PATTERN)).to.equal('4096');
          await lab.storage.powerCut();
          await lab.storage.boot();
          await controller.start();
          expect(await python(FLUSH, volume.targetPath())).to.equal('flushed');
          // After the boot too, before any volume was served.
          expect(await disk()).to.equal(cache);
          const { stdout } = await lab.storage.exec(
            `dd if=${volume.gatePath} bs=4096 skip=${OFFSET / 4096} count=1 iflag=direct status=none | tr -d '\\000'`,
          );
          expect(stdout).to.equal(found);
          await volume.down(node);
        },
      );
    });
  }
});
