/** Grows a mounted file system to its device, online. Only when the device is larger; never shrinks anything. */
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';
import { readExt4Superblock } from './superblock.ts';

/** What the kernel needs for a further allocation group (XFS_MIN_AG_BLOCKS): less stays unused at the end. */
const XFS_MIN_AG_BLOCKS = 64;

export interface GrowSpec {
  readonly fsType: 'ext4' | 'xfs';
  /** As commands see it. */
  readonly devicePath: string;
  /** Prefix under which this process sees the device. */
  readonly fileRoot: string;
  readonly mountPoint: string;
  readonly deviceSizeBytes: number;
}

export interface GrowResult {
  readonly beforeBytes: number;
  readonly afterBytes: number;
}

/** Device bytes that a file system of that block size cannot use anyway are no reason to grow. */
export function isSmallerThanDevice(
  fileSystem: { readonly sizeBytes: number; readonly blockSizeBytes: number },
  fsType: 'ext4' | 'xfs',
  deviceSizeBytes: number,
): boolean {
  const blocks = fsType === 'xfs' ? XFS_MIN_AG_BLOCKS : 1;
  return deviceSizeBytes - fileSystem.sizeBytes >= blocks * fileSystem.blockSizeBytes;
}

/** @throws FileSystemError; the file system is whole and mounted in any case, and the call may be repeated. */
export async function growFileSystem(
  tools: { readonly commands: Commands; readonly files: Files },
  spec: GrowSpec,
): Promise<GrowResult> {
  return spec.fsType === 'ext4' ? await growExt4(tools, spec) : await growXfs(tools, spec);
}

async function growExt4(
  { commands, files }: { readonly commands: Commands; readonly files: Files },
  spec: GrowSpec,
): Promise<GrowResult> {
  const before = await ext4Size(files, spec);
  if (!isSmallerThanDevice(before, 'ext4', spec.deviceSizeBytes)) {
    return { beforeBytes: before.sizeBytes, afterBytes: before.sizeBytes };
  }
  await run(commands, 'mutate', 'resize2fs', [spec.devicePath], 'e2fsprogs', spec);
  const after = await ext4Size(files, spec);
  // A last group too small for its own metadata is left out (ext4_resize_fs): up to a group may stay unused for now.
  const groupBytes = 8 * after.blockSizeBytes * after.blockSizeBytes;
  if (after.sizeBytes <= before.sizeBytes && spec.deviceSizeBytes - after.sizeBytes >= groupBytes) {
    throw notGrown('resize2fs', spec, after.sizeBytes);
  }
  return { beforeBytes: before.sizeBytes, afterBytes: after.sizeBytes };
}

async function ext4Size(files: Files, spec: GrowSpec): Promise<{ sizeBytes: number; blockSizeBytes: number }> {
  const superblock = await readExt4Superblock(files, `${spec.fileRoot}${spec.devicePath}`);
  if (superblock === undefined) {
    throw new FileSystemError('conflict', `${spec.devicePath} at ${spec.mountPoint} has no ext4 superblock`);
  }
  return superblock;
}

/**
 * Never xfs_growfs without a size: it looks the device up by the mount point in /proc/mounts, takes the first entry,
 * and where that is another device (stacked mounts), it shrinks the file system to it (MEASURED, xfsprogs 6.1).
 */
async function growXfs({ commands }: { readonly commands: Commands }, spec: GrowSpec): Promise<GrowResult> {
  const ask = async (): Promise<{ sizeBytes: number; blockSizeBytes: number }> =>
    parseXfsGeometry(
      await run(commands, 'read', 'xfs_growfs', ['-n', spec.mountPoint], 'xfsprogs', spec),
      spec.mountPoint,
    );
  const before = await ask();
  if (!isSmallerThanDevice(before, 'xfs', spec.deviceSizeBytes)) {
    return { beforeBytes: before.sizeBytes, afterBytes: before.sizeBytes };
  }
  const blocks = Math.floor(spec.deviceSizeBytes / before.blockSizeBytes);
  await run(commands, 'mutate', 'xfs_growfs', ['-D', String(blocks), spec.mountPoint], 'xfsprogs', spec);
  const after = await ask();
  if (after.sizeBytes <= before.sizeBytes) throw notGrown('xfs_growfs', spec, after.sizeBytes);
  return { beforeBytes: before.sizeBytes, afterBytes: after.sizeBytes };
}

/** Output of xfs_growfs -n: the geometry of what is mounted. */
export function parseXfsGeometry(stdout: string, mountPoint: string): { sizeBytes: number; blockSizeBytes: number } {
  const geometry = /^data\s*=\s*bsize=(\d+)\s+blocks=(\d+)/m.exec(stdout);
  if (geometry === null) {
    throw new FileSystemError('other', `xfs_growfs of ${mountPoint} did not tell the file system's size`);
  }
  const blockSizeBytes = Number(geometry[1]);
  return { sizeBytes: Number(geometry[2]) * blockSizeBytes, blockSizeBytes };
}

function notGrown(file: string, spec: GrowSpec, sizeBytes: number): FileSystemError {
  return new FileSystemError(
    'other',
    `${file} did not grow the file system at ${spec.mountPoint}: it still has ${sizeBytes} bytes on a device of ${spec.deviceSizeBytes}`,
  );
}

async function run(
  commands: Commands,
  kind: 'read' | 'mutate',
  file: string,
  args: readonly string[],
  packageName: string,
  spec: GrowSpec,
): Promise<string> {
  try {
    return (await commands.run({ file, args, kind })).stdout;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (error.missing) {
      throw new FileSystemError('tool-missing', `${file} is not installed (package ${packageName})`, { cause: error });
    }
    throw new FileSystemError(
      'other',
      `the ${spec.fsType} file system at ${spec.mountPoint} could not be grown: ${error.shortMessage}`,
      {
        cause: error,
      },
    );
  }
}
