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
  await run(commands, 'resize2fs', [spec.devicePath], 'e2fsprogs', spec);
  const after = await ext4Size(files, spec);
  // A last group too small for its own metadata is left out (ext4_resize_fs): any growth is right.
  if (after.sizeBytes <= before.sizeBytes) {
    throw new FileSystemError(
      'other',
      `resize2fs did not grow the file system at ${spec.mountPoint}: it still has ${after.sizeBytes} bytes on a device of ${spec.deviceSizeBytes}`,
    );
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

async function growXfs({ commands }: { readonly commands: Commands }, spec: GrowSpec): Promise<GrowResult> {
  // Without a size it grows to the device and says so; with nothing to gain it changes nothing and exits 0.
  const stdout = await run(commands, 'xfs_growfs', ['-d', spec.mountPoint], 'xfsprogs', spec);
  return parseXfsGrow(stdout, spec.mountPoint);
}

/** Output of xfs_growfs: the geometry before, and "data blocks changed from X to Y" when it grew. */
export function parseXfsGrow(stdout: string, mountPoint: string): GrowResult {
  const geometry = /^data\s*=\s*bsize=(\d+)\s+blocks=(\d+)/m.exec(stdout);
  if (geometry === null) {
    throw new FileSystemError('other', `xfs_growfs of ${mountPoint} did not tell the file system's size`);
  }
  const blockSize = Number(geometry[1]);
  const changed = /^data blocks changed from (\d+) to (\d+)/m.exec(stdout);
  const before = Number(changed?.[1] ?? geometry[2]);
  return { beforeBytes: before * blockSize, afterBytes: Number(changed?.[2] ?? before) * blockSize };
}

async function run(
  commands: Commands,
  file: string,
  args: readonly string[],
  packageName: string,
  spec: GrowSpec,
): Promise<string> {
  try {
    return (await commands.run({ file, args, kind: 'mutate' })).stdout;
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
