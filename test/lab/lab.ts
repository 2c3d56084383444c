import { randomBytes } from 'node:crypto';
import path from 'node:path';
import PQueue from 'p-queue';
import { chooseAccelerator } from './accel.ts';
import { cacheFolder } from './cache.ts';
import { Disk, type DiskSpec } from './disk.ts';
import { LabError } from './errors.ts';
import { ensureImage, type Image, type ImageOptions } from './image.ts';
import { Keeper } from './keeper.ts';
import { Machine } from './machine.ts';
import { networkScript } from './network.ts';
import { Power } from './power.ts';
import { ensureDiskSpace, ensureMemory, ensurePrograms, ensureTaps } from './prerequisites.ts';
import { createProgress, type Progress } from './progress.ts';
import type { Hardware } from './qemu-arguments.ts';
import { ensureReady, type Preparation } from './ready.ts';
import { slot } from './slots.ts';
import {
  type LabState,
  labFolder,
  labLock,
  labSocketFolder,
  labsUp,
  makeFolders,
  readState,
  removeFolders,
  sweep,
  sweepingScript,
  withoutSweeping,
  writeState,
} from './state.ts';

export interface MachineOptions {
  /** Default 1024. Another amount is another saved state, made at its first use. */
  readonly memoryMib?: number;
  /** Default 1 */
  readonly cpus?: number;
  /** Disks beside the root disk; the storage host has one named `vg` by default, a node none. */
  readonly disks?: readonly DiskSpec[];
  /** Further words of the kernel's command line, as `selinux=1`. */
  readonly kernelArguments?: readonly string[];
  /** Part of the saved state. */
  readonly preparation?: Preparation;
}

export interface LabOptions {
  /** How many nodes, 0 to 32. Default 2. */
  readonly nodes?: number;
  /** Default: unique to this call. */
  readonly name?: string;
  readonly storage?: MachineOptions;
  /** for every node */
  readonly node?: MachineOptions;
  readonly image?: ImageOptions;
  /** true: the lab outlives this process, until `Lab.attach(name)` and `stop()`. Default false: it dies with us. */
  readonly detached?: boolean;
  readonly progress?: Progress;
}

const DEFAULT_MEMORY_MIB = 1024;
const NEEDED_DISK_MIB = 1024;
/** First boots are pure computation under emulation; more at once only makes each slower. */
const FIRST_BOOTS_AT_ONCE = 2;

/** One storage host and some nodes on a private network, all from the same image. */
export class Lab implements AsyncDisposable {
  readonly name: string;
  readonly storage: Machine;
  readonly nodes: readonly Machine[];
  /** of the lab's namespaces, for programs that belong beside the machines */
  readonly keeper: Keeper;
  readonly #state: LabState;

  private constructor(state: LabState, keeper: Keeper) {
    this.name = state.name;
    this.keeper = keeper;
    this.#state = state;
    const [storage, ...nodes] = state.machines.map(({ hardware, disks }) =>
      createMachine(keeper, state.image, hardware, disks, state.name),
    );
    if (!storage) throw new LabError(`lab "${state.name}" has no machines`);
    this.storage = storage;
    this.nodes = nodes;
  }

  /**
   * Starts a lab: from the cache within seconds, the first time within some minutes.
   * @throws LabError saying what is missing: a package, memory, disk space, a name that is free
   */
  static async start(options: LabOptions = {}): Promise<Lab> {
    const progress = options.progress ?? createProgress('lab');
    const name = options.name ?? `lab-${process.pid}-${randomBytes(3).toString('hex')}`;
    const folder = labFolder(name);
    await ensurePrograms(path.join(cacheFolder(), 'install.lock'), progress);
    await ensureTaps();
    const image = await ensureImage(options.image ?? {}, progress);
    const accelerator = await chooseAccelerator(image, progress);
    const specs = machineSpecs(options, accelerator);
    await ensureMemory(specs.map(({ hardware }) => hardware.memoryMib));
    await sweep();
    await ensureDiskSpace(path.dirname(folder), specs.length * NEEDED_DISK_MIB, 'a lab');
    const slots = specs.map(({ hardware }) => hardware.slot);
    const keeper = await withoutSweeping(async () => {
      if ((await labsUp()).includes(name))
        throw new LabError(`a lab "${name}" is already up (npm run lab -- --name OTHER up)`);
      await makeFolders(name);
      return Keeper.start(labLock(name), networkScript(slots), sweepingScript(name));
    });
    try {
      const queue = new PQueue({ concurrency: FIRST_BOOTS_AT_ONCE });
      const machines = await queue.addAll(
        specs.map(({ hardware, disks, preparation }) => async () => ({
          hardware,
          disks,
          ready: await ensureReady(keeper, image, hardware, labSocketFolder(name), progress, preparation),
        })),
      );
      const state: LabState = {
        name,
        keeperPid: keeper.pid,
        keeperStartTime: keeper.startTime,
        socketFolder: labSocketFolder(name),
        image,
        machines,
      };
      const lab = new Lab(state, keeper);
      await writeState(state);
      await progress.step(`starting ${slots.map((each) => each.name).join(', ')}`, () => lab.reset());
      if (options.detached === true) await keeper.stay();
      return lab;
    } catch (error) {
      await keeper.kill();
      await withoutSweeping(() => removeFolders(name));
      throw error;
    }
  }

