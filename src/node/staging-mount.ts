/** The staging mount of a volume with a file system: probed, checked, mounted, grown; or found as it should be. */
import { DriverError } from '../errors.ts';
import { checkExt4 } from '../filesystem/check.ts';
import { growFileSystem, isSmallerThanDevice } from '../filesystem/grow.ts';
import { isReadOnly, type MountEntry } from '../filesystem/mount-table.ts';
import { describeContent, probeDevice } from '../filesystem/probe.ts';
import { readExt4Superblock, readXfsSuperblock } from '../filesystem/superblock.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';
import type { FsType } from '../volumes/model.ts';
import { describeMount, isDeadMount } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { assertNotHeld, isMounted } from './exclusive.ts';
import { mountOptions, stagingOptions } from './mount-options.ts';
import type { StageRequest } from './operations.ts';
import type { RecordedDevice } from './records.ts';
import { detachMounts } from './stale.ts';
import type { Undo } from './undo.ts';

export interface StagingMount {
  readonly request: StageRequest;
  readonly stagingPath: string;
  readonly device: RecordedDevice;
  /** The device as it was recorded when the volume was staged before; undefined while it is being staged. */
  readonly before: RecordedDevice | undefined;
  readonly undo: Undo;
}

/** Leaves the right mount alone and refuses a wrong one. */
export async function mountStaging(env: NodeEnvironment, spec: StagingMount): Promise<void> {
  const { request, stagingPath, device, before, undo } = spec;
  const { volumeId } = request;
  const fsType = contentType(request);
  const existing = await existingMount(env, spec, fsType);
  if (before === undefined) undo.push('staging mount', () => undoMount(env, volumeId, stagingPath));
  let mayBeSmaller = true;
  if (existing === undefined) {
    await checkFolder(env, stagingPath);
    // At a target, still: the new mount shares its superblock, and a repair beneath it would be damage.
    const isAlive = await isMounted(env, device);
    if (!isAlive) await assertNotHeld(env, volumeId, device);
    const size = await checkContent(env, volumeId, fsType, device);
    mayBeSmaller = isSmallerThanDevice(size, fsType, device.sizeBytes);
    if (fsType === 'ext4' && !device.readOnly && !isAlive) await repair(env, volumeId, device);
    await mountDisk(env, spec, fsType);
  } else if (before !== undefined && device.sizeBytes <= before.sizeBytes) {
    mayBeSmaller = false;
  }
  if (mayBeSmaller) await growStaged(env, { volumeId, fsType, stagingPath, device });
}

/** Grows the file system to its device, unless it is mounted for reading alone. */
export async function growStaged(
  env: NodeEnvironment,
  spec: {
    volumeId: string;
    fsType: FsType;
    stagingPath: string;
    device: { name: string; majorMinor: string; sizeBytes: number };
  },
): Promise<void> {
  const { volumeId, fsType, stagingPath, device } = spec;
  const mount = await env.mounts.at(stagingPath);
  // XFS is grown by its mount point, to the device's size: it must be that device.
  if (mount?.majorMinor !== device.majorMinor || mount.fsType !== fsType) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId}: its file system cannot be grown, its staging mount is not there`,
      found: mount === undefined ? `nothing mounted at ${stagingPath}` : describeMount(mount),
      action: 'call NodeStageVolume again (Kubernetes: delete the pod)',
    });
  }
  if (isReadOnly(mount)) return;
  const grown = await env.outstanding.run(volumeId, `growing the file system at ${stagingPath}`, DEADLINES.grow, () =>
    step('filesystem-grow', () =>
      growFileSystem(env, {
        fsType,
        devicePath: `/dev/${device.name}`,
        fileRoot: env.config.hostRoot,
        mountPoint: stagingPath,
        deviceSizeBytes: device.sizeBytes,
      }),
    ),
  );
  if (grown.afterBytes > grown.beforeBytes) log().info({ volumeId, ...grown }, 'file system grown');
}

function contentType({ volumeId, publishContext }: StageRequest): FsType {
  if (publishContext.content.kind === 'filesystem') return publishContext.content.fsType;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be mounted`,
    found: 'a volume that was created for raw block access; the driver made no file system on it',
    action: 'use it with volumeMode Block, or create a volume with a file system',
  });
}

/** The right mount when it is there; undefined when nothing is, a dead one having been taken away. */
async function existingMount(
  env: NodeEnvironment,
  { request, stagingPath, device }: StagingMount,
  fsType: FsType,
): Promise<MountEntry | undefined> {
  for (;;) {
    const mount = await env.mounts.at(stagingPath);
    if (mount === undefined) return undefined;
    if (isStagingMount(mount, device, fsType)) return mount;
    if (mount.majorMinor === device.majorMinor || !(await isDeadMount(env, mount))) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `volume ${request.volumeId} cannot be staged at ${stagingPath}`,
        found: `${describeMount(mount)} with options ${mount.options.join(',')}`,
        action: 'unmount it there; the call is retried',
      });
    }
    await detachMounts(env, [mount]);
  }
}

