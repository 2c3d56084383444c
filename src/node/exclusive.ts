/**
 * Does anybody have a disk exclusively? The mount table of this node's own namespace and the driver's memory tell only a
 * part of it: e2fsck and mount(8) run in a scope of the host and outlive a restart of the driver, and a mount that was
 * copied into another mount namespace keeps the file system alive after the host's umount. The kernel knows: whoever
 * writes below the page cache of others has claimed the device, and then O_EXCL is refused.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import { mountsOfDevice } from '../filesystem/mount-table.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';

/** Somebody has the disk: nothing may be undone or torn down under it. */
export class DiskHeldError extends DriverError {
  constructor(volumeId: string, name: string, found: string) {
    super('ABORTED', {
      problem: `volume ${volumeId}: its disk ${name} is held exclusively on this node; nothing is taken back or torn down under it`,
      found,
      action: `wait for its end, or end it (fuser -v /dev/${name}, grep -l ${name} /proc/*/mountinfo); the call is retried`,
    });
  }
}

/** The disk has gone: then nobody has it. */
const GONE = ['ENOENT', 'ENXIO', 'ENODEV', 'ENOMEDIUM'];
const AGAIN_MS = 200;

/**
 * `patienceMs`: of something that has just ended, an unmount say, the kernel may let go a moment later.
 * @throws DiskHeldError
 */
export async function assertNotHeld(
  env: NodeEnvironment,
  volumeId: string,
  disk: { readonly name: string },
  options: { readonly patienceMs: number } = { patienceMs: 0 },
): Promise<void> {
  const deadline = performance.now() + options.patienceMs;
  while (await isHeld(env, volumeId, disk)) {
    if (performance.now() >= deadline) throw new DiskHeldError(volumeId, disk.name, await holder(env, disk));
    await sleep(AGAIN_MS);
  }
}

async function isHeld(env: NodeEnvironment, volumeId: string, { name }: { readonly name: string }): Promise<boolean> {
  const path = `${env.config.hostRoot}/dev/${name}`;
  try {
    await env.outstanding.run(volumeId, `looking whether /dev/${name} is in use`, DEADLINES.device + 5_000, () =>
      env.files.openExclusively(path, { timeoutMs: DEADLINES.device }),
    );
    return false;
  } catch (error) {
    if (isCode(error, 'EBUSY')) return true;
    if (GONE.some((code) => isCode(error, code))) return false;
    throw error;
  }
}

async function holder(env: NodeEnvironment, { name }: { readonly name: string }): Promise<string> {
  const fsType = await env.devices.mountedType(name);
  if (fsType !== undefined) {
    return `${fsType} is mounted from it, and at no place that this node's mount table shows or the volume has: another mount namespace (a container, a service) has a copy of the mount`;
  }
  const holders = await env.devices.holders(name);
  if (holders.length > 0) return `device ${holders.join(', ')} on top of it`;
  return 'no file system is mounted from it: a check (e2fsck) or a mount of an earlier call still runs, or another program has opened it';
}

/** Mounted where this node's own mount table shows it. */
export async function isMounted(
  env: NodeEnvironment,
  disk: { readonly name: string; readonly majorMinor: string },
): Promise<boolean> {
  return mountsOfDevice(await env.mounts.list(), disk).length > 0;
}
