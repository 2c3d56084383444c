/** What a call has made so far, to be taken back in reverse order when it fails. */
import { DriverError } from '../errors.ts';
import { log } from '../system/context.ts';
import { DiskHeldError } from './exclusive.ts';
import { toDriverError } from './explain.ts';
import { StillRunningError } from './outstanding.ts';

interface Action {
  readonly what: string;
  readonly action: () => Promise<void>;
  readonly isMemory: boolean;
}

export class Undo {
  readonly #problem: string;
  readonly #actions: Action[] = [];

  /** `problem`: what could not be done when it comes to an undo, e.g. "volume X could not be staged". */
  constructor(problem: string) {
    this.#problem = problem;
  }

  /** The action looks for itself whether what stands upon it has gone: an earlier one may have failed. */
  push(what: string, action: () => Promise<void>): void {
    this.#actions.push({ what, action, isMemory: false });
  }

  /** What is remembered of all this: kept as long as anything is left. */
  pushMemory(what: string, action: () => Promise<void>): void {
    this.#actions.push({ what, action, isMemory: true });
  }

  /**
   * Takes everything back after `error`, and throws what is to be answered: `error` itself when nothing is left. What can
   * be taken back is, although something else could not; then the answer is ABORTED, because kubelet takes most codes
   * for "nothing was done" and would never come to unstage. A step that still runs, or somebody who has the disk,
   * forbids it altogether.
   */
  async run(error: unknown): Promise<never> {
    if (error instanceof StillRunningError || error instanceof DiskHeldError) throw error;
    const left: { readonly what: string; readonly cause: unknown }[] = [];
    for (const { what, action, isMemory } of this.#actions.toReversed()) {
      if (isMemory && left.length > 0) continue;
      try {
        await action();
      } catch (cause) {
        log().warn({ err: cause, what }, 'could not be taken back; left for the retry');
        left.push({ what, cause });
      }
    }
    if (left.length === 0) throw error;
    throw new DriverError(
      'ABORTED',
      {
        problem: this.#words(error),
        found: `beside that, not taken back: ${left.map(({ what, cause }) => `${what} (${this.#words(cause)})`).join(', ')}`,
        action: 'the call is retried, or undone by the unstage or unpublish of this volume',
      },
      { cause: error },
    );
  }

  #words(error: unknown): string {
    const known = toDriverError(error, this.#problem);
    return known instanceof DriverError ? known.message : `${this.#problem}: unexpected error, see the log`;
  }
}
