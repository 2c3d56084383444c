/**
 * The process's life: STARTING → RUNNING → DRAINING → STOPPED, forwards only.
 *
 * SIGTERM or SIGINT: new calls are refused, calls in progress may end within the drain time, background work stops.
 * Exports, sessions and mounts stay as they are, and mutating commands go on in their own scope even when the time is
 * over. A second signal changes nothing: dying in the middle of a call is what the drain is there to avoid, and whoever
 * is really in a hurry has SIGKILL.
 */
import type { RunningRole } from './roles/role.ts';
import { log } from './system/context.ts';

export type LifeState = 'STARTING' | 'RUNNING' | 'DRAINING' | 'STOPPED';

export interface LifeCycleOptions {
  readonly drainTimeoutMs: number;
  /** Command lines of mutating commands in progress, to be named when the drain time is over. */
  readonly mutating: () => readonly string[];
}

export class LifeCycle {
  readonly #options: LifeCycleOptions;
  readonly #stopping = new AbortController();
  #state: LifeState = 'STARTING';
  #exitCode = 0;

  constructor(options: LifeCycleOptions) {
    this.#options = options;
  }

  get state(): LifeState {
    return this.#state;
  }

  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** Asks for an orderly end; the first reason counts. */
  stop(reason: string, exitCode = 0): void {
    if (this.#stopping.signal.aborted) {
      log().warn({ reason, state: this.#state }, 'already ending; the calls in progress are still waited for');
      return;
    }
    this.#exitCode = exitCode;
    log()[exitCode === 0 ? 'info' : 'error']({ reason, state: this.#state }, 'ending');
    this.#stopping.abort(reason);
  }

  /**
   * Runs a role from its start to its end; resolves with the exit code.
   * A start that fails because it was told to stop is no failure.
   */
  async run(start: (stopping: AbortSignal) => Promise<RunningRole>): Promise<number> {
    let role: RunningRole;
    try {
      role = await start(this.stopping);
    } catch (error) {
      this.#enter('STOPPED');
      if (this.stopping.aborted) return this.#exitCode;
      throw error;
    }
    this.#enter('RUNNING');
    await this.#untilStopping();
    this.#enter('DRAINING');
    await this.#drain(role);
    this.#enter('STOPPED');
    return this.#exitCode;
  }

  async #drain(role: RunningRole): Promise<void> {
    const { drainTimeoutMs, mutating } = this.#options;
    try {
      const left = await role.drain(drainTimeoutMs);
      if (left > 0)
        log().warn(
          { calls: left, drainTimeoutMs, mutating: mutating() },
          'drain time is over, calls are still running',
        );
      await role.close();
    } catch (error) {
      log().error({ err: error }, 'ending was not orderly');
      this.#exitCode = 1;
    }
  }

  async #untilStopping(): Promise<void> {
    if (this.stopping.aborted) return;
    await new Promise<void>((resolve) => {
      this.stopping.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  #enter(state: LifeState): void {
    this.#state = state;
    log().info({ state }, 'life cycle');
  }
}

/** Turns signals into stop(). SIGHUP too: nobody's terminal may end a driver in the middle of a call. */
export function stopOnSignals(lifeCycle: LifeCycle): void {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => lifeCycle.stop(signal));
}

/** Without a drain: every further step would be wrong. Mutating commands in progress go on in their own scope. */
export function endAtOnce(reason: string): void {
  log().fatal({ reason }, 'ending at once');
  process.exit(1);
}

/** What nobody caught leaves unknown state behind: say so and end at once; the next start repairs from the VG's tags. */
export function exitOnUnexpected(): void {
  const die = (kind: string) => (error: unknown) => {
    log().fatal({ err: error }, `${kind}; ending at once`);
    process.exit(1);
  };
  process.on('uncaughtException', die('uncaught exception'));
  process.on('unhandledRejection', die('unhandled rejection'));
}
