import { setTimeout as sleep } from 'node:timers/promises';

export interface PollOptions {
  /** From now, in milliseconds. The probe runs at least once, and once more when the time is up. */
  readonly timeoutMs: number;
  readonly intervalMs: number;
}

/** Asks until the answer is not undefined; undefined when the time is up. The kernel offers no event for these conditions. */
export async function pollUntil<T>(probe: () => Promise<T | undefined>, options: PollOptions): Promise<T | undefined> {
  const deadline = Date.now() + options.timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer !== undefined) return answer;
    const leftMs = deadline - Date.now();
    if (leftMs <= 0) return undefined;
    await sleep(Math.min(options.intervalMs, leftMs));
  }
}

/**
 * For files that cannot block in the kernel (sysfs attributes, small files on the root disk): only a starved machine
 * takes long over them (measured: 20 logins at once on an emulated, overloaded processor), and failing helps nobody then.
 */
export const PATIENT = { timeoutMs: 60_000 } as const;