/** A file system that turned read-only by itself (errors=remount-ro) is still the volume's own mount. */
function isStagingMount(mount: MountEntry, device: RecordedDevice, fsType: FsType): boolean {
  return (
    mount.majorMinor === device.majorMinor &&
    mount.root === '/' &&
    mount.fsType === fsType &&
    (!device.readOnly || isReadOnly(mount))
  );
}

async function checkFolder(env: NodeEnvironment, stagingPath: string): Promise<void> {
  const stat = await env.files.lstat(`${env.config.hostRoot}${stagingPath}`);
  if (stat?.kind === 'directory') return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `nothing can be mounted at staging path ${stagingPath}`,
    found: stat === undefined ? 'no such folder' : `a ${stat.kind}`,
    action: 'make the folder before NodeStageVolume, as the CSI specification asks',
  });
}

/** The disk must hold exactly what the controller made; answers the file system's size. Only reads. */
async function checkContent(
  env: NodeEnvironment,
  volumeId: string,
  fsType: FsType,
  device: RecordedDevice,
): Promise<{ sizeBytes: number; blockSizeBytes: number }> {
  const devicePath = `/dev/${device.name}`;
  const content = await env.outstanding.run(volumeId, `probing ${devicePath}`, DEADLINES.probe, () =>
    probeDevice(env, { devicePath, fileRoot: env.config.hostRoot, sizeBytes: device.sizeBytes }),
  );
  if (content.kind !== 'filesystem' || content.type !== fsType) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} must hold ${fsType}, made by the controller, and does not; it is not mounted and never formatted here`,
      found: describeContent(content),
      action: 'find out who wrote to the volume; to look at it, attach it as raw block or on the storage host',
    });
  }
  const path = `${env.config.hostRoot}${devicePath}`;
  const size = fsType === 'ext4' ? await readExt4Superblock(env.files, path) : await readXfsSuperblock(env.files, path);
  if (size === undefined || size.sizeBytes > device.sizeBytes) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId}: its ${fsType} file system does not fit its disk; it is not mounted`,
      found: size === undefined ? 'no superblock' : `${size.sizeBytes} bytes on a disk of ${device.sizeBytes}`,
      action: 'check the logical volume on the storage host',
    });
  }
  return size;
}

async function repair(env: NodeEnvironment, volumeId: string, device: RecordedDevice): Promise<void> {
  const devicePath = `/dev/${device.name}`;
  const result = await env.outstanding.run(volumeId, `checking the file system on ${devicePath}`, DEADLINES.check, () =>
    step('filesystem-check', () => checkExt4(env, { devicePath, fileRoot: env.config.hostRoot })),
  );
  if (result === 'repaired') log().warn({ volumeId, devicePath }, 'e2fsck has repaired the file system');
}

async function mountDisk(env: NodeEnvironment, spec: StagingMount, fsType: FsType): Promise<void> {
  const { request, stagingPath, device } = spec;
  const { access } = request.capability;
  const mountFlags = access.kind === 'mount' ? mountOptions(access.mountFlags) : [];
  const devicePath = `/dev/${device.name}`;
  const options = stagingOptions({ fsType, mountFlags, readOnly: device.readOnly });
  await env.outstanding.run(request.volumeId, `mounting ${devicePath} at ${stagingPath}`, DEADLINES.mount, () =>
    step('staging-mount', () => env.mounts.mountDevice({ devicePath, fsType, mountPoint: stagingPath, options })),
  );
  // mount(8) answers 0 also when it has fallen back to read-only on a device that cannot be written.
  const mount = await env.mounts.at(stagingPath);
  const readOnly = device.readOnly || mountFlags.includes('ro');
  if (mount === undefined || !isStagingMount(mount, device, fsType) || isReadOnly(mount) !== readOnly) {
    throw new DriverError('INTERNAL', {
      problem: `volume ${request.volumeId}: the mount at ${stagingPath} is not as asked`,
      found: mount === undefined ? 'no mount' : `${describeMount(mount)} with options ${mount.options.join(',')}`,
      action: 'see dmesg on this node; the call is retried',
    });
  }
}

async function undoMount(env: NodeEnvironment, volumeId: string, stagingPath: string): Promise<void> {
  if ((await env.mounts.at(stagingPath)) === undefined) return;
  await env.outstanding.run(volumeId, `unmounting ${stagingPath}`, DEADLINES.unmount, () =>
    step('stage-undo-unmount', () => env.mounts.unmount(stagingPath)),
  );
}
