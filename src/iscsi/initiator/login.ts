/**
 * Login and logout through iscsid. iscsiadm's answer is a hint, sysfs is the truth: iscsid goes on when iscsiadm is
 * killed, 2.1.10 never answers a login with scan=manual although it succeeds (fixed in 2.1.11, open-iscsi#485), and exit
 * code 6 tells of a record of somebody else that went away while iscsiadm read the database, login done or not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { log } from '../../system/context.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { step } from '../../system/step.ts';
import { IscsiError, type IscsiErrorKind } from './errors.ts';
import { EXIT, exitFailure, type Iscsiadm, type IscsiadmOutcome, timedOut } from './iscsiadm.ts';
import type { LoginAnswer } from './login-probe.ts';
import { pollUntil } from './poll.ts';
import { checkTargetName, formatPortal, parsePortal } from './portal.ts';
import { PortalQueues } from './portal-queues.ts';
import type { RecordSettings } from './record-text.ts';
import { recordText } from './record-text.ts';
import type { NodeRecords } from './records.ts';
import type { Sessions } from './sessions.ts';
import type { IscsiSession, LoginSpec } from './types.ts';

const POLL_MS = 50;
/** From iscsiadm's answer to the state in sysfs; also how long a login that outlived its iscsiadm may still arrive. */
const SETTLE_MS = 2_000;
/** iscsid drops a session whose target does not answer the logout after 15 s. */
const LOGOUT_COMMAND_TIMEOUT_MS = 30_000;
const LOGOUT_TIMEOUT_MS = 15_000;
const LOGIN_ATTEMPTS = 5;
/** Exit codes with which the login may have been done: sysfs tells. */
const INCONCLUSIVE: readonly number[] = [EXIT.ok, EXIT.database, EXIT.sessionExists];
/**
 * Of a logout: measured with 2.1.8 after a restart of iscsid while a session was down. It takes over one session after
 * the other and waits for each to be up again; until then it refuses to end that one (32, 9) and does not know those
 * after it (2), healthy ones too (iscsid.c sync_session, initiator.c session_logout_task).
 */
const HELD_BY_ISCSID: readonly number[] = [EXIT.sessionNotFound, EXIT.internal, EXIT.notConnected];
/** Exit codes that other users of open-iscsi's database cause, or a session that ended just now. */
const AGAIN: readonly number[] = [EXIT.database, EXIT.nothingFound, EXIT.sessionExists];

export interface LoginsOptions {
  readonly iscsiadm: Iscsiadm;
  readonly records: NodeRecords;
  readonly sessions: Sessions;
  readonly settings: RecordSettings;
  /** Logins at once to one portal, and as many logouts. */
  readonly concurrency: number;
  /** The administrator's "node.…" lines of iscsid.conf. */
  readonly recordDefaults: () => Promise<ReadonlyMap<string, string>>;
  /** Asks the target itself why it refused, for the error's kind and text. */
  readonly askTarget: (spec: LoginSpec) => Promise<LoginAnswer>;
}

export class Logins {
  readonly #options: LoginsOptions;
  readonly #loginQueues: PortalQueues;
  /** Their own, so that logouts do not wait for logins: a fence's clean-up is among them. */
  readonly #logoutQueues: PortalQueues;
  readonly #locks = new KeyedMutex();

  constructor(options: LoginsOptions) {
    this.#options = options;
    this.#loginQueues = new PortalQueues(options.concurrency);
    this.#logoutQueues = new PortalQueues(options.concurrency);
  }