  /** Another process's lab. @throws LabError when it is not up */
  static async attach(name: string): Promise<Lab> {
    const state = await readState(name);
    const keeper = await Keeper.attach(state.keeperPid, state.keeperStartTime);
    if (!keeper) throw new LabError(`lab "${name}" is not up any more (npm run lab -- up)`);
    return new Lab(state, keeper);
  }

  get machines(): readonly Machine[] {
    return [this.storage, ...this.nodes];
  }

  /** @param name as `node-1` */
  machine(name: string): Machine {
    const found = this.machines.find((machine) => machine.name === name);
    if (found) return found;
    throw new LabError(`no machine "${name}": there are ${this.machines.map((machine) => machine.name).join(', ')}`);
  }

  /** Every machine back to its saved state, with blank disks and links up, whatever a test has done. Takes seconds. */
  async reset(): Promise<void> {
    await Promise.all(
      this.machines.map((machine, index) => {
        const ready = this.#state.machines[index]?.ready;
        if (!ready) throw new LabError(`${machine.name} has no saved state`);
        return machine.restore(ready);
      }),
    );
  }

  /** A VG on the storage host's first disk. @param options further arguments of vgcreate, as `--metadatasize 64m` */
  async createVolumeGroup(name = 'cinder-volumes', options = ''): Promise<void> {
    await this.storage.exec(`vgcreate ${options} ${name} ${this.storage.disks[0] ?? ''}`);
  }

  /** A folder for each machine under `folder`. Never throws: it is called when something has gone wrong already. */
  async collectLogs(folder: string): Promise<void> {
    await Promise.allSettled(this.machines.map((machine) => machine.collectLogs(path.join(folder, machine.name))));
  }

  /** Ends every process of the lab and removes its files. */
  async stop(): Promise<void> {
    await this.keeper.kill();
    await withoutSweeping(() => removeFolders(this.name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function machineSpecs(options: LabOptions, accelerator: Hardware['accelerator']) {
  const { nodes = 2, storage = {}, node = {} } = options;
  const spec = (name: string, machine: MachineOptions, disks: readonly DiskSpec[]) => ({
    hardware: {
      slot: slot(name),
      memoryMib: machine.memoryMib ?? DEFAULT_MEMORY_MIB,
      cpus: machine.cpus ?? 1,
      accelerator,
      ...(machine.kernelArguments === undefined ? {} : { kernelArguments: machine.kernelArguments }),
    },
    disks: machine.disks ?? disks,
    preparation: machine.preparation,
  });
  const nodeNames = Array.from({ length: nodes }, (_, index) => `node-${index + 1}`);
  return [spec('storage', storage, [{ name: 'vg' }]), ...nodeNames.map((name) => spec(name, node, []))];
}

function createMachine(
  keeper: Keeper,
  image: Image,
  hardware: Hardware,
  diskSpecs: readonly DiskSpec[],
  labName: string,
): Machine {
  const folder = path.join(labFolder(labName), hardware.slot.name);
  const sockets = labSocketFolder(labName);
  const disks = diskSpecs.map((spec) => new Disk(keeper, hardware.slot.name, spec, folder, sockets));
  return new Machine(keeper, new Power(keeper, image, hardware, folder, sockets, disks), image.sshKey, sockets);
}
