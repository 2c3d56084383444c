/**
 * How far a long zeroing is, in the log: a line when it begins, one about every ten seconds, one at the end. Whoever
 * waits for it (a call, an administrator) sees that it works, and for how long still.
 */
import { log } from '../system/context.ts';
import { RateMeter } from './wipe-progress.ts';

const LOG_EVERY_MS = 10_000;

export interface ProgressLogOptions {
  /** What each line begins with, e.g. "zeroing of a new volume". */
  readonly what: string;
  /** On each line: whose zeroing it is. */
  readonly fields: Readonly<Record<string, unknown>>;
  readonly totalBytes: number;
  /** Done by an earlier attempt; 0 when absent. */
  readonly doneBytes?: number;
  readonly now?: () => number;
}

/** A failure has no line here: whoever handles it tells it. */
export class ProgressLog {
  readonly #what: string;
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #totalBytes: number;
  readonly #now: () => number;
  readonly #meter: RateMeter;
  readonly #startedAtMs: number;
  #loggedAtMs: number;
  #doneBytes: number;

  /** Logs the beginning. */
  constructor({ what, fields, totalBytes, doneBytes = 0, now = () => performance.now() }: ProgressLogOptions) {
    this.#what = what;
    this.#fields = fields;
    this.#totalBytes = totalBytes;
    this.#doneBytes = doneBytes;
    this.#now = now;
    this.#meter = new RateMeter(now);
    this.#startedAtMs = now();
    this.#loggedAtMs = this.#startedAtMs;
    this.#meter.start();
    log().info({ ...fields, doneBytes, totalBytes }, `${what} begins`);
  }

  /** An estimate for what is left; undefined until something has been done. */
  get etaSeconds(): number | undefined {
    const rate = this.#meter.bytesPerSecond;
    return rate === undefined || rate === 0 ? undefined : Math.ceil((this.#totalBytes - this.#doneBytes) / rate);
  }

  add(bytes: number): void {
    this.#meter.add(bytes);
    this.#doneBytes += bytes;
    const now = this.#now();
    if (now - this.#loggedAtMs < LOG_EVERY_MS || this.#doneBytes >= this.#totalBytes) return;
    this.#loggedAtMs = now;
    const percent = Math.floor((this.#doneBytes / this.#totalBytes) * 100);
    log().info(
      {
        ...this.#fields,
        doneBytes: this.#doneBytes,
        totalBytes: this.#totalBytes,
        percent,
        etaSeconds: this.etaSeconds,
      },
      `${this.#what} goes on`,
    );
  }

  end(): void {
    const durationMs = Math.round(this.#now() - this.#startedAtMs);
    log().info({ ...this.#fields, totalBytes: this.#totalBytes, durationMs }, `${this.#what} is done`);
  }
}

/** Turns running totals into what each adds to the one before. */
export function increments(onMore: (bytes: number) => void): (totalBytes: number) => void {
  let told = 0;
  return (totalBytes) => {
    onMore(totalBytes - told);
    told = totalBytes;
  };
}
