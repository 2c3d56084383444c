/**
 * Contract for file operations that can block in the kernel (configfs, sysfs, statfs on a volume, reads of a device).
 * They run in a helper process with a deadline: four calls in D state in the driver's own process would freeze all of
 * its file I/O (libuv's pool has four threads). The implementation is `blocking-files.ts`.
 *
 * Errors are Node's own (`code` is 'ENOENT', 'EBUSY', …; `path` and `syscall` set), or FileTimeoutError.
 */

export interface FileOptions {
  /** Deadline in milliseconds; 10,000 when absent. A call that overruns goes on in the kernel; its answer is dropped. */
  readonly timeoutMs?: number;
}

export interface WriteOptions extends FileOptions {
  /** Mode of a file that is created; 0o644 when absent. */
  readonly mode?: number;
}

export interface FileStat {
  readonly kind: 'file' | 'directory' | 'symlink' | 'block' | 'character' | 'other';
  readonly sizeBytes: number;
  /** "major:minor" of the device node itself; undefined unless kind is block or character. */
  readonly rdev: string | undefined;
  /** "major:minor" of the file system that holds it. */
  readonly dev: string;
  readonly inode: number;
  readonly mode: number;
}

export interface FileSystemStat {
  readonly totalBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  readonly totalInodes: number;
  readonly freeInodes: number;
  readonly usedInodes: number;
}

export class FileTimeoutError extends Error {
  override readonly name = 'FileTimeoutError';
  readonly code = 'ETIMEDOUT';
  readonly operation: string;
  readonly path: string;
  constructor(operation: string, path: string, timeoutMs: number) {
    super(`${operation} of ${path} did not return within ${timeoutMs} ms; it may be blocked in the kernel`);
    this.operation = operation;
    this.path = path;
  }
}

/** One call of a batch, by the names of the methods below; codes in `accept` are an answer and not an error. */
export type BatchCall = { readonly path: string; readonly accept?: readonly string[] } & (
  | { readonly operation: 'readText' | 'readdir' | 'readlink' | 'stat' | 'mkdir' | 'rmdir' | 'unlink' }
  | { readonly operation: 'writeAttribute'; readonly text: string }
  | { readonly operation: 'symlink'; readonly target: string }
);

/** The call's value, or the accepted error's code. */
export type BatchAnswer =
  | { readonly value: string | string[] | FileStat | undefined; readonly code?: undefined }
  | { readonly code: string };

export interface Files {
  readText(path: string, options?: FileOptions): Promise<string>;
  /** Exactly `lengthBytes` bytes from `offsetBytes`, fewer at the end of the file or device. */
  readBytes(path: string, offsetBytes: number, lengthBytes: number, options?: FileOptions): Promise<Uint8Array>;
  /** One write(2) of the whole text to an existing file, as configfs and sysfs attributes need; never creates, no newline added. */
  writeAttribute(path: string, text: string, options?: FileOptions): Promise<void>;
  /** Durable replace: temporary file beside it, fsync, rename, fsync of the folder. */
  writeDurably(path: string, text: string, options?: WriteOptions): Promise<void>;
  /** Creates the file with O_EXCL, empty. Throws EEXIST. */
  createExclusive(path: string, options?: WriteOptions): Promise<void>;
  /**
   * Opens a block device O_EXCL for reading, and closes it at once. Throws EBUSY while anybody has it exclusively, in
   * whichever namespace: a mounted file system, one that is being mounted, a check or repair, device-mapper.
   */
  openExclusively(path: string, options?: FileOptions): Promise<void>;
  mkdir(path: string, options?: WriteOptions & { readonly recursive?: boolean }): Promise<void>;
  rmdir(path: string, options?: FileOptions): Promise<void>;
  unlink(path: string, options?: FileOptions): Promise<void>;
  symlink(target: string, path: string, options?: FileOptions): Promise<void>;
  /** Hard link. Throws EEXIST. */
  link(existingPath: string, newPath: string, options?: FileOptions): Promise<void>;
  readlink(path: string, options?: FileOptions): Promise<string>;
  realpath(path: string, options?: FileOptions): Promise<string>;
  /** Names in the folder, sorted. */
  readdir(path: string, options?: FileOptions): Promise<string[]>;
  /** Follows symlinks; undefined only for ENOENT and ENOTDIR: any other failure is thrown, never taken for "absent". */
  stat(path: string, options?: FileOptions): Promise<FileStat | undefined>;
  /** As stat, of a symlink itself. */
  lstat(path: string, options?: FileOptions): Promise<FileStat | undefined>;
  statfs(path: string, options?: FileOptions): Promise<FileSystemStat>;
  /**
   * Several calls for the price of one, in order; the first error that is not accepted is thrown, with the path of its
   * call, and no later call is begun. Optional, so that a fake need not have it.
   */
  batch?(calls: readonly BatchCall[], options?: FileOptions): Promise<BatchAnswer[]>;
}
