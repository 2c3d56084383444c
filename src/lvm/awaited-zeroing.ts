/** Zeroing that a call waits for, where free extents are not known to be blank: told in the log, and counted. */
import type { Commands } from '../system/commands.ts';
import { increments, ProgressLog } from './progress.ts';
import type { RateLimiter } from './rate-limit.ts';
import { RateMeter } from './wipe-progress.ts';
import { zeroRange } from './zero.ts';
import { zeroInSegments } from './zero-segments.ts';

/** create: a new volume, whole; expand: what an expansion has added. */
export const ZERO_REASONS = ['create', 'expand'] as const;
export type ZeroReason = (typeof ZERO_REASONS)[number];

export interface ZeroingStatus {
  /** Work in progress still has to zero these. */
  readonly waitingBytes: number;
  /** Zeroed since the start of this process. */
  readonly zeroedBytes: number;
}

const WHAT: Readonly<Record<ZeroReason, string>> = {
  create: 'zeroing of a new volume',
  expand: 'zeroing of what an expansion added',
};

/** What an expansion has added to an LV. */
export interface GrowthRange {
  readonly path: string;
  readonly fromBytes: number;
  readonly toBytes: number;
  /** Zeros are on the disk up to this byte of the LV. Not called for the last one. */
  readonly record: (doneBytes: number) => Promise<void>;
  readonly signal: AbortSignal;
}

export class AwaitedZeroing {
  readonly #commands: Commands;
  readonly #limiter: RateLimiter;
  readonly #status = {
    create: { waitingBytes: 0, zeroedBytes: 0 },
    expand: { waitingBytes: 0, zeroedBytes: 0 },
  };

  constructor(commands: Commands, limiter: RateLimiter) {
    this.#commands = commands;
    this.#limiter = limiter;
  }

  status(reason: ZeroReason): ZeroingStatus {
    return { ...this.#status[reason] };
  }

  /** @throws as `zeroRange` */
  async zeroNew(path: string, lengthBytes: number): Promise<void> {
    await this.#counted('create', { path }, lengthBytes, (onMore) =>
      zeroRange(this.#commands, path, 0, lengthBytes, { limiter: this.#limiter, onProgress: increments(onMore) }),
    );
  }

  /** @throws as `zeroRange`; the signal's reason; what `record` throws */
  async zeroGrowth({ path, fromBytes, toBytes, record, signal }: GrowthRange): Promise<void> {
    const limiter = this.#limiter;
    await this.#counted('expand', { path, fromBytes }, toBytes - fromBytes, (onMore) =>
      zeroInSegments({
        fromBytes,
        toBytes,
        // The grown end of an attached volume lies under a gate that holds the LV open.
        zero: (offset, length, more) =>
          zeroRange(this.#commands, path, offset, length, { shared: true, limiter, ...more }),
        record,
        onMore,
        meter: new RateMeter(),
        signal,
      }),
    );
  }

  async #counted(
    reason: ZeroReason,
    fields: Readonly<Record<string, unknown>>,
    totalBytes: number,
    work: (onMore: (bytes: number) => void) => Promise<void>,
  ): Promise<void> {
    const status = this.#status[reason];
    const progress = new ProgressLog({ what: WHAT[reason], fields, totalBytes });
    let leftBytes = totalBytes;
    status.waitingBytes += totalBytes;
    try {
      await work((bytes) => {
        leftBytes -= bytes;
        status.waitingBytes -= bytes;
        status.zeroedBytes += bytes;
        progress.add(bytes);
      });
    } finally {
      // After a failure nobody works on the rest; a repeated call begins again.
      status.waitingBytes -= leftBytes;
    }
    progress.end();
  }
}
