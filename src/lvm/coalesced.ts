/**
 * One expensive read shared by concurrent callers. What it promises: a caller never gets a state older than a change
 * that was complete (told by `invalidate`) before the call; with `fresh`, never one that was read before the call.
 * One read runs at a time and at most one more waits; callers that the running one is too old for share the next.
 */
export interface ReadOptions {
  /** Something else may have changed the source: only a read that starts after this call will do. */
  readonly fresh?: boolean | undefined;
}

interface Reading<T> {
  /** `#epoch` when it was started. */
  epoch: number;
  readonly promise: Promise<T>;
}

export class Coalesced<T> {
  readonly #source: () => Promise<T>;
  readonly #maxAgeMs: number;
  /** Changes known to be complete so far. */
  #epoch = 0;
  #cached: { readonly epoch: number; readonly readAtMs: number; readonly value: T } | undefined;
  #running: Reading<T> | undefined;
  #next: Promise<T> | undefined;

  /** @param maxAgeMs of a cached answer, counted from the start of its read; 0: nothing is cached */
  constructor(source: () => Promise<T>, maxAgeMs: number) {
    this.#source = source;
    this.#maxAgeMs = maxAgeMs;
  }

  /** A change is complete, or may be. */
  invalidate(): void {
    this.#epoch += 1;
  }

  read({ fresh = false }: ReadOptions = {}): Promise<T> {
    if (!fresh) {
      const cached = this.#cached;
      if (cached?.epoch === this.#epoch && performance.now() - cached.readAtMs < this.#maxAgeMs)
        return Promise.resolve(cached.value);
      if (this.#running?.epoch === this.#epoch) return this.#running.promise;
    }
    if (this.#running === undefined) return this.#start();
    // The waiting read starts after every call that joins it.
    this.#next ??= this.#running.promise.then(
      () => this.#startNext(),
      () => this.#startNext(),
    );
    return this.#next;
  }

  #startNext(): Promise<T> {
    this.#next = undefined;
    return this.#start();
  }

  #start(): Promise<T> {
    const epoch = this.#epoch;
    const readAtMs = performance.now();
    const promise = this.#source()
      .then((value) => {
        if (this.#maxAgeMs > 0) this.#cached = { epoch, readAtMs, value };
        return value;
      })
      .finally(() => {
        this.#running = undefined;
      });
    this.#running = { epoch, promise };
    return promise;
  }
}