  /** See Initiator.login. @throws IscsiError of any kind but in-use and flush-failed */
  async login(spec: LoginSpec): Promise<IscsiSession> {
    checkTargetName(spec.targetIqn);
    const portal = parsePortal(spec.portal);
    return await this.#exclusive(spec.targetIqn, spec.portal, () =>
      this.#loginQueues.run(formatPortal(portal), async () => {
        const { settings, records } = this.#options;
        await records.write(spec.targetIqn, portal, recordText(spec, settings, await this.#options.recordDefaults()));
        try {
          return await this.#logIn(spec);
        } catch (error) {
          await this.#cleanUp(spec, error);
          throw error;
        }
      }),
    );
  }

  /** See Initiator.logout. @throws IscsiError timeout, iscsid-down, missing, lock-busy, other */
  async logout(targetIqn: string, portal: string): Promise<void> {
    checkTargetName(targetIqn);
    const parsed = parsePortal(portal);
    await this.#exclusive(targetIqn, portal, () =>
      this.#logoutQueues.run(formatPortal(parsed), async () => {
        await this.#endSessions(targetIqn, formatPortal(parsed));
        await this.#options.records.delete(targetIqn, parsed);
      }),
    );
  }

  async #logIn(spec: LoginSpec): Promise<IscsiSession> {
    const { iscsiadm, sessions, settings } = this.#options;
    const doing = `login to ${spec.targetIqn} at ${spec.portal}`;
    const deadline = Date.now() + settings.loginTimeoutMs;
    for (let attempt = 1; ; attempt++) {
      const leftMs = Math.max(1000, deadline - Date.now());
      const outcome = await step('iscsi-login', () =>
        iscsiadm.run(['-m', 'node', '-T', spec.targetIqn, '-p', spec.portal, '--login'], leftMs),
      );
      const exitCode = outcome.kind === 'exited' ? outcome.exitCode : undefined;
      if (exitCode === EXIT.sessionExists && attempt === 1) {
        // Not ours: nothing of ours has reached iscsid yet.
        const existing = await sessions.find(spec.targetIqn, spec.portal);
        if (existing.length > 0) throw sessionExists(spec, existing);
      } else if (exitCode === undefined || INCONCLUSIVE.includes(exitCode)) {
        const session = await this.#loggedIn(spec, exitCode === EXIT.database ? 0 : SETTLE_MS);
        if (session !== undefined) {
          if (exitCode !== EXIT.ok)
            log().warn({ exitCode, sid: session.sid }, `${doing}: done, although iscsiadm failed`);
          return session;
        }
      }
      const again = exitCode !== undefined && AGAIN.includes(exitCode);
      if (!again || attempt === LOGIN_ATTEMPTS || Date.now() >= deadline)
        throw await this.#explain(spec, outcome, doing);
      await sleep(attempt * 50);
    }
  }

  async #loggedIn(spec: LoginSpec, timeoutMs: number): Promise<IscsiSession | undefined> {
    const probe = async (): Promise<IscsiSession | undefined> => {
      const found = await this.#options.sessions.find(spec.targetIqn, formatPortal(parsePortal(spec.portal)));
      return found.find((session) => session.state === 'LOGGED_IN');
    };
    return await pollUntil(probe, { timeoutMs, intervalMs: POLL_MS });
  }

  /** A failed login leaves no session and no record. What cannot be undone is logged; the login's own error is the answer. */
  async #cleanUp(spec: LoginSpec, error: unknown): Promise<void> {
    try {
      const foreign = error instanceof IscsiError && error.kind === 'session-exists';
      if (!foreign) await this.#endSessions(spec.targetIqn, formatPortal(parsePortal(spec.portal)));
      await this.#options.records.delete(spec.targetIqn, parsePortal(spec.portal));
    } catch (cleanUpError) {
      log().warn({ err: cleanUpError, targetIqn: spec.targetIqn }, 'cleaning up after a failed login failed');
    }
  }

  /** By session number, which the kernel never uses again before a reboot: no other session can be hit. */
  async #endSessions(targetIqn: string, portal: string): Promise<void> {
    const { iscsiadm, sessions } = this.#options;
    for (const { sid } of await sessions.find(targetIqn, portal)) {
      const deadline = Date.now() + LOGOUT_TIMEOUT_MS;
      for (;;) {
        const outcome = await step('iscsi-logout', () =>
          iscsiadm.run(['-m', 'session', '-r', String(sid), '-u'], LOGOUT_COMMAND_TIMEOUT_MS),
        );
        const gone = async (): Promise<true | undefined> => ((await sessions.exists(sid)) ? undefined : true);
        if ((await pollUntil(gone, { timeoutMs: SETTLE_MS, intervalMs: POLL_MS })) === true) break;
        if (Date.now() >= deadline) {
          throw logoutFailed(outcome, `logout of ${targetIqn} at ${portal} (session ${sid})`);
        }
      }
    }
  }

  /** The failure's kind: iscsiadm's exit code where it is exact, else the target's own answer (4, 5, 8, 19 and 24 stand for many). */
  async #explain(spec: LoginSpec, outcome: IscsiadmOutcome, doing: string): Promise<IscsiError> {
    if (outcome.kind === 'timed-out') return timedOut(outcome, doing);
    const known = exitFailure(outcome, doing);
    if (known !== undefined) return known;
    const cause = outcome.result;
    switch (outcome.exitCode) {
      case EXIT.ok:
        return new IscsiError('other', `${doing}: iscsiadm reported success, and there is no session`, { cause });
      case EXIT.sessionExists:
        return sessionExists(spec, []);
      case EXIT.database:
      case EXIT.nothingFound:
        return new IscsiError(
          'other',
          `${doing}: open-iscsi does not find its node record; to do: is another program deleting records?`,
          { cause },
        );
      case EXIT.pduTimeout:
      case EXIT.requestTimeout:
        return new IscsiError('timeout', `${doing}: the target did not answer the login in time`, { cause });
      default: {
        const answer = await this.#options.askTarget(spec);
        log().info({ exitCode: outcome.exitCode, answer }, `${doing} failed; the target's own answer`);
        return fromAnswer(answer, outcome.exitCode, doing, cause);
      }
    }
  }

  async #exclusive<T>(targetIqn: string, portal: string, action: () => Promise<T>): Promise<T> {
    return await this.#locks.run(`${targetIqn} ${portal}`, action);
  }
}

