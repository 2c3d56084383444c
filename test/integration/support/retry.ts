/** Calling again and again, as a CO does. */
import { CsiError } from './csi-client.ts';

/** Codes after which external-provisioner and kubelet call again; INTERNAL and UNKNOWN are what a dying process leaves. */
const RETRIED = new Set(['ABORTED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'UNKNOWN', 'INTERNAL']);
const ATTEMPTS = 60;
const PAUSE_MS = 500;

/** @throws the call's last error: at once for a final code, else when patience is at its end */
export async function untilDone<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof CsiError) || !RETRIED.has(error.code) || attempt === ATTEMPTS) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
