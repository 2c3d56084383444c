import { open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { exists } from './cache.ts';
import { LabError } from './errors.ts';
import type { Keeper } from './keeper.ts';

export interface DiskSpec {
  /** Letters, digits and `-`, at most 20; in the guest a part of its /dev/disk/by-id name, see `Disk.device`. */
  readonly name: string;
  /** Default 20 GiB; the file is sparse. */
  readonly sizeBytes?: number;
  /** Every byte has this value at first (0–255): what a deleted tenant left behind. Written out, so keep the disk small. */
  readonly fill?: number;
  /** The disk answers flushes without heeding them: for the control run of a power-cut test, which must lose data. */
  readonly dropFlushes?: boolean;
  /** What the guest takes it for. Default virtio. */
  readonly bus?: keyof typeof BUSES;
  /** Its volatile write cache cannot be turned off by the guest; virtio only. */
  readonly fixedCache?: boolean;
  /**
   * Served from the file itself, without the cache that makes power cuts real: zeros and discards of gigabytes take no
   * time, as on a disk with write-zeroes. Such a machine refuses `powerCut`.
   */
  readonly direct?: boolean;
}

/** How udev calls such a disk, and QEMU what it is plugged in with. */
const BUSES = {
  virtio: { link: 'virtio-', controller: undefined, device: 'virtio-blk-pci' },
  scsi: { link: 'scsi-0QEMU_QEMU_HARDDISK_', controller: 'virtio-scsi-pci', device: 'scsi-hd' },
  nvme: { link: 'nvme-QEMU_NVMe_Ctrl_', controller: undefined, device: 'nvme' },
} as const;

const DEFAULT_SIZE_BYTES = 20 * 2 ** 30;
const READY_TIMEOUT_MS = 30_000;

/**
 * A disk that is honest about flushes. Killing QEMU alone loses nothing that the guest wrote, because it already lies in
 * this machine's page cache. So the disk is served by nbdkit, which keeps writes in a cache of its own until the guest
 * flushes: killing nbdkit loses exactly what a power cut would.
 */
export class Disk {
  readonly spec: DiskSpec;
  readonly file: string;
  /** As DiskSpec.dropFlushes; takes effect when the machine is next switched on. */
  dropFlushes: boolean;
  readonly #keeper: Keeper;
  readonly #folder: string;
  readonly #socketFolder: string;
  readonly #owner: string;

  constructor(keeper: Keeper, owner: string, spec: DiskSpec, folder: string, socketFolder: string) {
    if (!/^[A-Za-z0-9-]{1,20}$/.test(spec.name)) {
      throw new LabError(`disk name "${spec.name}": letters, digits and "-" only, at most 20`);
    }
    this.spec = spec;
    this.dropFlushes = spec.dropFlushes === true;
    this.#keeper = keeper;
    this.#owner = owner;
    this.#folder = folder;
    this.#socketFolder = socketFolder;
    this.file = path.join(folder, `${spec.name}.disk`);
  }

  /** the path in the guest */
  get device(): string {
    return `/dev/disk/by-id/${BUSES[this.spec.bus ?? 'virtio'].link}${this.spec.name}`;
  }

  get socket(): string {
    return path.join(this.#socketFolder, `${this.#owner}.${this.spec.name}.nbd`);
  }

  get #failFile(): string {
    return path.join(this.#folder, `${this.spec.name}.failing`);
  }

  get #pidFile(): string {
    return path.join(this.#folder, `${this.spec.name}.nbdkit.pid`);
  }

  /** A blank file, or one filled with the pattern; whatever was there is gone. */
  async create(): Promise<void> {
    const sizeBytes = this.spec.sizeBytes ?? DEFAULT_SIZE_BYTES;
    await rm(this.file, { force: true });
    await this.fail(false);
    await writeFile(this.file, '');
    await truncate(this.file, sizeBytes);
    if (this.spec.fill === undefined) return;
    const chunk = Buffer.alloc(4 * 2 ** 20, this.spec.fill);
    await using file = await open(this.file, 'r+');
    for (let offset = 0; offset < sizeBytes; offset += chunk.length) {
      await file.write(chunk, 0, Math.min(chunk.length, sizeBytes - offset), offset);
    }
  }

  /** Starts serving; returns when the socket is there. */
  async serve(): Promise<void> {
    await rm(this.socket, { force: true });
    await rm(this.#pidFile, { force: true });
    const log = path.join(this.#folder, `${this.spec.name}.nbdkit.log`);
    this.#keeper.spawn(
      'nbdkit',
      [
        ...['--foreground', '--unix', this.socket, '--pidfile', this.#pidFile, '--filter=error'],
        ...(this.spec.direct === true ? [] : ['--filter=cache']),
        // What is in the file is safe: this machine's power is not what is cut.
        ...['--filter=fua', 'file', `file=${this.file}`, 'fuamode=discard'],
        ...(this.spec.direct === true ? [] : [`cache=${this.dropFlushes ? 'unsafe' : 'writeback'}`]),
        // The error filter works only while that file exists.
        ...['error=EIO', 'error-rate=100%', `error-file=${this.#failFile}`],
      ],
      log,
      // The cache is a file without a name, and must not fill a small /tmp.
      { TMPDIR: this.#folder },
    );
    const deadline = performance.now() + READY_TIMEOUT_MS;
    // nbdkit writes its pid when it is ready to serve.
    while (!(await exists(this.#pidFile))) {
      if (performance.now() > deadline) {
        throw new LabError(`nbdkit does not start: ${await readFile(log, 'utf8').catch(() => '')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The server's pid in the lab's namespace, 0 when none runs: killing it loses what was never flushed. */
  async serverPid(): Promise<number> {
    return Number(await readFile(this.#pidFile, 'utf8').catch(() => '0'));
  }

  /** To be called when the server has been killed. */
  async forgetServer(): Promise<void> {
    await rm(this.#pidFile, { force: true });
  }

  /** From now on every read and write of the guest fails with EIO, or works again. */
  async fail(failing: boolean): Promise<void> {
    if (failing) await writeFile(this.#failFile, '');
    else await rm(this.#failFile, { force: true });
  }

  /** QMP commands that plug it into the port with this number, from 1. */
  plugCommands(port: number): Array<{ command: string; args: object }> {
    const { name, bus = 'virtio', fixedCache = false } = this.spec;
    const { controller, device } = BUSES[bus];
    const id = `controller-${name}`;
    return [
      {
        command: 'blockdev-add',
        args: { driver: 'nbd', 'node-name': name, server: { type: 'unix', path: this.socket }, discard: 'unmap' },
      },
      ...(controller === undefined
        ? []
        : [{ command: 'device_add', args: { driver: controller, id, bus: `port${port}` } }]),
      {
        command: 'device_add',
        args: {
          driver: device,
          id: `disk-${name}`,
          bus: controller === undefined ? `port${port}` : `${id}.0`,
          drive: name,
          serial: name,
          'write-cache': 'on',
          ...(bus === 'virtio' ? { 'config-wce': !fixedCache } : {}),
        },
      },
    ];
  }
}
