/**
 * Makes a file system. For the CONTROLLER alone, on an LV that has never been handed out: the one place of the driver
 * that runs a mkfs. Nothing in the node plugin imports this file (a unit test holds it to that).
 */
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';

/** Our code for "another process holds the device's lock", told apart from the maker's own codes. */
const LOCK_HELD = 75;
const LOCK_WAIT_SECONDS = 60;
const FLUSH_TIMEOUT_MS = 300_000;

export interface MakeSpec {
  readonly devicePath: string;
  readonly fsType: 'ext4' | 'xfs';
  /**
   * Every byte of the device reads as zero now. Then ext4's inode tables and journal need not be written. False after
   * an attempt that was cut off, unless the device has been zeroed since: its half-written metadata would be trusted.
   */
  readonly everyByteIsZero: boolean;
}

export class FileSystemMaker {
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #hostRoot: string;
  readonly #versions = new Map<string, Promise<readonly [number, number, number]>>();

  constructor(options: { commands: Commands; files: Files; hostRoot: string }) {
    this.#commands = options.commands;
    this.#files = options.files;
    this.#hostRoot = options.hostRoot;
  }

  /**
   * Makes the file system and flushes the device. Whatever is on it is lost. To be wrapped in a step by the caller.
   * The device is locked meanwhile (flock, as systemd.io/BLOCK_DEVICE_LOCKING asks), so that two makers cannot meet.
   * @throws FileSystemError 'too-small', 'busy', 'tool-missing', 'other'
   */
  async make(spec: MakeSpec): Promise<void> {
    const maker = `mkfs.${spec.fsType}`;
    const version = await this.#version(spec.fsType);
    // flock(1) creates what it does not find: an empty file in /dev, which then blocks the device node's place.
    if ((await this.#files.stat(`${this.#hostRoot}${spec.devicePath}`)) === undefined) {
      throw new FileSystemError('io', `device ${spec.devicePath} is not there`);
    }
    const args = spec.fsType === 'ext4' ? ext4Arguments(version, spec.everyByteIsZero) : xfsArguments(version);
    try {
      await this.#commands.run({
        file: 'flock',
        args: [
          '-x',
          '-w',
          String(LOCK_WAIT_SECONDS),
          '-E',
          String(LOCK_HELD),
          spec.devicePath,
          maker,
          ...args,
          spec.devicePath,
        ],
        program: maker,
        kind: 'mutate',
      });
      // fsync of the device node: on disk before anybody is told that it is made.
      await this.#commands.run({
        file: 'sync',
        args: ['--', spec.devicePath],
        kind: 'read',
        timeoutMs: FLUSH_TIMEOUT_MS,
      });
    } catch (error) {
      throw error instanceof CommandError ? makeFailure(error, spec) : error;
    }
  }

  #version(fsType: 'ext4' | 'xfs'): Promise<readonly [number, number, number]> {
    let version = this.#versions.get(fsType);
    if (version === undefined) {
      version = this.#askVersion(fsType);
      this.#versions.set(fsType, version);
      version.catch(() => this.#versions.delete(fsType));
    }
    return version;
  }

  async #askVersion(fsType: 'ext4' | 'xfs'): Promise<readonly [number, number, number]> {
    const maker = `mkfs.${fsType}`;
    try {
      const { stdout, stderr } = await this.#commands.run({ file: maker, args: ['-V'], kind: 'read' });
      return parseVersion(`${stdout}\n${stderr}`);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      const action = `install ${fsType === 'ext4' ? 'e2fsprogs' : 'xfsprogs'} on the storage host`;
      throw error.missing
        ? new FileSystemError('tool-missing', `${maker} is not installed: ${action}`, { cause: error })
        : new FileSystemError('other', `${maker} does not run: ${error.shortMessage}`, { cause: error });
    }
  }
}

/** Of "mke2fs 1.47.0 (5-Feb-2023)" and "mkfs.xfs version 6.1.0". An unknown form counts as very old: no newer option is used. */
export function parseVersion(text: string): readonly [number, number, number] {
  const match = /(?:mke2fs|version)\s+(\d+)\.(\d+)(?:\.(\d+))?/.exec(text);
  return match === null ? [0, 0, 0] : [Number(match[1]), Number(match[2]), Number(match[3] ?? 0)];
}

function isAtLeast(version: readonly [number, number, number], major: number, minor: number): boolean {
  return version[0] > major || (version[0] === major && version[1] >= minor);
}

/**
 * Block size and usage type are fixed, since mke2fs would give a volume below 512 MiB blocks of 1 KiB that it keeps
 * when it grows. Features that a node with an older kernel or e2fsprogs refuses are left out. No reserved blocks: no
 * root process depends on them here. On an error the kernel remounts read-only rather than write on.
 */
export function ext4Arguments(version: readonly [number, number, number], everyByteIsZero: boolean): string[] {
  const modern = isAtLeast(version, 1, 47);
  const extended =
    everyByteIsZero && modern
      ? 'nodiscard,assume_storage_prezeroed=1'
      : 'nodiscard,lazy_itable_init=0,lazy_journal_init=0';
  return [
    ...['-q', '-F', '-T', 'default', '-b', '4096', '-m', '0', '-e', 'remount-ro', '-E', extended],
    ...(modern ? ['-O', '^orphan_file,^metadata_csum_seed'] : []),
  ];
}

/**
 * -K: no discard, the device is blank. Newer defaults that need a kernel above 5.15 on the node are switched off one by
 * one: xfsprogs' own lts_5.15.conf is refused by the very mkfs.xfs 6.1 that it comes with.
 */
export function xfsArguments(version: readonly [number, number, number]): string[] {
  return [
    ...['-q', '-f', '-K'],
    ...(isAtLeast(version, 6, 10)
      ? ['-i', 'nrext64=0,exchange=0', '-n', 'parent=0']
      : isAtLeast(version, 5, 19)
        ? ['-i', 'nrext64=0']
        : []),
  ];
}

function makeFailure(error: CommandError, spec: MakeSpec): FileSystemError {
  const what = `no ${spec.fsType} file system could be made on ${spec.devicePath}`;
  if (error.missing)
    return new FileSystemError('tool-missing', `${what}: flock is not installed (package util-linux)`, {
      cause: error,
    });
  if (error.exitCode === LOCK_HELD) {
    return new FileSystemError('busy', `${what}: another process has held its lock for ${LOCK_WAIT_SECONDS} s`, {
      cause: error,
    });
  }
  if (/must be larger than|too small/i.test(`${error.stderr}${error.stdout}`)) {
    return new FileSystemError('too-small', `${what}: the volume is too small for it`, { cause: error });
  }
  return new FileSystemError('other', `${what}: ${error.shortMessage}`, { cause: error });
}
