/** Memory of refused sessions, for attachments without a witness (standing.ts). */

/** kubelet asks again after two minutes at most; with a longer pause nobody knows what was between. */
const LONGEST_PAUSE_MS = 300_000;

/** How long each session's target has refused without a break, as far as it was asked. Only in memory: a restart begins anew. */
export class Refusals {
  readonly #seen = new Map<string, { readonly sinceMs: number; readonly lastMs: number }>();

  /** @returns for how long, in milliseconds; `forMs` of it was seen just now */
  note(key: string, forMs: number, nowMs: number): number {
    const known = this.#seen.get(key);
    const isUnbroken = known !== undefined && nowMs - forMs - known.lastMs <= LONGEST_PAUSE_MS;
    const sinceMs = isUnbroken ? Math.min(known.sinceMs, nowMs - forMs) : nowMs - forMs;
    this.#seen.set(key, { sinceMs, lastMs: nowMs });
    return nowMs - sinceMs;
  }

  forget(key: string): void {
    this.#seen.delete(key);
  }
}
