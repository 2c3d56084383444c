/**
 * SCSI disks of a session, through sysfs alone: udev may be absent, and its by-path links may be stale. A disk's name
 * (sda) is used again as soon as it is free, so a name is trusted only together with device number, serial and wwid.
 */
import type { Commands } from '../../system/commands.ts';
import { CommandError } from '../../system/commands.ts';
import { log } from '../../system/context.ts';
import { FileTimeoutError } from '../../system/files.ts';
import { step } from '../../system/step.ts';
import { errorCode, explainMissingProgram, IscsiError, isGone } from './errors.ts';
import { PATIENT, pollUntil } from './poll.ts';
import type { Sysfs } from './sysfs.ts';
import type { IscsiSession, ScsiDisk } from './types.ts';

const SECTOR_BYTES = 512;
const POLL_MS = 20;
/** INQUIRY and friends are answered in milliseconds; a session that fails meanwhile makes the scan wait. */
const SCAN_TIMEOUT_MS = 60_000;
/** The scan itself adds the unit (drivers/scsi/scsi_scan.c); this much later there is none. */
const UNIT_TIMEOUT_MS = 2_000;
/** The disk on top of the unit follows in the background (sd's asynchronous probe), the later the more come at once. */
const DISK_TIMEOUT_MS = 60_000;
/** 4 bytes of header and at most 255 of serial; LIO's has a trailing NUL. */
const VPD_PAGE_BYTES = 260;

export interface DisksOptions {
  readonly sysfs: Sysfs;
  readonly commands: Commands;
  /** Prefix of the host's root, for /dev. */
  readonly hostRoot: string;
}

export class Disks {
  readonly #sysfs: Sysfs;
  readonly #commands: Commands;
  readonly #hostRoot: string;

  constructor(options: DisksOptions) {
    this.#sysfs = options.sysfs;
    this.#commands = options.commands;
    this.#hostRoot = options.hostRoot;
  }

  /** See Initiator.disks. */
  async list(session: IscsiSession, lun?: number): Promise<ScsiDisk[]> {
    const disks: ScsiDisk[] = [];
    for (const unit of await this.#units(session, lun)) {
      for (const name of await this.#sysfs.names(`${unit}/block`)) {
        const disk = await this.#read(name);
        if (disk !== undefined) disks.push(disk);
      }
    }
    return disks;
  }

