/**
 * Of a session that is down: does the target refuse us, or is it merely unreachable? The difference decides whether
 * unwritten data may be given up, so "refused" is said only when the target itself said so:
 * - at once for class 02h, "initiator error": no access, wrong CHAP, no such target (other targets than LIO);
 * - for 0301h, "service unavailable", when it stays so for some seconds: LIO says it for a target that does not exist or
 *   is disabled (revoked), but also while a booting storage host has not opened this target's portal yet.
 * A target that would let us in, but whose session iscsid has not brought back yet, counts as unreachable.
 *
 * Our controller opens portals last, when every target is complete, so that this window is short. Another program on
 * the storage host may open the same portal long before: the caller weighs "refused" with what it knows of the
 * attachment (it asks only while detaching).
 */
import type { LoginAnswer, LoginProbe } from './login-probe.ts';
import { pollUntil } from './poll.ts';
import { formatPortal, type Portal, parsePortal } from './portal.ts';
import type { Sessions } from './sessions.ts';
import type { IscsiSession, TargetReach } from './types.ts';

const PROBE_TIMEOUT_MS = 5_000;
/** iscsid tries again about every second: a target that lets us in has the session back by then, load aside. */
const RECOVERY_MS = 3_000;
const CONFIRM_MS = 5_000;
const CONFIRM_INTERVAL_MS = 1_000;
const POLL_MS = 100;

export interface ReachOptions {
  readonly sessions: Sessions;
  readonly initiatorIqn: () => Promise<string>;
  readonly probe: (probe: LoginProbe) => Promise<LoginAnswer>;
  /** How long "service unavailable" must stay before it is taken for a refusal; 5,000 when absent. */
  readonly confirmMs?: number;
}

export class Reach {
  readonly #options: ReachOptions;

  constructor(options: ReachOptions) {
    this.#options = options;
  }

  /** See Initiator.reach. */
  async reach(spec: { targetIqn: string; portal: string }): Promise<TargetReach> {
    const portal = parsePortal(spec.portal);
    const session = await this.#session(spec);
    if (session?.state === 'LOGGED_IN') return 'logged-in';
    // It ended meanwhile. Without it nobody knows the credentials, and a refusal for lack of them would say nothing.
    if (session === undefined) return 'unreachable';
    const deadline = Date.now() + (this.#options.confirmMs ?? CONFIRM_MS);
    for (;;) {
      const answer = await this.#ask(spec.targetIqn, portal, session.sid);
      if (answer.kind === 'refused') return 'refused';
      if (answer.kind === 'no-answer') return 'unreachable';
      if (answer.kind === 'accepted') break;
      if (Date.now() >= deadline) return 'refused';
      if ((await this.#recovers(spec, CONFIRM_INTERVAL_MS)) === true) return 'logged-in';
    }
    return (await this.#recovers(spec, RECOVERY_MS)) === true ? 'logged-in' : 'unreachable';
  }

  async #ask(targetIqn: string, portal: Portal, sid: number): Promise<LoginAnswer> {
    const credentials = await this.#options.sessions.credentials(sid);
    return await this.#options.probe({
      portal,
      initiatorIqn: credentials.initiatorIqn ?? (await this.#options.initiatorIqn()),
      targetIqn,
      chap: credentials.chap,
      mutualChap: credentials.mutualChap,
      timeoutMs: PROBE_TIMEOUT_MS,
    });
  }

  async #recovers(spec: { targetIqn: string; portal: string }, timeoutMs: number): Promise<true | undefined> {
    const probe = async (): Promise<true | undefined> =>
      (await this.#session(spec))?.state === 'LOGGED_IN' ? true : undefined;
    return await pollUntil(probe, { timeoutMs, intervalMs: POLL_MS });
  }

  async #session(spec: { targetIqn: string; portal: string }): Promise<IscsiSession | undefined> {
    const found = await this.#options.sessions.find(spec.targetIqn, formatPortal(parsePortal(spec.portal)));
    return found.find((session) => session.state === 'LOGGED_IN') ?? found[0];
  }
}
