/** Zeroing that a call waits for, where free extents are not known to be blank: told in the log, and counted. */
import type { Commands } from '../system/commands.ts';
import { increments, ProgressLog } from './progress.ts';
import type { RateLimiter } from './rate-limit.ts';
import { zeroRange } from './zero.ts';

/** create: a new volume, whole; expand: what an expansion has added. */
export const ZERO_REASONS = ['create', 'expand'] as const;
export type ZeroReason = (typeof ZERO_REASONS)[number];

export interface ZeroingStatus {
  /** Calls in progress still have to zero these. */
  readonly waitingBytes: number;
  /** Zeroed since the start of this process. */
  readonly zeroedBytes: number;
}

const WHAT: Readonly<Record<ZeroReason, string>> = {
  create: 'zeroing of a new volume',
  expand: 'zeroing of what an expansion added',
};

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
  async zero(reason: ZeroReason, path: string, offsetBytes: number, lengthBytes: number): Promise<void> {
    const status = this.#status[reason];
    const progress = new ProgressLog({ what: WHAT[reason], fields: { path, offsetBytes }, totalBytes: lengthBytes });
    let leftBytes = lengthBytes;
    status.waitingBytes += lengthBytes;
    const onProgress = increments((bytes) => {
      leftBytes -= bytes;
      status.waitingBytes -= bytes;
      status.zeroedBytes += bytes;
      progress.add(bytes);
    });
    // The grown end of an attached volume lies under a gate that holds the LV open.
    const shared = reason === 'expand';
    try {
      await zeroRange(this.#commands, path, offsetBytes, lengthBytes, { shared, limiter: this.#limiter, onProgress });
    } finally {
      // After a failure nobody works on the rest; a repeated call begins again.
      status.waitingBytes -= leftBytes;
    }
    progress.end();
  }
}
