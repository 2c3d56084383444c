/** Calling again and again, as a CO does. */
import { CsiError } from './csi-client.ts';

/** Codes after which external-provisioner and kubelet call again, and which a healthy driver may answer. */
const RETRIED: ReadonlySet<string> = new Set(['ABORTED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED']);
/** What comes of a call in whose midst the process dies, beside UNAVAILABLE. */
const OF_DYING: ReadonlySet<string> = new Set(['CANCELLED', 'UNKNOWN', 'INTERNAL']);
/**
 * Of a call that may leave something behind a failure that nobody foresaw is UNAVAILABLE, not INTERNAL (src/csi/status.ts,
 * src/volumes/lvm-errors.ts, src/volumes/export-errors.ts, src/node/explain.ts). All of them send their reader to the
 * driver's log; what is only late, as everything may be on an emulated host, does not.
 */
const UNFORESEEN = /failed unexpectedly|\b(driver|controller|plugin)('s)? log\b|see the log/;
const LATE = /did not end within \d+ ms/;
const ATTEMPTS = 60;
/** Doubled after each answer, as kubelet and the sidecars do: fifty that ask twice a second are a load of their own. */
const PAUSE_MS = 500;
const MAX_PAUSE_MS = 10_000;

export interface RetryOptions {
  /**
   * Processes die during the calls: what they leave of an answer is no failure. Default false: a race in the driver that
   * shows as INTERNAL, or as anything else that is not foreseen, must not be outlived by trying again.
   */
  readonly dying?: boolean;
}

/** @throws the call's last error: at once for one that a CO, or this test, must not get, else when patience is at its end */
export async function untilDone<T>(call: () => Promise<T>, { dying = false }: RetryOptions = {}): Promise<T> {
  let told = '';
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CsiError) || !isRetried(error, dying) || attempt === ATTEMPTS) throw error;
      // Whoever reads the run sees what was outlived.
      if (!dying && error.message !== told) console.log(`      called again after ${error.message}`);
      told = error.message;
    }
    // A process that comes back is there within a second or two.
    const pauseMs = dying ? PAUSE_MS : Math.min(PAUSE_MS * 2 ** (attempt - 1), MAX_PAUSE_MS);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

function isRetried({ code, message }: CsiError, dying: boolean): boolean {
  if (dying) return RETRIED.has(code) || OF_DYING.has(code);
  return RETRIED.has(code) && (!UNFORESEEN.test(message) || LATE.test(message));
}
