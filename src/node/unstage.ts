/**
 * NodeUnstageVolume, from the state record, the sessions and the mount table alone (it gets no publish_context).
 *
 * Session up: everything is written first; while that fails nothing is torn down. Session down and the attachment
 * revoked for certain (standing.ts): what is unwritten can never be written, and another node may own the volume:
 * discarded, with a line in the log. Session down for another or an unknown reason: it may come back with the data still
 * wanted, so nothing is changed and the call is retried.
 */
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import { FileSystemError } from '../filesystem/errors.ts';
import { type MountEntry, mountsOfDevice } from '../filesystem/mount-table.ts';
import { IscsiError } from '../iscsi/initiator/errors.ts';
import type { IscsiSession, ScsiDisk } from '../iscsi/initiator/types.ts';
import { CommandError } from '../system/commands.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';
import { describeMount, isDeadMount } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { assertNotHeld } from './exclusive.ts';
import { LostData } from './lost-data.ts';
import type { NodeRecord } from './records.ts';
import { portalOf, sessionDown, sessionsOf } from './sessions.ts';
import { assertNoSession, deleteIscsiRecords, detachMounts, discardRevoked } from './stale.ts';
import { standingOf } from './standing.ts';

interface Unstaging {
  readonly volumeId: string;
  readonly stagingPath: string;
  readonly record: NodeRecord | undefined;
  readonly lost: LostData;
}

export async function unstageVolume(env: NodeEnvironment, volumeId: string, path: string): Promise<void> {
  env.outstanding.assertIdle(volumeId);
  const stagingPath = await env.resolve(path);
  const record = await env.records.load(volumeId);
  const sessions = await sessionsOf(env, volumeId);
  const unstaging = { volumeId, stagingPath, record, lost: new LostData(env, volumeId, record) };
  await checkStagedHere(env, unstaging);
  // All of them are judged before anything is torn down.
  const revoked: IscsiSession[] = [];
  for (const session of sessions) {
    if (await isRevoked(env, unstaging, session)) revoked.push(session);
  }
  const working = sessions.filter((session) => !revoked.includes(session));
  const disks = new Map<IscsiSession, ScsiDisk[]>();
  for (const session of sessions) disks.set(session, await disksOf(env, volumeId, session));
  await checkUnused(env, unstaging, [...disks.values()].flat(), revoked.length > 0);

  if (working.length > 0) await flushAndUnmount(env, unstaging, [...disks.values()].flat());
  for (const disk of working.flatMap((session) => disks.get(session) ?? [])) {
    // Its removal would break what still writes: a repair or a journal's replay that outlived the call that began it, or
    // the file system itself, alive in another mount namespace.
    await assertNotHeld(env, volumeId, disk, { patienceMs: DEADLINES.release });
  }
  for (const session of working) await detachSession(env, unstaging, session, disks.get(session) ?? []);
  if (revoked.length > 0) await discardRevoked(env, { volumeId, record, sessions: revoked });
  await detachLeftover(env, unstaging, sessions.length === 0);
  await assertNoSession(env, volumeId);
  await deleteIscsiRecords(env, volumeId, record, sessions);
  unstaging.lost.report();
  await env.records.remove(volumeId);
}

