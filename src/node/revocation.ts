/**
 * Ends sessions of revoked attachments that nobody asks to be unstaged. A node that was frozen or cut off, and is back,
 * has processes of a pod that was moved meanwhile: they wait in the kernel for I/O that the target refuses, so they cannot
 * be killed, the pod does not end, and kubelet never comes to unpublish. Once the session has ended they get their error.
 * Only the session goes, with the volume's unwritten data, which nobody can write any more (standing.ts). Mounts and
 * record stay: kubelet unpublishes and unstages as ever.
 *
 * Nobody has asked for it here, so the proof is stronger than an unstage's: seen at each look for a while. A target that is
 * there and has this node's access no more is what a detach makes. One that is gone may have been deleted by hand: the
 * controller, whose witness knows nothing of that, exports it again at its next comparison, at most five minutes later
 * (src/roles/comparison-pace.ts).
 */
import type { IscsiSession, RefusalReason } from '../iscsi/initiator/types.ts';
import { log } from '../system/context.ts';
import type { NodeEnvironment } from './environment.ts';
import type { NodeRecord } from './records.ts';
import { isTargetOf, sessionsOf } from './sessions.ts';
import { endSessions } from './stale.ts';
import { portalsOf, standingOf } from './standing.ts';

/** How often to look, in milliseconds. */
export const LOOK_EVERY_MS = 30_000;
/** The next look agrees. */
const WITHOUT_ACCESS_MS = 25_000;
const WITHOUT_TARGET_MS = 360_000;

/** Runs it unless a call on the volume is in progress; answers whether it ran. */
export type IfIdle = (volumeId: string, action: () => Promise<void>) => Promise<boolean>;

/**
 * One look at all sessions that are down. Errors of one volume are logged and do not keep the others from it.
 * @param nowMs of a monotonic clock
 */
export async function endRevokedSessions(env: NodeEnvironment, ifIdle: IfIdle, nowMs: number): Promise<void> {
  const down = (await env.initiator.sessions()).filter(({ state }) => state !== 'LOGGED_IN');
  if (down.length === 0) return;
  const witnesses = new Witnesses(env);
  for (const volumeId of await env.records.list()) {
    const mine = down.filter(({ targetIqn }) => isTargetOf(targetIqn, volumeId));
    if (mine.length === 0) continue;
    try {
      const record = await env.records.load(volumeId);
      // Asked before the volume is held: a storage host that does not answer must not keep calls waiting.
      if (record === undefined || !(await witnesses.tellAt(record, mine))) {
        for (const session of mine) env.refusals.forget(keyOf(volumeId, session));
        continue;
      }
      await ifIdle(volumeId, async () => await endIfRevoked(env, volumeId, nowMs));
    } catch (error) {
      log().warn({ volumeId, err: error }, 'a session that is down could not be looked at; tried again');
    }
  }
}

/** What the witnesses say, asked once in a look: it is the same for all volumes of a controller. */
class Witnesses {
  readonly #env: NodeEnvironment;
  readonly #answers = new Map<string, Promise<boolean>>();

  constructor(env: NodeEnvironment) {
    this.#env = env;
  }

  /** Whether at some portal of the sessions all volumes are exported; without that no attachment is taken for revoked. */
  async tellAt(record: NodeRecord, sessions: readonly IscsiSession[]): Promise<boolean> {
    const { witnessIqn: targetIqn } = record;
    if (targetIqn === undefined) return false;
    for (const portal of new Set(sessions.flatMap((session) => portalsOf(session, record)))) {
      const key = `${targetIqn} ${portal}`;
      const answer =
        this.#answers.get(key) ??
        this.#env.initiator.knock({ targetIqn, portal }).then((said) => said === 'authorization');
      this.#answers.set(key, answer);
      if (await answer) return true;
    }
    return false;
  }
}

async function endIfRevoked(env: NodeEnvironment, volumeId: string, nowMs: number): Promise<void> {
  env.outstanding.assertIdle(volumeId);
  const record = await env.records.load(volumeId);
  const sessions = await sessionsOf(env, volumeId);
  const revoked: IscsiSession[] = [];
  for (const session of sessions) {
    if (await isRevokedForGood(env, { volumeId, session, record, nowMs })) revoked.push(session);
  }
  // With one that works, or may yet, there is more than one attachment: a stage or unstage tells which is which.
  if (revoked.length === 0 || revoked.length < sessions.length) return;
  log().warn(
    { volumeId, sids: revoked.map(({ sid }) => sid), targetIqn: revoked[0]?.targetIqn },
    'the attachment was revoked, and its session is down: it is ended, so that what waits for it gets its error; unwritten data of the volume is discarded',
  );
  await endSessions(env, { volumeId, record, sessions: revoked });
  for (const session of revoked) env.refusals.forget(keyOf(volumeId, session));
}

async function isRevokedForGood(
  env: NodeEnvironment,
  question: { volumeId: string; session: IscsiSession; record: NodeRecord | undefined; nowMs: number },
): Promise<boolean> {
  const { volumeId, session, record, nowMs } = question;
  const key = keyOf(volumeId, session);
  const standing =
    session.state === 'LOGGED_IN' ? { kind: 'logged-in' as const } : await standingOf(env, volumeId, session, record);
  if (standing.kind !== 'revoked') {
    env.refusals.forget(key);
    return false;
  }
  return env.refusals.note(key, 0, nowMs) >= patienceMs(standing.reason);
}

function patienceMs(reason: RefusalReason): number {
  return reason === 'authorization' ? WITHOUT_ACCESS_MS : WITHOUT_TARGET_MS;
}

const keyOf = (volumeId: string, { sid }: IscsiSession): string => `revoked ${volumeId} ${sid}`;
