/**
 * Taking away what is left of an earlier life of a volume on this node: an attachment that has ended, an earlier boot, a
 * session that ended under a mount. Its dirty pages belong to a volume that others may have written since: so its I/O is
 * made to fail first, and it is never flushed and never reused.
 *
 * The order matters. The kernel writes dirty pages back whenever it likes, for as long as the session works, and an
 * unmount of a working disk writes them all: hence offline, logout, unmount; and the record goes last, so that a crash
 * in between leaves it to be found stale again.
 */
import { DriverError } from '../errors.ts';
import { boundDeviceName, isDeleted, type MountEntry, mountAt, mountsOfDevice } from '../filesystem/mount-table.ts';
import type { IscsiSession } from '../iscsi/initiator/types.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';
import type { PublishContext } from '../volumes/publish-context.ts';
import { isDeadMount } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { isStaged, type NodeRecord } from './records.ts';
import { portalOf, sessionsOf } from './sessions.ts';

/** Why what is there cannot be this attachment's, in words; undefined when it is, or when there is nothing. */
export function staleReason(
  record: NodeRecord | undefined,
  sessions: readonly IscsiSession[],
  context: PublishContext,
  bootId: string,
): string | undefined {
  if (record === undefined) {
    return sessions.length === 0 ? undefined : 'a session that no record of this attachment explains';
  }
  if (record.nonce !== context.nonce) return 'it belongs to an earlier attachment';
  if (record.bootId !== bootId) return 'it is of an earlier boot of this node';
  if (record.targetIqn !== context.targetIqn) return `it is of target ${record.targetIqn}`;
  // Only a user that is there and differs: what could not be read is no reason to cut live I/O.
  const isOther = ({ chapUser }: IscsiSession): boolean => chapUser !== undefined && chapUser !== context.chap?.user;
  // The user's own credentials may change while the volume is attached; the nonce does not.
  if (context.authentication !== 'user' && sessions.some(isOther)) {
    return 'its session was made with the credentials of another attachment';
  }
  if (isStaged(record)) {
    return sessions.some(({ sid }) => sid === record.device.sid) ? undefined : 'its session has ended under it';
  }
  if (sessions.length > 1) return 'several sessions where at most one was begun';
  // Nothing was handed out yet, so nothing of anyone's can be lost; a new login tells why it is down.
  return sessions.some(({ state }) => state !== 'LOGGED_IN') ? 'its session broke before it was ever used' : undefined;
}

/** @throws DriverError ABORTED when not all of it could be ended: the call is retried. */
export async function clearStale(
  env: NodeEnvironment,
  spec: {
    volumeId: string;
    record: NodeRecord | undefined;
    sessions: readonly IscsiSession[];
    reason: string;
    /** Where the volume would be staged now. */
    stagingPath: string;
  },
): Promise<void> {
  const { volumeId, record, reason } = spec;
  log().warn(
    { volumeId, reason, sids: spec.sessions.map(({ sid }) => sid), nodeRecord: record?.phase },
    'ending what is left of an earlier life of the volume; its unwritten data is discarded',
  );
  const mounts = await endSessions(env, { ...spec, record });
  const known = new Set([spec.stagingPath, ...(record === undefined ? [] : recordedPaths(record))]);
  for (const mount of await env.mounts.list()) {
    if (!known.has(mount.mountPoint)) continue;
    const name = boundDeviceName(mount);
    const isOurNode = name !== undefined && name === record?.device?.name;
    if (isOurNode || (await isDeadMount(env, mount))) mounts.push(mount);
  }
  await detachMounts(env, mounts);
  await assertNoSession(env, volumeId);
  await deleteIscsiRecords(env, volumeId, record, spec.sessions);
  if (record !== undefined) await env.records.remove(volumeId);
}

function recordedPaths(record: NodeRecord): string[] {
  return [record.stagingPath, ...record.targets.map(({ path }) => path)];
}

/**
 * Fails the I/O of each session's disks and logs out, without any flush. Answers what was mounted from them, everywhere
 * on this host; that is dead now and still to be detached.
 */
export async function endSessions(
  env: NodeEnvironment,
  spec: { volumeId: string; record: NodeRecord | undefined; sessions: readonly IscsiSession[] },
): Promise<MountEntry[]> {
  const { volumeId, record } = spec;
  const mounts: MountEntry[] = [];
  const known = record === undefined ? [] : recordedPaths(record);
  for (const session of spec.sessions) {
    const disks = await env.outstanding.run(volumeId, `listing disks of session ${session.sid}`, DEADLINES.device, () =>
      env.initiator.disks(session),
    );
    const table = await env.mounts.list();
    for (const disk of disks) {
      mounts.push(...mountsOfDevice(table, disk));
      // Of a disk that had this name before: only where this volume was published.
      mounts.push(...table.filter((mount) => isDeadBind(mount, disk.name) && known.includes(mount.mountPoint)));
      await env.outstanding.run(volumeId, `setting disk ${disk.name} offline`, DEADLINES.device, () =>
        step('stale-disk-offline', () => env.devices.failIo(disk.name)),
      );
    }
    try {
      await logoutDiscarding(env, volumeId, session, record);
    } catch (error) {
      // iscsid.safe_logout refuses while something is mounted: detach that, then once more.
      if (mounts.length === 0) throw error;
      log().warn({ volumeId, sid: session.sid, err: error }, 'logout failed; detaching its mounts first');
      await detachMounts(env, mounts);
      await logoutDiscarding(env, volumeId, session, record);
    }
  }
  return mounts;
}