  /** Folders of the session's SCSI units ("host:channel:target:lun"), with or without a disk. */
  async #units(session: IscsiSession, lun?: number): Promise<string[]> {
    const base = `class/iscsi_session/session${session.sid}/device`;
    const units: string[] = [];
    for (const target of await this.#sysfs.names(base)) {
      if (!/^target[0-9]+:[0-9]+:[0-9]+$/.test(target)) continue;
      for (const unit of await this.#sysfs.names(`${base}/${target}`)) {
        const unitLun = /^[0-9]+:[0-9]+:[0-9]+:([0-9]+)$/.exec(unit)?.[1];
        if (unitLun === undefined || (lun !== undefined && Number(unitLun) !== lun)) continue;
        units.push(`${base}/${target}/${unit}`);
      }
    }
    return units;
  }

  /** See Initiator.findDisk. @throws IscsiError timeout, other */
  async find(session: IscsiSession, lun: number): Promise<ScsiDisk | undefined> {
    const present = await this.#usable(session, lun);
    if (present !== undefined) return present;
    // Each iscsi_tcp session has a SCSI host of its own with one target; "channel target lun" scans exactly this LUN.
    const targetId = (await this.#sysfs.value(`class/iscsi_session/session${session.sid}/target_id`)) ?? '0';
    const scan = this.#sysfs.path(`class/scsi_host/host${session.hostNumber}/scan`);
    try {
      await step('iscsi-scan', () =>
        this.#sysfs.files.writeAttribute(scan, `0 ${targetId} ${lun}`, { timeoutMs: SCAN_TIMEOUT_MS }),
      );
    } catch (error) {
      throw this.#explain(error, `scanning LUN ${lun} of ${session.targetIqn} (session ${session.sid})`);
    }
    const unit = async (): Promise<string | undefined> => (await this.#units(session, lun))[0];
    if ((await pollUntil(unit, { timeoutMs: UNIT_TIMEOUT_MS, intervalMs: POLL_MS })) === undefined) return undefined;
    return await pollUntil(() => this.#usable(session, lun), { timeoutMs: DISK_TIMEOUT_MS, intervalMs: POLL_MS });
  }

  /** See Initiator.rescan. @throws IscsiError timeout, other */
  async rescan(disk: ScsiDisk): Promise<ScsiDisk> {
    await this.#expectSame(disk);
    const path = this.#sysfs.path(`block/${disk.name}/device/rescan`);
    try {
      await step('iscsi-rescan', () => this.#sysfs.files.writeAttribute(path, '1', { timeoutMs: SCAN_TIMEOUT_MS }));
    } catch (error) {
      throw this.#explain(error, `rescanning ${disk.path}`);
    }
    return await this.#expectSame(disk);
  }

  /** See Initiator.removeDisk. @throws IscsiError in-use, flush-failed, timeout */
  async remove(disk: ScsiDisk, options: { flush: boolean; timeoutMs: number }): Promise<void> {
    const deadline = Date.now() + options.timeoutMs;
    const leftMs = (): number => Math.max(1, deadline - Date.now());
    if (!(await this.#isSame(disk))) return;
    if (options.flush) {
      await this.#refuseHolders(disk);
      await this.#flush(disk, leftMs());
    } else {
      log().warn(
        { disk: disk.name, serial: disk.serial },
        'removing a disk without a flush: unwritten data is discarded',
      );
    }
    const path = this.#sysfs.path(`block/${disk.name}/device/delete`);
    try {
      await step('iscsi-disk-delete', () => this.#sysfs.files.writeAttribute(path, '1', { timeoutMs: leftMs() }));
    } catch (error) {
      if (!isGone(error)) throw this.#explain(error, `removing ${disk.path}`);
    }
    const gone = await pollUntil(async () => ((await this.#isSame(disk)) ? undefined : true), {
      timeoutMs: leftMs(),
      intervalMs: POLL_MS,
    });
    if (gone !== true) {
      throw new IscsiError(
        'timeout',
        `${disk.path} was told to go ${options.timeoutMs} ms ago and is still there; to do: see what uses it (lsblk, fuser -vm ${disk.path})`,
      );
    }
  }

  /**
   * fsync(2) of the block device: writes its dirty pages, then sends SYNCHRONIZE CACHE, and reports the error of either.
   * Not `blockdev --flushbufs`: BLKFLSBUF sends no SYNCHRONIZE CACHE and drops write errors (block/ioctl.c). coreutils'
   * sync(1) with a file name is exactly fsync. Killing it at the deadline harms nothing: the disk stays.
   */
  async #flush(disk: ScsiDisk, timeoutMs: number): Promise<void> {
    try {
      await step('iscsi-disk-flush', () =>
        this.#commands.run({ file: 'sync', args: [disk.path], kind: 'read', timeoutMs }),
      );
    } catch (error) {
      if (error instanceof CommandError && error.timedOut) {
        throw new IscsiError(
          'timeout',
          `writing back ${disk.path} did not end within ${timeoutMs} ms; to do: see whether its storage host answers`,
          { cause: error },
        );
      }
      if (error instanceof CommandError && error.exitCode !== undefined) {
        throw new IscsiError(
          'flush-failed',
          `writing back ${disk.path} failed, data may be lost; to do: see "dmesg" and the storage host`,
          { cause: error },
        );
      }
      throw explainMissingProgram(error, 'sync');
    }
  }

  /** LVM, dm-crypt or md of this node on top of the disk may hold data that a flush of the disk does not reach. */
  async #refuseHolders(disk: ScsiDisk): Promise<void> {
    const holders = await this.#sysfs.names(`block/${disk.name}/holders`);
    if (holders.length === 0) return;
    throw new IscsiError(
      'in-use',
      `${disk.path} is still used by ${holders.join(', ')} on this node; to do: deactivate it (dmsetup ls --tree, vgchange -an)`,
    );
  }

  /** The disk, once its device node is there too and is this very device. */
  async #usable(session: IscsiSession, lun: number): Promise<ScsiDisk | undefined> {
    const [disk] = await this.list(session, lun);
    if (disk === undefined) return undefined;
    const node = await this.#sysfs.files.stat(`${this.#hostRoot}${disk.path}`, PATIENT);
    return node?.kind === 'block' && node.rdev === disk.majorMinor ? disk : undefined;
  }

  async #isSame(disk: ScsiDisk): Promise<boolean> {
    const now = await this.#read(disk.name);
    return now?.majorMinor === disk.majorMinor && now.serial === disk.serial && now.wwid === disk.wwid;
  }

  async #expectSame(disk: ScsiDisk): Promise<ScsiDisk> {
    const now = await this.#read(disk.name);
    if (now !== undefined && (await this.#isSame(disk))) return now;
    throw new IscsiError('other', `${disk.path} is not the disk with serial ${disk.serial ?? '(none)'} any more`);
  }

  /** undefined when there is no such disk, or it goes while it is read. */
  async #read(name: string): Promise<ScsiDisk | undefined> {
    const base = `block/${name}`;
    const [majorMinor, sectors, readOnly, wwid, serial] = await Promise.all([
      this.#sysfs.attribute(`${base}/dev`),
      this.#sysfs.attribute(`${base}/size`),
      this.#sysfs.attribute(`${base}/ro`),
      this.#sysfs.value(`${base}/device/wwid`),
      this.#serial(name),
    ]);
    if (majorMinor === undefined || sectors === undefined || readOnly === undefined) return undefined;
    return {
      name,
      path: `/dev/${name}`,
      majorMinor,
      serial,
      wwid,
      sizeBytes: Number(sectors) * SECTOR_BYTES,
      readOnly: readOnly !== '0',
    };
  }

  /** VPD page 0x80, as the kernel read it when it scanned the disk (SPC-4 7.8.15): no I/O here, also on a dead session. */
  async #serial(name: string): Promise<string | undefined> {
    try {
      const path = this.#sysfs.path(`block/${name}/device/vpd_pg80`);
      return parseSerialPage(await this.#sysfs.files.readBytes(path, 0, VPD_PAGE_BYTES, PATIENT));
    } catch (error) {
      if (isGone(error) || errorCode(error) === 'EINVAL') return undefined;
      throw error;
    }
  }

  #explain(error: unknown, doing: string): unknown {
    if (error instanceof FileTimeoutError) {
      return new IscsiError('timeout', `${doing} did not end in time; the storage host may not answer`, {
        cause: error,
      });
    }
    if (isGone(error)) return new IscsiError('other', `${doing} failed: it has gone meanwhile`, { cause: error });
    return error;
  }
}

/** The unit serial number in VPD page 0x80; undefined when it is not that page or empty. */
export function parseSerialPage(page: Uint8Array): string | undefined {
  if (page.length < 4 || page[1] !== 0x80) return undefined;
  const length = ((page[2] ?? 0) << 8) | (page[3] ?? 0);
  const text = Buffer.from(page.subarray(4, 4 + length))
    .toString('latin1')
    .replace(/\0+$/, '')
    .trim();
  return text === '' ? undefined : text;
}
