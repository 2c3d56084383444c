/** NodeUnpublishVolume: the bind mount and the target path go; nothing below a target is ever deleted. */
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import { boundDeviceName, type MountEntry } from '../filesystem/mount-table.ts';
import { step } from '../system/step.ts';
import { FS_TYPES } from '../volumes/model.ts';
import { describeMount, isDeadMount } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import type { NodeRecord } from './records.ts';
import { detachMounts } from './stale.ts';

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
    checkOurs(volumeId, mount, record);
    // Not the file system's last mount: the staging one stays. So nothing needs to be written here.
    await env.outstanding.run(volumeId, `unmounting ${target}`, DEADLINES.unmount, () =>
      step('target-unmount', () => env.mounts.unmount(target)),
    );
  }
  await removeTarget(env, volumeId, target);
  if (record?.targets.some(({ path }) => path === target)) {
    await env.records.save({ ...record, targets: record.targets.filter(({ path }) => path !== target) });
  }
}

/** With a record: its device. Without: at least a kind of mount that only a publish of ours makes. */
function checkOurs(volumeId: string, mount: MountEntry, record: NodeRecord | undefined): void {
  const name = boundDeviceName(mount);
  const device = record?.device;
  const isOurs =
    device === undefined
      ? name !== undefined || FS_TYPES.some((fsType) => fsType === mount.fsType)
      : name === device.name || (name === undefined && mount.majorMinor === device.majorMinor);
  if (isOurs) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be unpublished: what is mounted at its target is not this volume`,
    found: describeMount(mount),
    action: 'unmount it by hand; the call is retried',
  });
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
