import { mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { exists } from './cache.ts';
import type { Disk } from './disk.ts';
import { LabError } from './errors.ts';
import type { Image } from './image.ts';
import type { Keeper } from './keeper.ts';
import { type Hardware, qemuArguments, type Start } from './qemu-arguments.ts';
import { accepts, type Qmp, withQmp } from './qmp.ts';

const MONITOR_TIMEOUT_MS = 60_000;
const STATE_TIMEOUT_MS = 120_000;

/** One QEMU with its files: switching it on, off, and saving its state. Knows nothing of what runs inside. */
export class Power {
  readonly hardware: Hardware;
  readonly folder: string;
  readonly disks: readonly Disk[];
  readonly #keeper: Keeper;
  readonly #image: Image;
  readonly #socketFolder: string;

  constructor(
    keeper: Keeper,
    image: Image,
    hardware: Hardware,
    folder: string,
    socketFolder: string,
    disks: readonly Disk[] = [],
  ) {
    this.#keeper = keeper;
    this.#image = image;
    this.hardware = hardware;
    this.folder = folder;
    this.#socketFolder = socketFolder;
    this.disks = disks;
  }

  get qmpSocket(): string {
    return path.join(this.#socketFolder, `${this.hardware.slot.name}.qmp`);
  }

  get serialLog(): string {
    return path.join(this.folder, 'serial.log');
  }

  get rootDisk(): string {
    return path.join(this.folder, 'root.qcow2');
  }

  get #pidFile(): string {
    return path.join(this.folder, 'qemu.pid');
  }

  /** A fresh root disk over `backing`; blank other disks. */
  async prepare(backing: { file: string; format: 'raw' | 'qcow2' }): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    await rm(this.rootDisk, { force: true });
    const { file, format } = backing;
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', format, '-b', file, this.rootDisk]);
    for (const disk of this.disks) await disk.create();
  }

  /** Switches on; returns when the processor runs. */
  async on(start: Start): Promise<void> {
    await rm(this.qmpSocket, { force: true });
    await rm(this.#pidFile, { force: true });
    await Promise.all(this.disks.map((disk) => disk.serve()));
    const files = {
      rootDisk: this.rootDisk,
      kernel: this.#image.kernel,
      initrd: this.#image.initrd,
      qmpSocket: this.qmpSocket,
      pidFile: this.#pidFile,
      serialLog: this.serialLog,
    };
    const log = path.join(this.folder, 'qemu.log');
    const qemu = this.#keeper.spawn('qemu-system-x86_64', qemuArguments(this.hardware, files, start), log);
    const ended = new Promise<void>((resolve) => {
      qemu.once('close', () => resolve());
      qemu.once('error', () => resolve());
    });
    const deadline = performance.now() + MONITOR_TIMEOUT_MS;
    let gone = false;
    void ended.then(() => {
      gone = true;
    });
    // The monitor greets only when the machine is complete; its socket is there somewhat earlier.
    while (!((await exists(this.#pidFile)) && (await accepts(this.qmpSocket)))) {
      if (gone || performance.now() > deadline) throw new LabError(`QEMU does not start: ${await tail(log)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await withQmp(this.qmpSocket, async (qmp) => {
      if (start.kind === 'restore') await untilRestored(qmp);
      for (const [index, disk] of this.disks.entries()) {
        for (const { command, args } of disk.plugCommands(index + 1)) await qmp.execute(command, args);
      }
      await qmp.execute('cont');
    }).catch(async (cause) => {
      throw new LabError(`${this.hardware.slot.name} does not start: ${(cause as Error).message}\n${await tail(log)}`, {
        cause,
      });
    });
  }

  /** Kills QEMU and the disks' servers; what the guest has not flushed to them is lost, as in a power cut. */
  async cut(): Promise<void> {
    // QEMU first: with its disks gone it would hand I/O errors to the guest, and the guest to its initiators, for a
    // moment. No power cut does that. Killed like this QEMU flushes nothing, and nbdkit has no time to.
    const pids = [await this.#qemuPid(), ...(await Promise.all(this.disks.map((disk) => disk.serverPid())))];
    await this.#keeper.killInside(pids);
    await rm(this.#pidFile, { force: true });
    for (const disk of this.disks) await disk.forgetServer();
  }

  /** Stops the machine, writes its memory and device state to `stateFile`, and ends QEMU; rootDisk belongs to that state. */
  async save(stateFile: string): Promise<void> {
    await withQmp(this.qmpSocket, async (qmp) => {
      await qmp.execute('stop');
      await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
      await qmp.execute('migrate', { uri: `exec:cat > '${stateFile}'` });
      await untilMigrated(qmp, 'query-migrate', (status) => status === 'completed');
      await qmp.execute('quit');
    });
    await this.#keeper.killInside([await this.#qemuPid()]);
  }

  async #qemuPid(): Promise<number> {
    return Number(await readFile(this.#pidFile, 'utf8').catch(() => '0'));
  }
}

function untilRestored(qmp: Qmp): Promise<void> {
  return untilMigrated(qmp, 'query-status', (status) => status !== 'inmigrate');
}

async function untilMigrated(qmp: Qmp, query: string, done: (status: string) => boolean): Promise<void> {
  const deadline = performance.now() + STATE_TIMEOUT_MS;
  for (;;) {
    const answer = (await qmp.execute(query)) as { status?: string; 'error-desc'?: string };
    const status = answer.status ?? '';
    if (done(status)) return;
    if (status === 'failed' || performance.now() > deadline) {
      throw new LabError(`saving or restoring the machine's state: ${status} ${answer['error-desc'] ?? ''}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function tail(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text.split('\n').slice(-10).join('\n');
}
