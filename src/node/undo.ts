/** What a call has made so far, to be taken back in reverse order when it fails. */
import { log } from '../system/context.ts';
import { StillRunningError } from './outstanding.ts';

export class Undo {
  readonly #actions: { readonly what: string; readonly action: () => Promise<void> }[] = [];

  push(what: string, action: () => Promise<void>): void {
    this.#actions.push({ what, action });
  }

  /**
   * Takes everything back after `error`, which stays the call's answer. Stops at the first failure: what is beneath
   * still carries what is above; the record stays, and a retry or the unstage goes on from it. A step that still runs
   * forbids it altogether.
   */
  async run(error: unknown): Promise<void> {
    if (error instanceof StillRunningError) return;
    for (const { what, action } of this.#actions.toReversed()) {
      try {
        await action();
      } catch (cause) {
        log().warn({ err: cause, what }, 'could not be taken back; left for the retry');
        return;
      }
    }
  }
}
