/** What sysfs says of a block device, and the switch that fails its I/O. Names as in /sys/block ("sda"). */
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';

const SECTOR_BYTES = 512;

export class BlockDevices {
  readonly #files: Files;
  readonly #sys: string;

  /** `sysRoot`: where the host's sysfs is seen, "/sys". */
  constructor(files: Files, sysRoot: string) {
    this.#files = files;
    this.#sys = sysRoot;
  }

  /** Does the kernel still know this device number? After a session's end a mounted file system outlives its device. */
  async exists(majorMinor: string): Promise<boolean> {
    return (await this.#files.stat(`${this.#sys}/dev/block/${majorMinor}`)) !== undefined;
  }

  /** Size now, in bytes; undefined when there is no such device. */
  async sizeBytes(majorMinor: string): Promise<number | undefined> {
    try {
      const text = await this.#files.readText(`${this.#sys}/dev/block/${majorMinor}/size`);
      return Number(text.trim()) * SECTOR_BYTES;
    } catch (error) {
      if (isCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /**
   * Devices stacked on the disk or on one of its partitions (device-mapper, md), e.g. ["dm-3"]: LVM on this host has
   * activated a guest's volume group, multipath has claimed it, a pod has opened LUKS.
   */
  async holders(name: string): Promise<string[]> {
    const folder = `${this.#sys}/block/${name}`;
    const entries = await this.#list(folder);
    const parts = entries.filter((entry) => entry.startsWith(name) && /^p?[0-9]+$/.test(entry.slice(name.length)));
    const lists = await Promise.all(
      [folder, ...parts.map((part) => `${folder}/${part}`)].map((path) => this.#list(`${path}/holders`)),
    );
    return [...new Set(lists.flat())].sort();
  }

  /** Type of the file system that the kernel has mounted from it, in whichever mount namespace; undefined when none is. */
  async mountedType(name: string): Promise<string | undefined> {
    for (const fsType of ['ext4', 'xfs']) {
      if ((await this.#files.stat(`${this.#sys}/fs/${fsType}/${name}`)) !== undefined) return fsType;
    }
    return undefined;
  }

  /**
   * Makes the kernel fail every further I/O of a SCSI disk at once, so that what is dirty in the page cache can never
   * reach it: the periodic writeback and the journal's commits go on until the disk is gone, which takes a logout.
   * (The removal itself writes nothing, MEASURED on 6.1: a disk in state "cancel" refuses I/O before del_gendisk syncs
   * it.) A disk that is gone is no error.
   */
  async failIo(name: string): Promise<void> {
    const attribute = `${this.#sys}/block/${name}/device/state`;
    try {
      // With its newline: state_store compares it too (drivers/scsi/scsi_sysfs.c).
      await this.#files.writeAttribute(attribute, 'offline\n');
    } catch (error) {
      if (isCode(error, 'ENOENT') || isCode(error, 'ENODEV')) return;
      // From transport-offline there is no way to offline (scsi_device_set_state): all I/O fails there already.
      if (!isCode(error, 'EINVAL')) throw error;
    }
    let state: string;
    try {
      state = (await this.#files.readText(attribute)).trim();
    } catch (error) {
      if (isCode(error, 'ENOENT') || isCode(error, 'ENODEV')) return;
      throw error;
    }
    // blocked: the session is down, sysfs takes no other state (sdev_store_state), and nothing reaches the disk. Its end
    // takes the disk to transport-offline, where all that is queued fails (iscsi_remove_session).
    if (!['offline', 'transport-offline', 'blocked', 'cancel', 'deleted'].includes(state)) {
      throw new FileSystemError('io', `disk ${name} could not be set offline; its state is "${state}"`);
    }
  }

  async #list(path: string): Promise<string[]> {
    try {
      return await this.#files.readdir(path);
    } catch (error) {
      if (isCode(error, 'ENOENT')) return [];
      throw error;
    }
  }
}

export function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