function isDeadBind(mount: MountEntry, name: string): boolean {
  return boundDeviceName(mount) === name && isDeleted(mount);
}

async function logoutDiscarding(
  env: NodeEnvironment,
  volumeId: string,
  session: IscsiSession,
  record: NodeRecord | undefined,
): Promise<void> {
  await env.outstanding.run(volumeId, `logging out of ${session.targetIqn}`, DEADLINES.logout, () =>
    step('stale-session-logout', () => env.initiator.logout(session.targetIqn, portalOf(session, record))),
  );
}

/**
 * Unmounts what has lost its device. A plain unmount first: it ends the file system, page cache and all. Where that
 * fails or hangs, a lazy one takes it out of everyone's sight; nothing can be written through it any more.
 */
export async function detachMounts(env: NodeEnvironment, mounts: readonly MountEntry[]): Promise<void> {
  // The latest first: a mount within or above another one has to go before it.
  for (const mount of [...mounts].reverse()) {
    const { mountPoint } = mount;
    const isThere = async (): Promise<boolean> => {
      const table = await env.mounts.list();
      const top = mountAt(table, mountPoint);
      if (top !== undefined && isSameMount(top, mount)) return true;
      if (top === undefined || !table.some((other) => isSameMount(other, mount))) return false;
      // umount takes the topmost one, and that is not ours.
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `what is left of an earlier life at ${mountPoint} cannot be unmounted`,
        found: `${top.source} (${top.fsType}) is mounted over it`,
        action: 'unmount that one by hand; the call is retried',
      });
    };
    if (!(await isThere())) continue;
    try {
      await env.outstanding.attempt(`unmounting ${mountPoint}`, DEADLINES.deadUnmount, () =>
        step('dead-unmount', () => env.mounts.unmount(mountPoint)),
      );
    } catch (error) {
      log().warn({ mountPoint, err: error }, 'a mount without its device is in use; unmounting it lazily');
    }
    if (!(await isThere())) continue;
    await env.outstanding.attempt(`unmounting ${mountPoint} lazily`, DEADLINES.deadUnmount, () =>
      step('dead-unmount-lazy', () => env.mounts.unmount(mountPoint, { lazy: true })),
    );
    if (await isThere()) {
      throw new DriverError('ABORTED', {
        problem: `${mountPoint} could not be unmounted, not even lazily`,
        found: `${mount.source} whose device is gone`,
        action: 'unmount it by hand; the call is retried',
      });
    }
  }
}

function isSameMount(a: MountEntry, b: MountEntry): boolean {
  return a.mountPoint === b.mountPoint && a.majorMinor === b.majorMinor && boundDeviceName(a) === boundDeviceName(b);
}

/** Of an attachment that the target has revoked: queued I/O fails, mounts go, unwritten data is discarded. */
export async function discardRevoked(
  env: NodeEnvironment,
  spec: { volumeId: string; record: NodeRecord | undefined; sessions: readonly IscsiSession[] },
): Promise<void> {
  const { volumeId, sessions } = spec;
  log().warn(
    { volumeId, sids: sessions.map(({ sid }) => sid), targetIqn: sessions[0]?.targetIqn },
    'the attachment was revoked: unwritten data of the volume is discarded',
  );
  await detachMounts(env, await endSessions(env, spec));
}

/** A logout that answered "done" is believed only when sysfs agrees. */
export async function assertNoSession(env: NodeEnvironment, volumeId: string): Promise<void> {
  const [left] = await sessionsOf(env, volumeId);
  if (left === undefined) return;
  throw new DriverError('ABORTED', {
    problem: `volume ${volumeId}: its iSCSI session has not ended`,
    found: `session ${left.sid} to ${left.targetIqn}, ${left.state}`,
    action: "the call is retried; if it stays, look at iscsid's log on this node",
  });
}

/** Of every portal: a logout takes its own portal's record along, and a login at another one had made one too. */
export async function deleteIscsiRecords(
  env: NodeEnvironment,
  volumeId: string,
  record: NodeRecord | undefined,
  sessions: readonly IscsiSession[],
): Promise<void> {
  const targets = new Set(sessions.map(({ targetIqn }) => targetIqn));
  if (record !== undefined) targets.add(record.targetIqn);
  for (const targetIqn of targets) await deleteIscsiRecord(env, volumeId, targetIqn);
}

export async function deleteIscsiRecord(env: NodeEnvironment, volumeId: string, targetIqn: string): Promise<void> {
  await env.outstanding.run(volumeId, `deleting the iSCSI node record of ${targetIqn}`, DEADLINES.logout, () =>
    step('iscsi-record-delete', () => env.initiator.deleteRecord(targetIqn)),
  );
}