async function checkStagedHere(env: NodeEnvironment, { volumeId, stagingPath, record }: Unstaging): Promise<void> {
  if (record === undefined || record.stagingPath === stagingPath) return;
  const mount = await env.mounts.at(record.stagingPath);
  if (mount === undefined || (await isDeadMount(env, mount))) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} is not staged at ${stagingPath}`,
    found: `it is staged at ${record.stagingPath}`,
    action: 'unstage it there',
  });
}

/** @throws DriverError UNAVAILABLE while the session is down and nobody can say whether it was revoked */
async function isRevoked(
  env: NodeEnvironment,
  { volumeId, record }: Unstaging,
  session: IscsiSession,
): Promise<boolean> {
  if (session.state === 'LOGGED_IN') return false;
  const standing = await standingOf(env, volumeId, session, record);
  if (standing.kind !== 'undecided') return standing.kind === 'revoked';
  throw sessionDown(volumeId, session, standing.why);
}

async function disksOf(env: NodeEnvironment, volumeId: string, session: IscsiSession): Promise<ScsiDisk[]> {
  return await env.outstanding.run(volumeId, `listing disks of session ${session.sid}`, DEADLINES.device, () =>
    env.initiator.disks(session),
  );
}

/** Published still, or stacked upon: nothing is torn down. */
async function checkUnused(
  env: NodeEnvironment,
  { volumeId, stagingPath }: Unstaging,
  disks: readonly ScsiDisk[],
  isLost: boolean,
): Promise<void> {
  const table = await env.mounts.list();
  for (const disk of disks) {
    const other = mountsOfDevice(table, disk).find(({ mountPoint }) => mountPoint !== stagingPath);
    if (other !== undefined) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `volume ${volumeId} cannot be unstaged: it is still published`,
        found: `${describeMount(other)}`,
        action: 'unpublish it there first',
      });
    }
    // A device on top of a disk that is lost anyway goes down with it.
    const holders = isLost ? [] : await env.devices.holders(disk.name);
    if (holders.length > 0) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `volume ${volumeId} cannot be unstaged: its disk ${disk.name} is in use`,
        found: `device ${holders.join(', ')} on top of it`,
        action: 'remove that device (dmsetup ls --tree, vgchange -an); the call is retried',
      });
    }
  }
}

async function flushAndUnmount(
  env: NodeEnvironment,
  { volumeId, stagingPath, lost }: Unstaging,
  disks: readonly ScsiDisk[],
): Promise<void> {
  for (;;) {
    const mount = await env.mounts.at(stagingPath);
    const disk = disks.find(({ majorMinor }) => majorMinor === mount?.majorMinor);
    if (mount === undefined || disk === undefined) return;
    if (!disk.readOnly && hasTurnedReadOnly(mount)) {
      log().error({ volumeId, stagingPath, options: mount.superOptions }, 'the file system has turned read-only');
      await lost.note('the file system had turned read-only after an error (errors=remount-ro)');
    }
    // umount itself swallows write errors: so the file system is synced first, and its answer counts.
    const { flushTimeoutMs } = env.config;
    try {
      await env.outstanding.run(volumeId, `writing the data of ${stagingPath}`, flushTimeoutMs + DEADLINES.device, () =>
        step('staging-sync', () => env.mounts.sync(stagingPath, flushTimeoutMs)),
      );
    } catch (error) {
      if (hasFailed(error)) await lost.note(`the file system's data could not be written: ${(error as Error).message}`);
      if (!(await isShutDown(env, error, stagingPath))) throw error;
      log().error(
        { volumeId, stagingPath, err: error },
        'the file system has shut itself down: its unwritten data is lost',
      );
    }
    await env.outstanding.run(volumeId, `unmounting ${stagingPath}`, DEADLINES.unmount, () =>
      step('staging-unmount', () => env.mounts.unmount(stagingPath)),
    );
  }
}

/** For writing when it was mounted: a mount for reading says so of itself, an error makes only the superblock read-only. */
function hasTurnedReadOnly(mount: MountEntry): boolean {
  if (mount.options.includes('ro')) return false;
  return ['ro', 'emergency_ro', 'shutdown'].some((option) => mount.superOptions.includes(option));
}

/** An error that the kernel has reported, and will not report again. */
function hasFailed(error: unknown): boolean {
  if (error instanceof IscsiError) return error.kind === 'flush-failed';
  if (!(error instanceof FileSystemError) || error.kind !== 'io') return false;
  return error.cause instanceof CommandError && error.cause.exitCode !== undefined;
}

/**
 * XFS shuts down after an I/O error that it cannot write around: from then on each of its calls answers EIO, a look at
 * its root as well, and it never writes again. Waiting for a flush would keep the volume here for ever.
 */
async function isShutDown(env: NodeEnvironment, error: unknown, stagingPath: string): Promise<boolean> {
  if (!(error instanceof FileSystemError) || error.kind !== 'io') return false;
  try {
    await env.files.stat(`${env.config.hostRoot}${stagingPath}`);
    return false;
  } catch (failure) {
    return isCode(failure, 'EIO');
  }
}

/** Disk flushed and removed, session ended. A failed flush ends it here, with the session still up. */
async function detachSession(
  env: NodeEnvironment,
  { volumeId, record, lost }: Unstaging,
  session: IscsiSession,
  disks: readonly ScsiDisk[],
): Promise<void> {
  const timeoutMs = env.config.flushTimeoutMs;
  for (const disk of disks) {
    try {
      await env.outstanding.run(volumeId, `flushing and removing disk ${disk.name}`, timeoutMs + DEADLINES.device, () =>
        step('disk-remove', () => env.initiator.removeDisk(disk, { flush: true, timeoutMs })),
      );
    } catch (error) {
      if (hasFailed(error)) await lost.note(`disk ${disk.name} could not be flushed`);
      throw error;
    }
  }
  await env.outstanding.run(volumeId, `logging out of ${session.targetIqn}`, DEADLINES.logout, () =>
    step('session-logout', () => env.initiator.logout(session.targetIqn, portalOf(session, record))),
  );
}

/** A mount at the staging path whose device has gone, with the session or before it. */
async function detachLeftover(
  env: NodeEnvironment,
  { volumeId, stagingPath }: Unstaging,
  hadNoSession: boolean,
): Promise<void> {
  for (let mount: MountEntry | undefined; ; ) {
    mount = await env.mounts.at(stagingPath);
    if (mount === undefined) return;
    if (!(await isDeadMount(env, mount))) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `volume ${volumeId} cannot be unstaged at ${stagingPath}`,
        found: `${describeMount(mount)}, which is not a disk of this volume`,
        action: 'unmount it by hand; the call is retried',
      });
    }
    if (hadNoSession) {
      log().warn({ volumeId, stagingPath }, 'the session had ended under the mount: unwritten data is lost');
    }
    await detachMounts(env, [mount]);
  }
}
