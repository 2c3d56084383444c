/** What the file helper does for each request: plain system calls, each of which may block for as long as the kernel likes. */
import { randomUUID } from 'node:crypto';
import { type BigIntStats, constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { FileAnswer, FileRequest } from './file-helper-protocol.ts';
import type { BatchAnswer, BatchCall, FileStat, FileSystemStat } from './files.ts';

/** Throws when the caller has given up: asked before a step that would surprise whoever came after it. */
export type CheckCancelled = () => void;

export async function performFileOperation(request: FileRequest, check: CheckCancelled): Promise<FileAnswer> {
  switch (request.operation) {
    case 'readText':
      return await fs.readFile(request.path, 'utf8');
    case 'readBytes':
      return await readBytes(request.path, request.offset, request.length);
    case 'writeAttribute':
      return await writeAttribute(request.path, request.text, check);
    case 'writeDurably':
      return await writeDurably(request.path, request.text, request.mode, check);
    case 'createExclusive': {
      const file = await fs.open(request.path, 'wx', request.mode);
      await file.close();
      return undefined;
    }
    case 'openExclusively': {
      // Without O_CREAT it concerns block devices alone: open(2), O_EXCL.
      const file = await fs.open(request.path, constants.O_RDONLY | constants.O_EXCL);
      await file.close();
      return undefined;
    }
    case 'mkdir': {
      const mode = request.mode === undefined ? {} : { mode: request.mode };
      await fs.mkdir(request.path, { ...mode, recursive: request.recursive });
      return undefined;
    }
    case 'rmdir':
      return await done(fs.rmdir(request.path));
    case 'unlink':
      return await done(fs.unlink(request.path));
    case 'symlink':
      return await done(fs.symlink(request.target, request.path));
    case 'link':
      return await done(fs.link(request.existingPath, request.path));
    case 'readlink':
      return await fs.readlink(request.path);
    case 'realpath':
      return await fs.realpath(request.path);
    case 'readdir':
      return (await fs.readdir(request.path)).sort();
    case 'stat':
      return await absentIsUndefined(async () => toFileStat(await fs.stat(request.path, { bigint: true })));
    case 'lstat':
      return await absentIsUndefined(async () => toFileStat(await fs.lstat(request.path, { bigint: true })));
    case 'statfs':
      return await statfs(request.path);
    case 'batch':
      return await batch(request.calls, check);
  }
}

async function batch(calls: readonly BatchCall[], check: CheckCancelled): Promise<BatchAnswer[]> {
  const answers: BatchAnswer[] = [];
  for (const call of calls) {
    check();
    try {
      answers.push({ value: (await performFileOperation(asRequest(call), check)) as BatchValue });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A failed write(2) does not know its file's name.
      if (code === undefined || !(call.accept ?? []).includes(code))
        throw Object.assign(error as Error, { path: call.path });
      answers.push({ code });
    }
  }
  return answers;
}

type BatchValue = string | string[] | FileStat | undefined;

function asRequest(call: BatchCall): FileRequest {
  if (call.operation === 'writeAttribute' || call.operation === 'symlink') return call;
  const { operation, path } = call;
  return operation === 'mkdir' ? { operation, path, mode: undefined, recursive: false } : { operation, path };
}

async function done(call: Promise<void>): Promise<undefined> {
  await call;
  return undefined;
}

async function readBytes(path: string, offset: number, length: number): Promise<Uint8Array> {
  const file = await fs.open(path, 'r');
  try {
    const bytes = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** configfs and sysfs take an attribute's value in one write(2); neither O_CREAT nor O_TRUNC has any business there. */
async function writeAttribute(path: string, text: string, check: CheckCancelled): Promise<undefined> {
  const file = await fs.open(path, constants.O_WRONLY);
  try {
    check();
    const bytes = Buffer.from(text, 'utf8');
    const { bytesWritten } = await file.write(bytes, 0, bytes.length, null);
    if (bytesWritten !== bytes.length) {
      throw new Error(`write of ${path} took ${bytesWritten} of ${bytes.length} bytes`);
    }
  } finally {
    await file.close();
  }
  return undefined;
}

async function writeDurably(path: string, text: string, mode: number, check: CheckCancelled): Promise<undefined> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${randomUUID()}.tmp`);
  try {
    const file = await fs.open(temporary, 'wx', mode);
    try {
      // The umask must not decide who may read a secret, nor who may not read the rest.
      await file.chmod(mode);
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    // A call that was given up must not replace what its successor has written since.
    check();
    await fs.rename(temporary, path);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
  const handle = await fs.open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return undefined;
}

async function absentIsUndefined<T>(action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

function toFileStat(stats: BigIntStats): FileStat {
  const kind = kindOf(stats);
  return {
    kind,
    sizeBytes: Number(stats.size),
    rdev: kind === 'block' || kind === 'character' ? majorMinor(stats.rdev) : undefined,
    dev: majorMinor(stats.dev),
    inode: Number(stats.ino),
    mode: Number(stats.mode & 0o7777n),
  };
}

function kindOf(stats: BigIntStats): FileStat['kind'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isBlockDevice()) return 'block';
  if (stats.isCharacterDevice()) return 'character';
  return 'other';
}

/** glibc's gnu_dev_major and gnu_dev_minor (sys/sysmacros.h): 12 + 20 bits major, 8 + 24 bits minor, interleaved. */
export function majorMinor(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

async function statfs(path: string): Promise<FileSystemStat> {
  const stats = await fs.statfs(path, { bigint: true });
  return {
    totalBytes: Number(stats.blocks * stats.bsize),
    availableBytes: Number(stats.bavail * stats.bsize),
    usedBytes: Number((stats.blocks - stats.bfree) * stats.bsize),
    totalInodes: Number(stats.files),
    freeInodes: Number(stats.ffree),
    usedInodes: Number(stats.files - stats.ffree),
  };
}
