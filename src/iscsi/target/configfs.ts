/**
 * configfs through the blocking-file helper, within the deadline of one operation. "Already so" is no error here: a
 * folder that exists, one that is gone. Everything else is thrown, and a deadline is never an answer.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Deadline } from '../../system/deadline.ts';
import { type FileOptions, type FileStat, type Files, FileTimeoutError } from '../../system/files.ts';
import { TargetTimeoutError } from './errors.ts';

/** A call begun just before the deadline still gets this long: it is normally microseconds. */
const SHORTEST_TIMEOUT_MS = 100;
const POLL_MS = 20;

export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === 'string' ? code : undefined;
}

export class ConfigFs {
  readonly #files: Files;
  readonly deadline: Deadline;

  constructor(files: Files, deadline: Deadline) {
    this.#files = files;
    this.deadline = deadline;
  }

  /** The attribute without the newline that the kernel adds. */
  async read(path: string): Promise<string> {
    const text = await this.#call((options) => this.#files.readText(path, options));
    return text.endsWith('\n') ? text.slice(0, -1) : text;
  }

  /** undefined only when there is no such attribute (an older kernel, an object that has gone). */
  async readIfPresent(path: string): Promise<string | undefined> {
    return await unless('ENOENT', this.read(path));
  }

  async write(path: string, text: string): Promise<void> {
    await this.#call((options) => this.#files.writeAttribute(path, text, options));
  }

  async exists(path: string): Promise<boolean> {
    return (await this.stat(path)) !== undefined;
  }

  async stat(path: string): Promise<FileStat | undefined> {
    return await this.#call((options) => this.#files.stat(path, options));
  }

  async names(path: string): Promise<string[]> {
    return await this.#call((options) => this.#files.readdir(path, options));
  }

  /** [] when the folder does not exist. */
  async namesIfPresent(path: string): Promise<string[]> {
    return (await unless('ENOENT', this.names(path))) ?? [];
  }

  async makeFolder(path: string): Promise<void> {
    await unless(
      'EEXIST',
      this.#call((options) => this.#files.mkdir(path, options)),
    );
  }

  async removeFolder(path: string): Promise<void> {
    await unless(
      'ENOENT',
      this.#call((options) => this.#files.rmdir(path, options)),
    );
  }

  async link(target: string, path: string): Promise<void> {
    await this.#call((options) => this.#files.symlink(target, path, options));
  }

  async removeLink(path: string): Promise<void> {
    await unless(
      'ENOENT',
      this.#call((options) => this.#files.unlink(path, options)),
    );
  }

  /** Where a link leads, or undefined when it is no link or has gone. */
  async linkTarget(path: string): Promise<string | undefined> {
    return await unless(
      'EINVAL',
      unless(
        'ENOENT',
        this.#call((options) => this.#files.readlink(path, options)),
      ),
    );
  }

  /** Polls until the condition holds. @throws TargetTimeoutError */
  async waitUntil(condition: () => Promise<boolean>, what: string): Promise<void> {
    while (!(await condition())) {
      if (this.deadline.remainingMs === 0) throw this.#late(what);
      await delay(POLL_MS);
    }
  }

  async #call<T>(start: (options: FileOptions) => Promise<T>): Promise<T> {
    try {
      return await start({ timeoutMs: Math.max(this.deadline.remainingMs, SHORTEST_TIMEOUT_MS) });
    } catch (error) {
      if (error instanceof FileTimeoutError) throw this.#late(`${error.operation} of ${error.path}`, error);
      throw error;
    }
  }

  #late(what: string, cause?: unknown): TargetTimeoutError {
    return new TargetTimeoutError(
      `${what}: not done within ${this.deadline.timeoutMs} ms; the kernel may be waiting for I/O`,
      {
        cause,
      },
    );
  }
}

/** The result, or undefined when it failed with exactly this code. */
async function unless<T>(code: string, work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (errorCode(error) === code) return undefined;
    throw error;
  }
}