function fromAnswer(answer: LoginAnswer, exitCode: number, doing: string, cause: unknown): IscsiError {
  const error = (kind: IscsiErrorKind, what: string): IscsiError =>
    new IscsiError(kind, `${doing}: ${what} (iscsiadm exit code ${exitCode})`, { cause });
  // Exit code 24 is exact but for its reason; any other answer than a refusal came too late to explain it.
  if (exitCode === EXIT.authorization && answer.kind !== 'refused') {
    return error('auth-failed', 'the target refused this initiator or its CHAP credentials');
  }
  const reason = answer.kind === 'refused' ? answer.reason : answer.kind;
  switch (reason) {
    case 'authentication':
      return error('auth-failed', 'the target refuses the CHAP credentials, or that there are none');
    case 'authorization':
      return error('auth-failed', 'the target has no access entry for this initiator');
    case 'not-found':
    case 'unavailable':
      return error('target-not-found', 'the portal answers, and the target is not there or out of service');
    case 'no-answer':
      return error('unreachable', 'the portal does not answer; to do: check network, firewall and the storage host');
    case 'accepted':
    case 'other':
      break;
  }
  // The target would let us in now, or says what we do not know: iscsid's own word.
  if (exitCode === EXIT.transport || exitCode === EXIT.transportTimeout) {
    return error('unreachable', 'the connection to the portal failed');
  }
  return error('other', 'failed; to do: look at "journalctl -u iscsid"');
}

function sessionExists(spec: LoginSpec, existing: readonly IscsiSession[]): IscsiError {
  const sids = existing.map((session) => session.sid).join(', ');
  return new IscsiError(
    'session-exists',
    `there is a session to ${spec.targetIqn} at ${spec.portal} already (${sids || 'ended meanwhile'})`,
  );
}

function logoutFailed(outcome: IscsiadmOutcome, doing: string): IscsiError {
  if (outcome.kind === 'timed-out') return timedOut(outcome, doing);
  const known = exitFailure(outcome, doing);
  if (known !== undefined) return known;
  const cause = outcome.result;
  if (HELD_BY_ISCSID.includes(outcome.exitCode)) {
    return new IscsiError(
      'timeout',
      `${doing}: iscsid was restarted while sessions of this node were down and does not let this one go (iscsiadm exit code ${outcome.exitCode}); it ends once the storage hosts of all of them let them in again, or with a reboot of this node`,
      { cause },
    );
  }
  return new IscsiError('other', `${doing}: the session is still there (iscsiadm exit code ${outcome.exitCode})`, {
    cause,
  });
}
