/** How long until volume group and target are compared again. */

/** Drift (an administrator's hand in configfs) is looked for this often. */
const NORMAL_MS = 300_000;
const FIRST_RETRY_MS = 5_000;
/** One that could not even begin costs little, and every call may be waiting for it: a disk that comes back, for example. */
const LONGEST_RETRY_OF_NOTHING_MS = 30_000;

export class ComparisonPace {
  #inARow = 0;

  /** `incomplete`: something could not be repaired. `impossible`: nothing could be read. @returns milliseconds to wait. */
  after(outcome: 'complete' | 'incomplete' | 'impossible'): number {
    if (outcome === 'complete') {
      this.#inARow = 0;
      return NORMAL_MS;
    }
    const pauseMs = FIRST_RETRY_MS * 2 ** Math.min(this.#inARow, 10);
    this.#inARow += 1;
    return Math.min(pauseMs, outcome === 'impossible' ? LONGEST_RETRY_OF_NOTHING_MS : NORMAL_MS);
  }
}
