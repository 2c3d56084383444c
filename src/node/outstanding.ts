/**
 * Deadlines for steps that touch a device and can block in the kernel. Such a step cannot be stopped: at its deadline
 * the call is answered with ABORTED while the step goes on, and until it has ended every further call for that volume
 * is answered the same. So no two steps of one volume ever run side by side.
 */
import { performance } from 'node:perf_hooks';
import { DriverError } from '../errors.ts';
import { log } from '../system/context.ts';

/** A step overran its deadline and still runs: nothing may be undone now. */
export class StillRunningError extends DriverError {
  constructor(what: string, sinceMs: number) {
    super('ABORTED', {
      problem: `${what} has not come to an end`,
      found: `it has been running for ${Math.round(sinceMs / 1000)} s and may be blocked in the kernel`,
      action: 'check the path to the storage host (iscsiadm -m session -P 1, dmesg); the call is retried',
    });
  }
}

interface Running {
  readonly what: string;
  readonly startedAt: number;
}

export class Outstanding {
  readonly #running = new Map<string, Running>();

  /** @throws StillRunningError when an earlier call's step for the volume has not ended */
  assertIdle(volumeId: string): void {
    const running = this.#running.get(volumeId);
    if (running !== undefined) throw new StillRunningError(running.what, performance.now() - running.startedAt);
  }

  /**
   * Runs one step. `what` in words: "mounting /dev/sda".
   * @throws StillRunningError at the deadline; whatever the action throws
   */
  async run<T>(volumeId: string, what: string, timeoutMs: number, action: () => Promise<T>): Promise<T> {
    this.assertIdle(volumeId);
    const entry = { what, startedAt: performance.now() };
    this.#running.set(volumeId, entry);
    const work = action().finally(() => {
      if (this.#running.get(volumeId) === entry) this.#running.delete(volumeId);
    });
    return await this.#withDeadline(work, entry, timeoutMs);
  }

  /**
   * As run, for a step whose end is not needed: other steps may follow while it still hangs (an unmount of a file
   * system whose device is gone, before the lazy one).
   */
  async attempt<T>(what: string, timeoutMs: number, action: () => Promise<T>): Promise<T> {
    return await this.#withDeadline(action(), { what, startedAt: performance.now() }, timeoutMs);
  }

  async #withDeadline<T>(work: Promise<T>, { what, startedAt }: Running, timeoutMs: number): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    let overdue = false;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        overdue = true;
        reject(new StillRunningError(what, performance.now() - startedAt));
      }, timeoutMs);
    });
    const logger = log();
    work.then(
      () => overdue && logger.warn({ what, durationMs: performance.now() - startedAt }, 'an overdue step has ended'),
      (error: unknown) => overdue && logger.warn({ what, err: error }, 'an overdue step has failed'),
    );
    try {
      return await Promise.race([work, deadline]);
    } finally {
      clearTimeout(timer);
    }
  }
}
