/**
 * Writes zeros to a range of a block device, in chunks, and flushes the device: when `zeroRange` has returned, the zeros
 * survive a power cut.
 *
 * BLKZEROOUT (blkdiscard --zeroout) is a write-zeroes command where the disk has one and writes of zero pages where not;
 * one ioctl can neither be slowed down nor stopped, hence chunks. Where it is not to be had, `dd` writes. The edges of a
 * range that is not aligned to 4 KiB are always written by `dd`.
 *
 * Nothing may go on zeroing behind our back: not after the driver was killed, when its successor has zeroed the same
 * device again, finished the volume and handed it out.
 *  - The commands may be killed (kind `read`: a half zeroed range harms nobody), so they end with the pod.
 *  - Each holds flock(2) on the device; a new one never waits for it but is refused, and `zeroRange` tries again until
 *    the old one has ended. The lock lives as long as the process that zeroes.
 *  - blkdiscard opens the device with O_EXCL, so it can't begin once a gate, a mount or mkfs holds the device; only for
 *    the grown end of an LV under its gate is that left out (`shared`).
 */
import { CommandError, type CommandResult, type Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';
import { delay, type RateLimiter } from './rate-limit.ts';
import { LvmError } from './types.ts';

export interface ZeroOptions {
  /** The device is held by a gate: open it without O_EXCL. */
  readonly shared?: boolean;
  readonly limiter?: RateLimiter;
  /** Called after each chunk with the bytes done so far (not yet flushed). */
  readonly onProgress?: (doneBytes: number) => void;
  /** Ends the work after the chunk in progress; what is done so far is flushed. `zeroRange` throws the signal's reason. */
  readonly signal?: AbortSignal;
}

const MIB = 1024 ** 2;
const ALIGNMENT_BYTES = 4096;
const FIRST_CHUNK_BYTES = 64 * MIB;
const LARGEST_CHUNK_BYTES = 1024 * MIB;
/** Below this, starting the program costs more than the zeros: a loaded host would shrink chunks for nothing. */
const SMALLEST_CHUNK_BYTES = 64 * MIB;
/** A chunk that took less than this doubles the next one. */
const QUICK_CHUNK_MS = 2_000;
/** A chunk that takes longer halves the next one: a stop must not wait for minutes. */
const SLOW_CHUNK_MS = 15_000;
const COMMAND_TIMEOUT_MS = 600_000;
/** Exit code of flock when another process holds the device's lock; none of blkdiscard, dd or sync ends with it. */
const LOCKED = 75;
const LOCK_RETRY_MS = 500;

/**
 * @param path of a block device, on the host
 * @throws LvmError in-use when somebody else holds the device (not `shared`), write-failed for failures of the device;
 *   the signal's reason
 */
export async function zeroRange(
  commands: Commands,
  path: string,
  offsetBytes: number,
  lengthBytes: number,
  options: ZeroOptions = {},
): Promise<void> {
  for (const value of [offsetBytes, lengthBytes]) {
    if (!Number.isSafeInteger(value) || value < 0) throw new LvmError('invalid', `${value} is no number of bytes`);
  }
  if (lengthBytes === 0) return;
  const zeroer = new Zeroer(commands, path, options);
  try {
    await zeroer.zero(offsetBytes, offsetBytes + lengthBytes);
  } catch (error) {
    if (options.signal?.aborted === true && zeroer.doneBytes > 0) await zeroer.flush();
    throw error;
  }
  await zeroer.flush();
}

class Zeroer {
  doneBytes = 0;
  readonly #commands: Commands;
  readonly #path: string;
  readonly #options: ZeroOptions;
  #chunkBytes = FIRST_CHUNK_BYTES;
  #method: 'blkdiscard' | 'dd' = 'blkdiscard';

  constructor(commands: Commands, path: string, options: ZeroOptions) {
    this.#commands = commands;
    this.#path = path;
    this.#options = options;
  }

  async zero(startBytes: number, endBytes: number): Promise<void> {
    const { limiter, signal, onProgress } = this.#options;
    for (let position = startBytes; position < endBytes; ) {
      const length = this.#chunkLength(position, endBytes);
      signal?.throwIfAborted();
      await limiter?.take(length, signal);
      const startedAt = performance.now();
      await step('zero-chunk', () => this.#zeroChunk(position, length));
      this.#adapt(performance.now() - startedAt, length);
      position += length;
      this.doneBytes += length;
      onProgress?.(this.doneBytes);
    }
  }

  /** Makes the disk write out its cache: BLKZEROOUT has only handed the zeros to it. */
  async flush(): Promise<void> {
    try {
      await step('zero-flush', () => this.#run('sync', ['--', this.#path]));
    } catch (error) {
      throw toError(error, this.#path);
    }
  }

  /** Up to the next aligned position, or one chunk, or the tail. */
  #chunkLength(position: number, endBytes: number): number {
    const misaligned = position % ALIGNMENT_BYTES;
    if (misaligned > 0) return Math.min(ALIGNMENT_BYTES - misaligned, endBytes - position);
    const left = endBytes - position;
    const aligned = left - (left % ALIGNMENT_BYTES);
    if (aligned === 0) return left;
    return Math.min(this.#chunkBytes, aligned, this.#largestChunk());
  }

  /** With a limit, no chunk is more than a second's worth: the rate stays even and a stop does not take long. */
  #largestChunk(): number {
    const rate = this.#options.limiter?.bytesPerSecond ?? 0;
    if (rate === 0) return LARGEST_CHUNK_BYTES;
    return Math.max(4 * MIB, rate - (rate % ALIGNMENT_BYTES));
  }

  #adapt(durationMs: number, length: number): void {
    if (length < this.#chunkBytes) return;
    if (durationMs < QUICK_CHUNK_MS) this.#chunkBytes = Math.min(this.#chunkBytes * 2, LARGEST_CHUNK_BYTES);
    else if (durationMs > SLOW_CHUNK_MS) this.#chunkBytes = Math.max(this.#chunkBytes / 2, SMALLEST_CHUNK_BYTES);
  }

  async #zeroChunk(offset: number, length: number): Promise<void> {
    const aligned = offset % ALIGNMENT_BYTES === 0 && length % ALIGNMENT_BYTES === 0;
    if (this.#method === 'blkdiscard' && aligned) {
      try {
        const shared = this.#options.shared === true ? ['--force'] : [];
        const range = ['--offset', String(offset), '--length', String(length)];
        await this.#run('blkdiscard', ['--zeroout', ...shared, ...range, this.#path]);
        return;
      } catch (error) {
        if (!(error instanceof CommandError) || !isUnsupported(error)) throw toError(error, this.#path);
        log().warn({ err: error, path: this.#path }, 'blkdiscard cannot zero this device; dd writes the zeros');
        this.#method = 'dd';
      }
    }
    const range = [`seek=${offset}`, `count=${length}`, 'iflag=count_bytes', 'bs=4M', 'conv=notrunc,nocreat'];
    // Direct I/O takes aligned ranges only; the page cache, which serves the rest, is written out by the flush.
    const output = aligned ? 'oflag=seek_bytes,direct' : 'oflag=seek_bytes';
    try {
      await this.#run('dd', ['if=/dev/zero', `of=${this.#path}`, ...range, output, 'status=none']);
    } catch (error) {
      throw toError(error, this.#path);
    }
  }

  /** Under the device's lock, which is never waited for in the command itself: a left-over must not get it later. */
  async #run(program: string, args: readonly string[]): Promise<CommandResult> {
    const flock = ['--nonblock', '--conflict-exit-code', String(LOCKED), this.#path];
    for (let told = false; ; told = true) {
      const result = await this.#commands.run({
        file: 'flock',
        args: [...flock, program, ...args],
        program,
        kind: 'read',
        timeoutMs: COMMAND_TIMEOUT_MS,
        acceptedExitCodes: [0, LOCKED],
      });
      if (result.exitCode !== LOCKED) return result;
      if (!told) log().info({ path: this.#path }, 'another process still zeroes this device; waiting for its end');
      await delay(LOCK_RETRY_MS);
    }
  }
}

/** 127 and 69 (flock's EX_UNAVAILABLE): the program that flock was to start is not there. */
function isUnsupported(error: CommandError): boolean {
  return (
    error.exitCode === 127 ||
    error.exitCode === 69 ||
    /Operation not supported|Inappropriate ioctl|unrecognized option|invalid option/.test(error.stderr)
  );
}

function toError(error: unknown, path: string): unknown {
  if (!(error instanceof CommandError)) return error;
  const busy = /Device or resource busy/.test(error.stderr);
  return new LvmError(busy ? 'in-use' : 'write-failed', `zeroing of ${path} failed: ${error.message}`, {
    cause: error,
  });
}
