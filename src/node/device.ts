/** From a session to the right disk: found by session and LUN, proven by its serial number, never by a name. */
import { DriverError } from '../errors.ts';
import { boundDeviceName, isDeleted, type MountEntry } from '../filesystem/mount-table.ts';
import type { IscsiSession, ScsiDisk } from '../iscsi/initiator/types.ts';
import { step } from '../system/step.ts';
import { FS_TYPES } from '../volumes/model.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { StillRunningError } from './outstanding.ts';
import type { StagedRecord } from './records.ts';
import { requireLoggedIn, sessionsOf } from './sessions.ts';

export interface DiskSpec {
  readonly volumeId: string;
  readonly session: IscsiSession;
  readonly lun: number;
  readonly serial: string;
  readonly minimumSizeBytes: number;
  /** The session was made by this very call: the kernel has just read serial and size. */
  readonly isFresh: boolean;
}

/**
 * @throws DriverError UNAVAILABLE while the disk is not there or too small, FAILED_PRECONDITION when it is another one
 */
export async function verifiedDisk(env: NodeEnvironment, spec: DiskSpec): Promise<ScsiDisk> {
  const { volumeId, session, lun } = spec;
  const found = await env.outstanding.run(
    volumeId,
    `finding LUN ${lun} of session ${session.sid}`,
    DEADLINES.findDisk,
    () => step('disk-find', () => env.initiator.findDisk(session, lun)),
  );
  if (found === undefined) {
    throw new DriverError('UNAVAILABLE', {
      problem: `volume ${volumeId}: its disk did not appear`,
      found: `session ${session.sid} to ${session.targetIqn} has no LUN ${lun}`,
      action: 'check dmesg on this node and the target on the storage host; the call is retried',
    });
  }
  let disk = found;
  // The kernel keeps serial and size from when it first saw the disk: what is behind a target may have been swapped
  // while the session was down. A rescan reads both again (scsi_rescan_device).
  if (!spec.isFresh || disk.sizeBytes < spec.minimumSizeBytes) disk = await rescanned(env, spec, disk);
  checkSerial(spec, disk);
  if (disk.sizeBytes < spec.minimumSizeBytes) {
    throw new DriverError('UNAVAILABLE', {
      problem: `volume ${volumeId}: its disk ${disk.name} is smaller than it must be`,
      found: `${disk.sizeBytes} bytes of ${spec.minimumSizeBytes}`,
      action: 'check the volume on the storage host; the call is retried',
    });
  }
  return disk;
}

function checkSerial({ volumeId, serial }: DiskSpec, disk: ScsiDisk): void {
  if (disk.serial === serial) return;
  if (disk.serial === undefined) {
    throw new DriverError('UNAVAILABLE', {
      problem: `volume ${volumeId}: the serial number of disk ${disk.name} cannot be read`,
      found: 'no VPD page 0x80',
      action: 'check dmesg on this node; the call is retried',
    });
  }
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId}: disk ${disk.name} is not this volume's`,
    found: `serial number ${JSON.stringify(disk.serial)} instead of "${serial}"`,
    action: 'the logical volume behind the target was swapped; nothing was mounted or written: check the storage host',
  });
}

async function rescanned(env: NodeEnvironment, spec: DiskSpec, disk: ScsiDisk): Promise<ScsiDisk> {
  const { volumeId } = spec;
  try {
    return await env.outstanding.run(volumeId, `rescanning disk ${disk.name}`, DEADLINES.device, () =>
      step('disk-rescan', () => env.initiator.rescan(disk)),
    );
  } catch (error) {
    if (error instanceof StillRunningError) throw error;
    // The initiator refuses when the disk has become another one: then say which.
    const now = (await env.initiator.disks(spec.session)).find(({ name }) => name === disk.name);
    if (now !== undefined && now.serial !== undefined) checkSerial(spec, now);
    throw error;
  }
}

/** The session under which the volume was staged, working. @throws DriverError FAILED_PRECONDITION, UNAVAILABLE */
export async function stagedSession(env: NodeEnvironment, record: StagedRecord): Promise<IscsiSession> {
  const { volumeId } = record;
  const session = (await sessionsOf(env, volumeId)).find(({ sid }) => sid === record.device.sid);
  if (session === undefined || record.bootId !== (await env.bootId())) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} is not staged any more`,
      found: `its iSCSI session ${record.device.sid} has ended`,
      action: 'stage it again (Kubernetes: delete the pod)',
    });
  }
  await requireLoggedIn(env, volumeId, session, record);
  return session;
}

/** The disk of a staged volume, with its size as it is now. */
export async function stagedDisk(env: NodeEnvironment, record: StagedRecord, minimumSizeBytes = 0): Promise<ScsiDisk> {
  const session = await stagedSession(env, record);
  const { volumeId, lun, serial } = record;
  return await verifiedDisk(env, { volumeId, session, lun, serial, minimumSizeBytes, isFresh: false });
}

/**
 * Is what is mounted there ours to take away without a flush: a file system of ours, or a bound device node, whose
 * device the kernel no longer knows? Other kinds of mounts (tmpfs, NFS) have no block device and are never "dead".
 */
export async function isDeadMount(env: NodeEnvironment, mount: MountEntry): Promise<boolean> {
  if (boundDeviceName(mount) !== undefined) return isDeleted(mount);
  if (!FS_TYPES.some((fsType) => fsType === mount.fsType)) return false;
  return !(await env.devices.exists(mount.majorMinor));
}

/** For messages. */
export function describeMount(mount: MountEntry): string {
  const name = boundDeviceName(mount);
  const what =
    name === undefined ? `${mount.source} (${mount.fsType}, device ${mount.majorMinor})` : `device node ${name}`;
  return `${what} at ${mount.mountPoint}`;
}
