import { mkdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { buildOnce, cacheFolder, contentHash, touchAndPrune } from './cache.ts';
import type { Image } from './image.ts';
import type { Keeper } from './keeper.ts';
import { Machine, type ReadyState } from './machine.ts';
import { networkScript } from './network.ts';
import { Power } from './power.ts';
import { ensureDiskSpace } from './prerequisites.ts';
import type { Progress } from './progress.ts';
import { type Hardware, qemuArguments } from './qemu-arguments.ts';

/** What a machine is to have done before its state is saved, beyond booting: pays once for what every start would need. */
export interface Preparation {
  /** Stands for everything that the state then depends on. */
  readonly key: string;
  run(machine: Machine): Promise<void>;
}

/** Bump when what is done before saving changes. */
const RECIPE = 1;

/** What every test pays for once a machine: programs and their libraries in the page cache, modules loaded. */
const WARM_UP = `
systemctl is-system-running --wait
lvs; pvs; vgs; dmsetup ls; iscsiadm -m session; lsblk; blkid; mkfs.ext4 -V; mkfs.xfs -V; node -e 0; python3 -c 0
mount | head -1; udevadm settle; nsenter --help; flock --help; setsid --help; fio --version; tar --help
sync
`;

/**
 * The saved state of a machine that has booted and is at rest, from the cache or made now (about a minute under
 * emulation). It fits one slot, one image, one amount of memory, one QEMU.
 */
export async function ensureReady(
  keeper: Keeper,
  image: Image,
  hardware: Hardware,
  socketFolder: string,
  progress: Progress,
  preparation?: Preparation,
): Promise<ReadyState> {
  const key = contentHash({
    RECIPE,
    WARM_UP,
    image: image.hash,
    // The image's own moment too: one that was deleted and built again has the same hash and other blocks.
    imageMade: (await stat(image.disk)).mtimeMs,
    qemu: (await execa('qemu-system-x86_64', ['--version'])).stdout,
    processor: hardware.accelerator === 'kvm' ? await processorModel() : '',
    // The machine remembers the addresses of its neighbours.
    network: networkScript([hardware.slot]),
    arguments: qemuArguments(hardware, NO_FILES, { kind: 'cold' }),
    preparation: preparation?.key,
  });
  const parent = path.join(cacheFolder(), 'ready');
  await mkdir(parent, { recursive: true });
  const { name } = hardware.slot;
  const folder = await buildOnce(
    path.join(parent, `${name}-${key}`),
    async (temporary) => {
      await ensureDiskSpace(parent, hardware.memoryMib + 512, `the saved state of ${name}`);
      await progress.step(`first boot of ${name}`, () =>
        makeReady(keeper, image, hardware, temporary, socketFolder, preparation),
      );
    },
    () => progress.line(`waiting for another process that makes the saved state of ${name}`),
  );
  await touchAndPrune(folder);
  return { stateFile: path.join(folder, 'state'), rootDisk: path.join(folder, 'root.qcow2') };
}

const NO_FILES = { rootDisk: '', kernel: '', initrd: '', qmpSocket: '', pidFile: '', serialLog: '' };

async function processorModel(): Promise<string> {
  const info = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  return /^model name\s*:(.*)$/m.exec(info)?.[1] ?? '';
}

async function makeReady(
  keeper: Keeper,
  image: Image,
  hardware: Hardware,
  folder: string,
  socketFolder: string,
  preparation: Preparation | undefined,
): Promise<void> {
  const power = new Power(keeper, image, hardware, folder, socketFolder);
  const machine = new Machine(keeper, power, image.sshKey, socketFolder);
  try {
    await power.prepare({ file: image.disk, format: 'raw' });
    await machine.boot();
    await machine.exec(WARM_UP, { check: false });
    await preparation?.run(machine);
    // The machine must not wake up with half of a connection that ended long ago.
    await machine.ssh.disconnect();
    await power.save(path.join(folder, 'state'));
  } finally {
    await machine.ssh.disconnect();
    await power.cut();
  }
}
