/**
 * Of a session that is down: what does its target say? Evidence, and no more: what it means for the volume, and whether
 * unwritten data may be given up, is decided in src/node/standing.ts. A refusal is told only when it has lasted for some
 * seconds: a target that is being rebuilt, or whose portal is being opened, refuses for a moment.
 */
import type { LoginAnswer, LoginProbe } from './login-probe.ts';
import { pollUntil } from './poll.ts';
import { type Portal, parsePortal } from './portal.ts';
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
  /** How long a refusal must last before it is told; 5,000 when absent. */
  readonly confirmMs?: number;
}

interface Asked {
  readonly sid: number;
  readonly targetIqn: string;
  readonly portal: string;
}

export class Reach {
  readonly #options: ReachOptions;

  constructor(options: ReachOptions) {
    this.#options = options;
  }

  /** See Initiator.reach. */
  async reach(asked: Asked): Promise<TargetReach> {
    const portal = parsePortal(asked.portal);
    const session = await this.#session(asked);
    if (session?.state === 'LOGGED_IN') return { kind: 'logged-in' };
    // It ended meanwhile. Without it nobody knows the credentials, and a refusal for lack of them would say nothing.
    if (session === undefined) return { kind: 'unreachable' };
    const startedAt = performance.now();
    for (;;) {
      const answer = await this.#ask(asked, portal);
      if (answer.kind === 'no-answer') return { kind: 'unreachable' };
      if (answer.kind === 'accepted') break;
      const forMs = Math.round(performance.now() - startedAt);
      if (forMs >= (this.#options.confirmMs ?? CONFIRM_MS)) {
        return { kind: 'refused', reason: answer.kind === 'refused' ? answer.reason : 'unavailable', forMs };
      }
      if ((await this.#recovers(asked, CONFIRM_INTERVAL_MS)) === true) return { kind: 'logged-in' };
    }
    return (await this.#recovers(asked, RECOVERY_MS)) === true ? { kind: 'logged-in' } : { kind: 'accepted' };
  }

  async #ask({ sid, targetIqn }: Asked, portal: Portal): Promise<LoginAnswer> {
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

  async #recovers(asked: Asked, timeoutMs: number): Promise<true | undefined> {
    const probe = async (): Promise<true | undefined> =>
      (await this.#session(asked))?.state === 'LOGGED_IN' ? true : undefined;
    return await pollUntil(probe, { timeoutMs, intervalMs: POLL_MS });
  }

  async #session({ sid, targetIqn }: Asked): Promise<IscsiSession | undefined> {
    return (await this.#options.sessions.list(targetIqn)).find((session) => session.sid === sid);
  }
}
