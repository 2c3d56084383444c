/** NodeUnpublishVolume: the bind mount and the target path go; nothing below a target is ever deleted. */
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import { FileSystemError } from '../filesystem/errors.ts';
import { type MountEntry, mountsOfDevice } from '../filesystem/mount-table.ts';
import type { IscsiSession, ScsiDisk } from '../iscsi/initiator/types.ts';
import { log } from '../system/context.ts';
import { FileTimeoutError } from '../system/files.ts';
import { step } from '../system/step.ts';
import { describeMount, isDeadMount } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import type { NodeRecord } from './records.ts';
import { sessionsOf } from './sessions.ts';
import { detachMounts, discardRevoked } from './stale.ts';
import { standingOf } from './standing.ts';

export async function unpublishVolume(env: NodeEnvironment, volumeId: string, targetPath: string): Promise<void> {
  env.outstanding.assertIdle(volumeId);
  const target = await env.resolve(targetPath);
  const record = await env.records.load(volumeId);
  for (;;) {
    const mount = await env.mounts.at(target);
    if (mount === undefined) break;
    if (await isDeadMount(env, mount)) {
      await detachMounts(env, [mount]);
      continue;
    }
    await checkOurs(env, volumeId, mount, record);
    // Not the file system's last mount: the staging one stays. So nothing needs to be written here.
    try {
      await env.outstanding.run(volumeId, `unmounting ${target}`, DEADLINES.unmount, () =>
        step('target-unmount', () => env.mounts.unmount(target)),
      );
    } catch (error) {
      if (!(error instanceof FileSystemError) || error.kind !== 'busy') throw error;
      const sessions = await revokedSessions(env, volumeId, record);
      if (sessions.length === 0) throw error;
      await discardRevoked(env, { volumeId, record, sessions });
    }
  }
  await removeTarget(env, volumeId, target);
  if (record?.targets.some(({ path }) => path === target)) await forgetTarget(env, record, target);
}

/**
 * The mount and the target are gone, and that is what was asked: a full disk on this node must not keep the pod from
 * ending. A target that the record still names is only a memory; the mount table is the truth.
 */
async function forgetTarget(env: NodeEnvironment, record: NodeRecord, target: string): Promise<void> {
  try {
    await env.records.save({ ...record, targets: record.targets.filter(({ path }) => path !== target) });
  } catch (error) {
    const isSystemError = error instanceof FileTimeoutError || (error instanceof Error && 'syscall' in error);
    if (!isSystemError) throw error;
    log().error({ volumeId: record.volumeId, target, err: error }, 'the node state record could not be written');
  }
}

/**
 * The volume's sessions, when the target has revoked them all; [] otherwise. A process that waits for I/O of a revoked
 * attachment cannot be killed: it keeps the mount busy until the session ends, which is what it waits for.
 */
async function revokedSessions(
  env: NodeEnvironment,
  volumeId: string,
  record: NodeRecord | undefined,
): Promise<readonly IscsiSession[]> {
  const sessions = await sessionsOf(env, volumeId);
  for (const session of sessions) {
    if (session.state === 'LOGGED_IN') return [];
    if ((await standingOf(env, volumeId, session, record)).kind !== 'revoked') return [];
  }
  return sessions;
}

/** What the record says is the volume's disk, or without one what its sessions have. */
async function checkOurs(
  env: NodeEnvironment,
  volumeId: string,
  mount: MountEntry,
  record: NodeRecord | undefined,
): Promise<void> {
  const devices = record?.device === undefined ? await disksOf(env, volumeId) : [record.device];
  const isOurs = devices.some((device) => mountsOfDevice([mount], device).length > 0);
  if (isOurs) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be unpublished: what is mounted at its target is not this volume`,
    found: describeMount(mount),
    action: 'unmount it by hand; the call is retried',
  });
}

async function disksOf(env: NodeEnvironment, volumeId: string): Promise<ScsiDisk[]> {
  const sessions = await sessionsOf(env, volumeId);
  return (await Promise.all(sessions.map((session) => env.initiator.disks(session)))).flat();
}

async function removeTarget(env: NodeEnvironment, volumeId: string, target: string): Promise<void> {
  const path = `${env.config.hostRoot}${target}`;
  const stat = await env.files.lstat(path);
  if (stat === undefined) return;
  try {
    if (stat.kind === 'directory') await step('target-folder-remove', () => env.files.rmdir(path));
    else if (stat.kind === 'file' && stat.sizeBytes === 0)
      await step('target-file-remove', () => env.files.unlink(path));
    else throw notEmpty(volumeId, target, stat.kind === 'file' ? 'a file with data' : `a ${stat.kind}`);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    if (isCode(error, 'ENOTEMPTY')) throw notEmpty(volumeId, target, 'a folder with files in it');
    throw error;
  }
}

function notEmpty(volumeId: string, target: string, found: string): DriverError {
  return new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} is unmounted, but its target path ${target} cannot be removed`,
    found: `${found}, which is not on the volume; it is never deleted`,
    action: 'look at it and move it away; the call is retried',
  });
}
