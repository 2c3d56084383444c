/**
 * `Files` over helper processes. One helper serves all calls; when too many of its threads are stuck in the kernel it
 * is left alone with them and a new one takes over. Nobody ever waits for a stuck call.
 */
import { log } from './context.ts';
import { FileHelperProcess, HELPER_THREADS } from './file-helper-process.ts';
import type { FileAnswer, FileRequest } from './file-helper-protocol.ts';
import type { BatchAnswer, BatchCall, FileOptions, FileStat, FileSystemStat, Files, WriteOptions } from './files.ts';

export interface BlockingFilesOptions {
  /** Overrun calls after which a helper is replaced; three quarters of its threads when absent. */
  readonly stuckLimit?: number;
  /** Replaced helpers that may be waited out at a time; 8 when absent. Beyond that the last one is kept in use. */
  readonly abandonedLimit?: number;
}

const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_MODE = 0o644;

export class BlockingFiles implements Files {
  readonly #stuckLimit: number;
  readonly #abandonedLimit: number;
  readonly #abandoned = new Set<FileHelperProcess>();
  #helper: FileHelperProcess | undefined;
  #lastId = 0;
  #closed = false;

  constructor(options: BlockingFilesOptions = {}) {
    this.#stuckLimit = options.stuckLimit ?? (HELPER_THREADS * 3) / 4;
    this.#abandonedLimit = options.abandonedLimit ?? 8;
  }

  /** Ends all helpers at once; calls in progress are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const helper of this.#abandoned) helper.kill();
    this.#helper?.kill();
    this.#helper = undefined;
  }

  /** Helpers that wait for calls which are stuck in the kernel. */
  get abandonedHelpers(): number {
    return this.#abandoned.size;
  }

  async readText(path: string, options?: FileOptions): Promise<string> {
    return (await this.#call({ operation: 'readText', path }, options)) as string;
  }

  async readBytes(path: string, offset: number, length: number, options?: FileOptions): Promise<Uint8Array> {
    return (await this.#call({ operation: 'readBytes', path, offset, length }, options)) as Uint8Array;
  }

  async writeAttribute(path: string, text: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'writeAttribute', path, text }, options);
  }

  async writeDurably(path: string, text: string, options?: WriteOptions): Promise<void> {
    await this.#call({ operation: 'writeDurably', path, text, mode: options?.mode ?? DEFAULT_MODE }, options);
  }

  async createExclusive(path: string, options?: WriteOptions): Promise<void> {
    await this.#call({ operation: 'createExclusive', path, mode: options?.mode ?? DEFAULT_MODE }, options);
  }

  async openExclusively(path: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'openExclusively', path }, options);
  }

  async mkdir(path: string, options?: WriteOptions & { readonly recursive?: boolean }): Promise<void> {
    const recursive = options?.recursive ?? false;
    await this.#call({ operation: 'mkdir', path, mode: options?.mode, recursive }, options);
  }

  async rmdir(path: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'rmdir', path }, options);
  }

  async unlink(path: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'unlink', path }, options);
  }

  async symlink(target: string, path: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'symlink', path, target }, options);
  }

  async link(existingPath: string, newPath: string, options?: FileOptions): Promise<void> {
    await this.#call({ operation: 'link', path: newPath, existingPath }, options);
  }

  async readlink(path: string, options?: FileOptions): Promise<string> {
    return (await this.#call({ operation: 'readlink', path }, options)) as string;
  }

  async realpath(path: string, options?: FileOptions): Promise<string> {
    return (await this.#call({ operation: 'realpath', path }, options)) as string;
  }

  async readdir(path: string, options?: FileOptions): Promise<string[]> {
    return (await this.#call({ operation: 'readdir', path }, options)) as string[];
  }

  async stat(path: string, options?: FileOptions): Promise<FileStat | undefined> {
    return (await this.#call({ operation: 'stat', path }, options)) as FileStat | undefined;
  }

  async lstat(path: string, options?: FileOptions): Promise<FileStat | undefined> {
    return (await this.#call({ operation: 'lstat', path }, options)) as FileStat | undefined;
  }

  async statfs(path: string, options?: FileOptions): Promise<FileSystemStat> {
    return (await this.#call({ operation: 'statfs', path }, options)) as FileSystemStat;
  }

  async batch(calls: readonly BatchCall[], options?: FileOptions): Promise<BatchAnswer[]> {
    const path = calls[0]?.path;
    if (path === undefined) return [];
    return (await this.#call({ operation: 'batch', path, calls }, options)) as BatchAnswer[];
  }

  async #call(request: FileRequest, options: FileOptions | undefined): Promise<FileAnswer> {
    if (this.#closed) throw new Error(`${request.operation} of ${request.path}: the file helper has been closed`);
    const helper = this.#current();
    this.#lastId += 1;
    try {
      return await helper.call(this.#lastId, request, options?.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    } catch (error) {
      // The stack of the helper's own error says nothing about who asked; this one does.
      if (error instanceof Error) Error.captureStackTrace(error, this.#call);
      throw error;
    }
  }

  #current(): FileHelperProcess {
    const helper = this.#helper;
    if (helper?.alive && helper.stuckCount < this.#stuckLimit) return helper;
    if (helper?.alive) {
      if (this.#abandoned.size >= this.#abandonedLimit) return helper;
      this.#abandoned.add(helper);
      helper.retire();
      const fields = { pid: helper.pid, stuckCalls: helper.stuckCount, abandonedHelpers: this.#abandoned.size };
      if (this.#abandoned.size < this.#abandonedLimit)
        log().warn(fields, 'file helper is stuck in the kernel; a new one takes over');
      else log().error(fields, 'file helper is stuck in the kernel; no more will be started until one comes back');
    }
    this.#helper = this.#start();
    return this.#helper;
  }

  #start(): FileHelperProcess {
    const helper: FileHelperProcess = new FileHelperProcess({
      lateAnswer: (id) => log().info({ pid: helper.pid, id }, 'a file operation came back after its deadline'),
      ended: (how) => {
        const wasAbandoned = this.#abandoned.delete(helper);
        if (this.#closed || wasAbandoned) return;
        log().warn({ pid: helper.pid, how }, 'file helper has ended; the next call starts a new one');
      },
    });
    return helper;
  }
}
