/**
 * The few fields of ext4 and XFS superblocks that tell size and health, read from the device. Sources: the kernel's
 * fs/ext4/ext4.h (struct ext4_super_block) and fs/xfs/libxfs/xfs_format.h (struct xfs_dsb).
 * A mounted ext4 keeps its superblock in the device's page cache, so that a read sees it as it is; a mounted XFS does
 * not: read its superblock only while it is not mounted.
 */
import type { Files } from '../system/files.ts';

export interface Ext4Superblock {
  /** Bytes that the file system covers. */
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  /** Unmounted cleanly or with a journal that can be replayed (EXT4_VALID_FS). */
  readonly valid: boolean;
  /** The kernel found damage and noted it (EXT4_ERROR_FS). */
  readonly hasErrors: boolean;
  /** The journal holds changes that are not in place yet: mounted, or not unmounted cleanly. */
  readonly needsRecovery: boolean;
}

export interface XfsSuperblock {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
}

const EXT4_OFFSET = 1024;
const EXT4_MAGIC = 0xef53;
const EXT4_VALID_FS = 0x0001;
const EXT4_ERROR_FS = 0x0002;
const EXT4_INCOMPAT_RECOVER = 0x0004;
const EXT4_INCOMPAT_64BIT = 0x0080;
const XFS_MAGIC = 0x58465342;

/** undefined: the magic number is not there. */
export async function readExt4Superblock(files: Files, devicePath: string): Promise<Ext4Superblock | undefined> {
  const bytes = await files.readBytes(devicePath, EXT4_OFFSET, 1024);
  return bytes.length < 1024 ? undefined : parseExt4Superblock(bytes);
}

export function parseExt4Superblock(bytes: Uint8Array): Ext4Superblock | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(0x38, true) !== EXT4_MAGIC) return undefined;
  const incompat = view.getUint32(0x60, true);
  const high = (incompat & EXT4_INCOMPAT_64BIT) === 0 ? 0 : view.getUint32(0x150, true);
  const blocks = high * 2 ** 32 + view.getUint32(0x4, true);
  const blockSizeBytes = 1024 * 2 ** view.getUint32(0x18, true);
  const state = view.getUint16(0x3a, true);
  return {
    sizeBytes: blocks * blockSizeBytes,
    blockSizeBytes,
    valid: (state & EXT4_VALID_FS) !== 0,
    hasErrors: (state & EXT4_ERROR_FS) !== 0,
    needsRecovery: (incompat & EXT4_INCOMPAT_RECOVER) !== 0,
  };
}

/** undefined: the magic number is not there. */
export async function readXfsSuperblock(files: Files, devicePath: string): Promise<XfsSuperblock | undefined> {
  const bytes = await files.readBytes(devicePath, 0, 512);
  return bytes.length < 512 ? undefined : parseXfsSuperblock(bytes);
}

export function parseXfsSuperblock(bytes: Uint8Array): XfsSuperblock | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, false) !== XFS_MAGIC) return undefined;
  const blockSizeBytes = view.getUint32(4, false);
  return { sizeBytes: Number(view.getBigUint64(8, false)) * blockSizeBytes, blockSizeBytes };
}
