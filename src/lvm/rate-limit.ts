/**
 * A token bucket in bytes, shared by all that zero or wipe: together they stay below the rate. The bucket may be drawn
 * into debt by one large request, which those after it wait out; so no request is ever larger than the bucket.
 */
export class RateLimiter {
  readonly bytesPerSecond: number;
  readonly #now: () => number;
  #availableBytes: number;
  #refilledAtMs: number;
  /** Requests are served in their order. */
  #last: Promise<void> = Promise.resolve();

  /** @param bytesPerSecond 0: no limit */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.bytesPerSecond = bytesPerSecond;
    this.#now = now;
    this.#availableBytes = bytesPerSecond;
    this.#refilledAtMs = now();
  }

  /**
   * Waits until `bytes` may be written.
   * @throws the signal's reason when it is aborted first; nothing is taken then
   */
  take(bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.bytesPerSecond === 0) return signal?.aborted === true ? Promise.reject(signal.reason) : Promise.resolve();
    const turn = this.#last.then(() => this.#takeInTurn(bytes, signal));
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #takeInTurn(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      const now = this.#now();
      // At most one second's worth is saved up.
      this.#availableBytes = Math.min(
        this.bytesPerSecond,
        this.#availableBytes + ((now - this.#refilledAtMs) / 1000) * this.bytesPerSecond,
      );
      this.#refilledAtMs = now;
      if (this.#availableBytes > 0) {
        this.#availableBytes -= bytes;
        return;
      }
      await delay((-this.#availableBytes / this.bytesPerSecond) * 1000 + 1, signal);
    }
  }
}

/** Resolves after `ms`, or rejects with the signal's reason. */
export function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason);
      return;
    }
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
