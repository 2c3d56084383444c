/**
 * Deadlines for work that cannot be stopped (a write to configfs, a dmsetup that waits for I/O): the caller stops
 * waiting, the work goes on, and whatever must not run beside it is kept waiting until it has really ended.
 */
import type { KeyedMutex } from './keyed-mutex.ts';

export class Deadline {
  readonly #atMs: number;
  readonly timeoutMs: number;

  constructor(timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.#atMs = performance.now() + timeoutMs;
  }

  /** Milliseconds left, 0 when it has passed. */
  get remainingMs(): number {
    return Math.max(0, this.#atMs - performance.now());
  }

  /** The result of `work`, or the error of `onTimeout` when the deadline comes first; `work` itself goes on. */
  async wait<T>(work: Promise<T>, onTimeout: () => Error): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => reject(onTimeout()), this.remainingMs);
    });
    try {
      return await Promise.race([work, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Keeps the lock until `work` has ended, however it ends. */
export type Keep = (work: Promise<unknown>) => void;

/**
 * Runs `action` alone under the key. A caller that has not got the lock at the deadline gets the error of `onTimeout`
 * and its action never runs. What the action hands to `keep` holds the lock on after the action has answered.
 */
export function lockWithin<T>(
  lock: { readonly mutex: KeyedMutex; readonly key: string },
  deadline: Deadline,
  onTimeout: () => Error,
  action: (keep: Keep) => Promise<T>,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let gaveUp = false;
    const timer = setTimeout(() => {
      gaveUp = true;
      reject(onTimeout());
    }, deadline.remainingMs);
    void lock.mutex.run(lock.key, async () => {
      if (gaveUp) return;
      clearTimeout(timer);
      const kept: Promise<unknown>[] = [];
      try {
        resolve(await action((work) => kept.push(work)));
      } catch (error) {
        reject(error);
      }
      await Promise.allSettled(kept);
    });
  });
}
