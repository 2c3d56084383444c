/**
 * Mounting and unmounting on the host. Knows nothing of volumes: callers compare, decide and wrap in steps.
 * mount(8) and umount(8) rather than the system calls: they keep /run/mount/utab, from which systemd learns `_netdev`
 * and so unmounts before it stops the network and iscsid.
 */
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';
import { type MountEntry, mountAt, readMountTable } from './mount-table.ts';

/** mount(8) and umount(8), exit codes. */
const MOUNT_FAILURE = 32;

export class Mounts {
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #mountInfoPath: string;

  /** `mountInfoPath`: mountinfo of a process in the namespace in which the commands run. */
  constructor(options: { commands: Commands; files: Files; mountInfoPath: string }) {
    this.#commands = options.commands;
    this.#files = options.files;
    this.#mountInfoPath = options.mountInfoPath;
  }

  list(): Promise<MountEntry[]> {
    return readMountTable(this.#files, this.#mountInfoPath);
  }

  /** The topmost mount at exactly that (resolved) path. */
  async at(path: string): Promise<MountEntry | undefined> {
    return mountAt(await this.list(), path);
  }

  /** @throws FileSystemError */
  async mountDevice(spec: {
    devicePath: string;
    fsType: string;
    mountPoint: string;
    options: readonly string[];
  }): Promise<void> {
    // -t: the kernel is told the type and never guesses it.
    const options = spec.options.length === 0 ? [] : ['-o', spec.options.join(',')];
    await this.#run(
      'mount',
      ['-t', spec.fsType, ...options, '--', spec.devicePath, spec.mountPoint],
      () =>
        `${spec.devicePath} could not be mounted as ${spec.fsType} at ${spec.mountPoint} with options ${spec.options.join(',') || '(none)'}`,
    );
  }

  /** `options` beside bind; with "ro" mount(8) makes the read-only remount as well. */
  async bind(source: string, target: string, options: readonly string[]): Promise<void> {
    await this.#run(
      'mount',
      ['-o', ['bind', ...options].join(','), '--', source, target],
      () => `${source} could not be bind-mounted at ${target}`,
    );
  }

  /** Makes one bind mount read-only, and not the file system behind it. */
  async remountReadOnly(target: string): Promise<void> {
    await this.#run('mount', ['-o', 'remount,bind,ro', '--', target], () => `${target} could not be made read-only`);
  }

  /**
   * Takes away the topmost mount at the path. `lazy`: at once, also when it is in use; only for a file system whose
   * device is gone for good. Not mounted any more: no error.
   */
  async unmount(path: string, options?: { lazy?: boolean }): Promise<void> {
    try {
      // -c: the path is resolved already; looking at it again could block.
      await this.#run(
        'umount',
        ['-c', ...(options?.lazy === true ? ['-l'] : []), '--', path],
        () => `${path} could not be unmounted`,
      );
    } catch (error) {
      if (error instanceof FileSystemError && error.kind !== 'tool-missing' && (await this.at(path)) === undefined)
        return;
      throw error;
    }
  }

  /** Writes all of a file system's dirty data and waits: an error of it is reported (syncfs(2), since Linux 5.8). */
  async sync(mountPoint: string, timeoutMs: number): Promise<void> {
    try {
      await this.#commands.run({ file: 'sync', args: ['-f', '--', mountPoint], kind: 'read', timeoutMs });
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      throw new FileSystemError('io', `unwritten data of ${mountPoint} could not be written: ${error.shortMessage}`, {
        cause: error,
      });
    }
  }

  async #run(file: string, args: readonly string[], problem: () => string): Promise<void> {
    try {
      await this.#commands.run({ file, args, kind: 'mutate' });
    } catch (error) {
      throw error instanceof CommandError ? mountFailure(error, problem()) : error;
    }
  }
}

function mountFailure(error: CommandError, problem: string): FileSystemError {
  if (error.missing) {
    return new FileSystemError('tool-missing', `${problem}: mount(8) is not installed`, { cause: error });
  }
  const words = error.stderr.toLowerCase();
  if (/busy|already mounted/.test(words))
    return new FileSystemError('busy', `${problem}: it is in use`, { cause: error });
  if (/can't read superblock|i\/o error|input\/output error/.test(words)) {
    return new FileSystemError('io', `${problem}: the device answers with errors`, { cause: error });
  }
  if (/wrong fs type|bad option|unknown filesystem|structure needs cleaning/.test(words)) {
    return new FileSystemError(
      'other',
      `${problem}: the kernel refuses it (a mount option it does not know, damage, or a file system newer than this host's kernel; dmesg has its own words)`,
      { cause: error },
    );
  }
  const code = error.exitCode === MOUNT_FAILURE || error.exitCode === undefined ? '' : ` (exit code ${error.exitCode})`;
  return new FileSystemError('other', `${problem}: the program failed${code}, its words are in the log`, {
    cause: error,
  });
}
