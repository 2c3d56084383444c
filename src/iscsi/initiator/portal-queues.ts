/** Bounds what is asked of iscsid at once, for each portal on its own: one that does not answer keeps no other waiting. */
import PQueue from 'p-queue';

export class PortalQueues {
  readonly #concurrency: number;
  readonly #queues = new Map<string, PQueue>();

  /** @param concurrency actions at once for one portal, at least 1 */
  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** Runs the action when it is its turn among those for the same portal; its result or error is the caller's. */
  async run<T>(portal: string, action: () => Promise<T>): Promise<T> {
    let queue = this.#queues.get(portal);
    if (queue === undefined) {
      queue = new PQueue({ concurrency: this.#concurrency });
      this.#queues.set(portal, queue);
    }
    try {
      return await queue.add(action);
    } finally {
      if (queue.size === 0 && queue.pending === 0 && this.#queues.get(portal) === queue) this.#queues.delete(portal);
    }
  }
}
