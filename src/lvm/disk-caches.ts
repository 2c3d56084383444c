/**
 * The volatile write caches of the disks below the volume group. A power cut takes what such a cache has acknowledged and
 * not yet written. A local file system ends with its host and looks at what is there when it comes back; a node's goes on
 * as if nothing had been: the flush of its next fsync is answered by the disk after the boot, and covers writes that are
 * gone (measured: an fsync that was under way at the cut was acknowledged minutes later, and its block was zeros on 4 of
 * 20 volumes). LIO has no way to make iblock write through (REQ_FUA is dropped by a queue without a cache, and a queue
 * with one is shown to the initiator as such), and an initiator passes over the unit attention after a power-on. So what
 * the target acknowledges must be durable by itself: the disk's own cache is turned off, where there is a switch.
 */
import type { Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import { absentAs } from './block-devices.ts';
import { NvmeCaches, whyNvmeFailed } from './nvme-cache.ts';

export interface DiskCachesOptions {
  readonly commands: Commands;
  readonly files: Files;
  /** Prefix under which the host's files are seen; '' when this process is in the host's mount namespace. */
  readonly hostRoot: string;
  /** keep: what a cache holds is said to outlast a power cut (battery, capacitors). */
  readonly policy: 'off' | 'keep';
}

/** What the block layer calls a cache that must be flushed (Documentation/block/writeback_cache_control.rst). */
const VOLATILE = 'write back';
const THROUGH = 'write through';

export class DiskCaches {
  readonly #options: DiskCachesOptions;
  readonly #nvme: NvmeCaches;
  #devices: readonly string[] = [];
  #volatile: readonly string[] = [];
  /** False also when the last look failed: then nothing is known of them. */
  #isKnown = false;
  /** That it is not told again at each look. */
  #told = '';
  /** Likewise, for each disk. */
  readonly #nvmeTold = new Map<string, string>();

  constructor(options: DiskCachesOptions) {
    this.#options = options;
    this.#nvme = new NvmeCaches(options);
  }

  /** Kernel names of the disks whose cache was volatile at the last look, and stayed so. */
  get volatile(): readonly string[] {
    return this.#volatile;
  }

  /** What is to be durable must be flushed: some cache is, or may be, volatile, and nobody has said that it outlasts a power cut. */
  get mustFlush(): boolean {
    return this.#options.policy === 'off' && (!this.#isKnown || this.#volatile.length > 0);
  }

  /** Looks at the disks below these devices (kernel names, as sda1 or md127), and from now on `look` does. Never throws. */
  async watch(devices: readonly string[]): Promise<void> {
    this.#devices = devices;
    await this.look();
  }

  /** Again: a disk that was reset has its cache as it leaves the factory. Never throws. */
  async look(): Promise<void> {
    try {
      const disks = new Set((await Promise.all(this.#devices.map((name) => this.#disksBelow(name)))).flat());
      const left: string[] = [];
      for (const disk of [...disks].sort()) {
        if (await this.#staysVolatile(disk)) left.push(disk);
      }
      this.#volatile = left;
      this.#isKnown = true;
      this.#tell();
    } catch (error) {
      this.#isKnown = false;
      log().warn({ err: error, devices: this.#devices }, 'the write caches of the disks could not be looked at');
    }
  }

  /** Itself, or what it is a partition of, or stands on (md, dm-crypt, multipath). */
  async #disksBelow(name: string): Promise<string[]> {
    const { files } = this.#options;
    const folder = this.#block(name);
    const standsOn = await absentAs([], files.readdir(`${folder}/slaves`));
    if (standsOn.length > 0) return (await Promise.all(standsOn.map((below) => this.#disksBelow(below)))).flat();
    if ((await files.stat(`${folder}/partition`)) === undefined) return [name];
    const whole = (await files.readlink(folder)).split('/').at(-2);
    return whole === undefined ? [] : await this.#disksBelow(whole);
  }

  /** Whatever could be done. */
  async #staysVolatile(disk: string): Promise<boolean> {
    if (!(await this.#isVolatile(disk))) return false;
    const controllers = await this.#nvme.controllersOf(disk);
    if (controllers.length > 0) return !(await this.#isOffNvme(disk, controllers));
    return this.#options.policy === 'keep' || !(await this.#turnOff(disk));
  }

  async #isVolatile(disk: string): Promise<boolean> {
    const text = await absentAs('', this.#options.files.readText(`${this.#block(disk)}/queue/write_cache`));
    return text.trim() === VOLATILE;
  }

  /** @returns whether it is off now */
  async #turnOff(disk: string): Promise<boolean> {
    for (const path of await this.#switches(disk)) {
      try {
        await step('disk-cache-off', () => this.#options.files.writeAttribute(path, THROUGH));
      } catch (error) {
        log().warn({ err: error, disk }, 'the disk does not let its volatile write cache be turned off');
        continue;
      }
      if (await this.#isVolatile(disk)) continue;
      tellOff(disk);
      return true;
    }
    return false;
  }

  /** Turned off now, or before: the queue goes on saying that it is volatile, so the controller is asked each time. */
  async #isOffNvme(disk: string, controllers: readonly string[]): Promise<boolean> {
    try {
      if (await this.#nvme.isOff(controllers)) return true;
      if (this.#options.policy === 'keep') return false;
      await this.#nvme.turnOff(controllers);
      if (!(await this.#nvme.isOff(controllers))) return false;
      tellOff(disk);
      return true;
    } catch (error) {
      const why = whyNvmeFailed(error);
      if (this.#nvmeTold.get(disk) !== why)
        log().warn({ err: error, disk }, `no answer about the volatile write cache of ${disk}: ${why}`);
      this.#nvmeTold.set(disk, why);
      return false;
    }
  }

  /** virtio_blk has the switch at the disk, sd (SAS, SATA) at the SCSI device. */
  async #switches(disk: string): Promise<string[]> {
    const { files } = this.#options;
    const own = `${this.#block(disk)}/cache_type`;
    const scsi = `${this.#block(disk)}/device/scsi_disk`;
    const addresses = await absentAs([], files.readdir(scsi));
    const candidates = [own, ...addresses.map((address) => `${scsi}/${address}/cache_type`)];
    const found = await Promise.all(candidates.map((path) => files.stat(path)));
    return candidates.filter((_, index) => found[index] !== undefined);
  }

  #tell(): void {
    const told = this.#volatile.join(' ');
    if (told === this.#told) return;
    this.#told = told;
    if (this.#volatile.length === 0) return;
    const disks = { disks: this.#volatile };
    if (this.#options.policy === 'keep') log().info(disks, 'volatile write caches of disks are kept, as configured');
    else {
      log().warn(
        disks,
        'the volatile write cache of these disks cannot be turned off from here: a power cut of this host loses what nodes were told is written; turn it off (hdparm -W0; of NVMe the package nvme-cli is needed), or, when it outlasts a power cut, say so by --disk-write-cache keep',
      );
    }
  }

  #block(name: string): string {
    return `${this.#options.hostRoot}/sys/class/block/${name}`;
  }
}

function tellOff(disk: string): void {
  log().info(
    { disk },
    'the volatile write cache of a disk is turned off: a power cut would take what nodes were told is written',
  );
}
