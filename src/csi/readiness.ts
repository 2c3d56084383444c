/** Whether this process can do its work, from the probes of the roles that it has. */
import { log } from '../system/context.ts';
import type { ProbeResult } from '../volumes/backend.ts';

export type Probe = () => Promise<ProbeResult>;

/** Sidecars give up after 1 s (livenessprobe) to 15 s; a probe that hangs is itself a reason. */
const PROBE_TIMEOUT_MS = 10_000;

/** Probes once at a time, however many ask; logs why when it changes. Never throws. */
export class Readiness {
  readonly #probes: readonly Probe[];
  readonly #timeoutMs: number;
  #running: Promise<ProbeResult> | undefined;
  /** Also those that are overdue: one that hangs is waited for again, and not started a second time beside itself. */
  readonly #pending = new Map<Probe, Promise<ProbeResult>>();
  #lastLogged = '';

  constructor(probes: readonly Probe[], timeoutMs: number = PROBE_TIMEOUT_MS) {
    this.#probes = probes;
    this.#timeoutMs = timeoutMs;
  }

  async check(): Promise<ProbeResult> {
    this.#running ??= this.#check().finally(() => {
      this.#running = undefined;
    });
    return await this.#running;
  }

  async #check(): Promise<ProbeResult> {
    const results = await Promise.all(this.#probes.map(async (probe) => await this.#ask(probe)));
    const notReady = results.filter((result) => !result.ready);
    const result = { ready: notReady.length === 0, reasons: notReady.flatMap((each) => each.reasons) };
    this.#logChange(result);
    return result;
  }

  async #ask(probe: Probe): Promise<ProbeResult> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<ProbeResult>((resolve) => {
      const reasons = [`the check of this role did not answer within ${this.#timeoutMs} ms; see the driver's log`];
      timer = setTimeout(() => resolve({ ready: false, reasons }), this.#timeoutMs);
    });
    try {
      return await Promise.race([this.#start(probe), timeout]);
    } catch (error) {
      log().error({ err: error }, 'probe failed unexpectedly');
      return { ready: false, reasons: ["the check of this role failed unexpectedly; see the driver's log"] };
    } finally {
      clearTimeout(timer);
    }
  }

  #start(probe: Probe): Promise<ProbeResult> {
    const pending =
      this.#pending.get(probe) ?? (async () => await probe())().finally(() => this.#pending.delete(probe));
    this.#pending.set(probe, pending);
    // Of one that fails after its time nobody hears here: the next check asks anew.
    pending.catch(() => {});
    return pending;
  }

  #logChange(result: ProbeResult): void {
    const now = JSON.stringify(result);
    if (now === this.#lastLogged) return;
    this.#lastLogged = now;
    if (result.ready) log().info('ready');
    else log().warn({ reasons: result.reasons }, 'not ready');
  }
}
