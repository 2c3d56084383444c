import { captureLog } from '../lvm/captured-log.ts';

/** What the process logs at info and above while `action` runs. */
export async function logOf(action: () => Promise<unknown>): Promise<Record<string, unknown>[]> {
  const log = captureLog();
  try {
    await action();
    return log.lines();
  } finally {
    log.restore();
  }
}
