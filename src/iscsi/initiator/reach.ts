/**
 * Of a session that is down: does the target refuse us, or is it merely unreachable? The difference decides whether
 * unwritten data may be given up, so "refused" is said only when the target itself said so, by a class 02h status
 * ("initiator error": no such target, no access, wrong CHAP). "Out of service" (class 03h: portal group disabled, or not
 * yet open on this portal) may pass and counts as unreachable, as does a target that would let us in but whose session
 * iscsid has not brought back yet.
 *
 * A storage host that boots may answer "no such target" before it has rebuilt this one. Our controller opens portals
 * last, but another program on that host may open the same portal earlier: the caller weighs "refused" with what it
 * knows of the attachment (it asks only while detaching).
 */
import type { LoginAnswer, LoginProbe } from './login-probe.ts';
import { pollUntil } from './poll.ts';
import { formatPortal, parsePortal } from './portal.ts';
import type { Sessions } from './sessions.ts';
import type { IscsiSession, TargetReach } from './types.ts';

const PROBE_TIMEOUT_MS = 5_000;
/** iscsid tries again about every second: a target that lets us in has the session back by then, load aside. */
const RECOVERY_MS = 3_000;
const POLL_MS = 100;

export interface ReachOptions {
  readonly sessions: Sessions;
  readonly initiatorIqn: () => Promise<string>;
  readonly probe: (probe: LoginProbe) => Promise<LoginAnswer>;
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
    const credentials = await this.#options.sessions.credentials(session.sid);
    const answer = await this.#options.probe({
      portal,
      initiatorIqn: credentials.initiatorIqn ?? (await this.#options.initiatorIqn()),
      targetIqn: spec.targetIqn,
      chap: credentials.chap,
      mutualChap: credentials.mutualChap,
      timeoutMs: PROBE_TIMEOUT_MS,
    });
    if (answer.kind === 'refused') return 'refused';
    if (answer.kind === 'no-answer') return 'unreachable';
    const recovered = async (): Promise<true | undefined> =>
      (await this.#session(spec))?.state === 'LOGGED_IN' ? true : undefined;
    const back = await pollUntil(recovered, { timeoutMs: RECOVERY_MS, intervalMs: POLL_MS });
    return back === true ? 'logged-in' : 'unreachable';
  }

  async #session(spec: { targetIqn: string; portal: string }): Promise<IscsiSession | undefined> {
    const found = await this.#options.sessions.find(spec.targetIqn, formatPortal(parsePortal(spec.portal)));
    return found.find((session) => session.state === 'LOGGED_IN') ?? found[0];
  }
}
