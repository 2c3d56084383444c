/** The dmsetup calls that gates need, through the process runner. */
import { CommandError, type Commands } from '../system/commands.ts';
import { type DmDevice, parseDmDevices } from './dm-table.ts';

/**
 * A change of the table says nothing new to udev, and a fence must not wait for a udev that itself waits for the LV:
 * only create and remove, which make and remove the node, wait for it (dmsetup's own cookie).
 */
const NO_UDEV_SYNC = '--noudevsync';

export class Dmsetup {
  readonly #commands: Commands;

  constructor(commands: Commands) {
    this.#commands = commands;
  }

  /** Every device-mapper device of the host. Never blocks on a suspended one. */
  async devices(): Promise<DmDevice[]> {
    return parseDmDevices(await this.#read(['table', '-v']));
  }

  /** undefined when the kernel says that there is no such device, and only then. */
  async device(name: string): Promise<DmDevice | undefined> {
    let stdout: string;
    try {
      stdout = await this.#read(['table', '-v', name]);
    } catch (error) {
      if (isNoSuchDevice(error)) return undefined;
      throw error;
    }
    return parseDmDevices(stdout).find((device) => device.name === name);
  }

  /**
   * One dmsetup: create, load, resume; undone by dmsetup itself when the table is refused. Waits for udev, whose rules know
   * the device by its uuid and leave what is on it alone (roles/udev-rules.ts): dmsetup has no option for that.
   */
  async create(name: string, uuid: string, table: string): Promise<void> {
    await this.#change(['create', name, '--uuid', uuid, '--table', table]);
  }

  /** Loads the inactive table; resume makes it live. */
  async reload(name: string, table: string): Promise<void> {
    await this.#change(['reload', name, '--table', table]);
  }

  /**
   * DM_DEV_SUSPEND without the suspend flag: with an inactive table loaded the kernel drains in-flight I/O, swaps the
   * tables and resumes in this one ioctl (do_resume in drivers/md/dm-ioctl.c).
   */
  async resume(name: string): Promise<void> {
    await this.#change(['resume', NO_UDEV_SYNC, name]);
  }

  /** Tries all of them, whatever happens to one; a single dmsetup would stop at the first failure. */
  async resumeEach(names: readonly string[]): Promise<void> {
    const results = await Promise.allSettled(names.map((name) => this.resume(name)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Drops the inactive table. */
  async clear(name: string): Promise<void> {
    await this.#change(['clear', name]);
  }

  /** Loads an error table of the same size and resumes: returns when all in-flight I/O has ended and the table is live. */
  async wipeTable(name: string): Promise<void> {
    await this.#change(['wipe_table', NO_UDEV_SYNC, name]);
  }

  async remove(name: string): Promise<void> {
    await this.#change(['remove', name]);
  }

  /** Makes a node that udev has not made. */
  async makeNode(name: string): Promise<void> {
    await this.#change(['mknodes', name]);
  }

  async #read(args: readonly string[]): Promise<string> {
    return (await this.#commands.run({ file: 'dmsetup', args, kind: 'read' })).stdout;
  }

  async #change(args: readonly string[]): Promise<void> {
    await this.#commands.run({ file: 'dmsetup', args, kind: 'mutate' });
  }
}

/** ENXIO of the ioctl; dmsetup's exit code is 1 for every failure. */
export function isNoSuchDevice(error: unknown): boolean {
  return error instanceof CommandError && /No such device or address|Device does not exist/.test(error.stderr);
}

/** EINVAL of the ioctl: among other things, that somebody else's change of the table has come in between. */
export function isInvalid(error: unknown): boolean {
  return error instanceof CommandError && error.stderr.includes('Invalid argument');
}

/** EBUSY of the ioctl: create found the name or the uuid taken, remove found the device open. */
export function isBusy(error: unknown): boolean {
  return error instanceof CommandError && error.stderr.includes('Device or resource busy');
}
