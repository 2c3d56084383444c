/**
 * Of a session that is down: has the attachment been revoked, so that what is unwritten can never be written and another
 * node may own the volume? Only then may it be discarded, so it takes proof:
 *
 * - the target refuses this node, and not for its credentials (0201h: they are changed in the course of a fence, which
 *   ends with the access itself, and a user's own may be wrong for another reason); and
 * - the controller's witness at the same portal says that every attached volume is exported there
 *   (src/iscsi/target/witness.ts): "not authorized", both before and after the target was asked, so that it holds for
 *   the time between. A storage host that is booting, one where this volume's export failed, another one at the same
 *   address do not say that.
 *
 * An attachment that was made before there was a witness is taken for revoked after ten minutes of refusals alone.
 * Everything else is undecided: wait, with nothing discarded.
 */
import type { IscsiSession, KnockAnswer, RefusalReason, TargetReach } from '../iscsi/initiator/types.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import type { NodeRecord } from './records.ts';

export type Standing =
  | { readonly kind: 'logged-in' }
  /** In the target's words. */
  | { readonly kind: 'revoked'; readonly reason: RefusalReason }
  /** `why` in words, for the message. */
  | { readonly kind: 'undecided'; readonly why: string };

/** For attachments without a witness. */
const UNWITNESSED_MS = 600_000;

const REASONS: Readonly<Record<RefusalReason, string>> = {
  authentication: 'wrong credentials',
  authorization: 'no access for this node',
  'not-found': 'no such target',
  unavailable: 'no such target, or out of service',
  other: 'an unknown reason',
};

/** Asks at the session's own portal first, then at the others of the record. */
export async function standingOf(
  env: NodeEnvironment,
  volumeId: string,
  session: IscsiSession,
  record: NodeRecord | undefined,
): Promise<Standing> {
  let why: string | undefined;
  for (const portal of portalsOf(session, record)) {
    const standing = await atPortal(env, { volumeId, session, record, portal });
    if (standing.kind === 'logged-in' || standing.kind === 'revoked') return standing;
    if (standing.kind === 'admitted') return { kind: 'undecided', why: standing.why };
    why ??= standing.why;
  }
  return { kind: 'undecided', why: why ?? 'no portal is known to ask at' };
}

/** A session that never had a connection names no portal; the record does. */
export function portalsOf(session: IscsiSession, record: NodeRecord | undefined): string[] {
  return [...new Set([session.portal, ...(record?.portals ?? [])])].filter((portal) => portal !== '');
}

interface Question {
  readonly volumeId: string;
  readonly session: IscsiSession;
  readonly record: NodeRecord | undefined;
  readonly portal: string;
}

/** One portal that lets the session in is enough to know that the attachment is alive. */
type Answer = Standing | { readonly kind: 'admitted'; readonly why: string };

async function atPortal(env: NodeEnvironment, question: Question): Promise<Answer> {
  const { volumeId, session, record, portal } = question;
  const key = `${volumeId} ${session.sid} ${portal}`;
  const before = await askWitness(env, question);
  const reach = await askTarget(env, question);
  if (reach.kind !== 'refused') env.refusals.forget(key);
  if (reach.kind === 'logged-in') return { kind: 'logged-in' };
  if (reach.kind === 'unreachable') return { kind: 'undecided', why: `portal ${portal} does not answer` };
  if (reach.kind === 'accepted') {
    return { kind: 'admitted', why: `${portal} lets this node in; the session is being brought back` };
  }
  const refused = `${portal} refuses ${session.targetIqn} (${REASONS[reach.reason]})`;
  if (reach.reason === 'authentication' || reach.reason === 'other') return { kind: 'undecided', why: refused };
  if (record?.witnessIqn === undefined) {
    const forMs = env.refusals.note(key, reach.forMs, performance.now());
    if (forMs >= UNWITNESSED_MS) return { kind: 'revoked', reason: reach.reason };
    const waited = `for ${Math.round(forMs / 1000)} s of the ${UNWITNESSED_MS / 1000} after which that is believed`;
    return { kind: 'undecided', why: `${refused} ${waited}, since this attachment has no witness` };
  }
  const after = await askWitness(env, question);
  if (before === 'authorization' && after === 'authorization') return { kind: 'revoked', reason: reach.reason };
  return {
    kind: 'undecided',
    why: `${refused}, and its controller does not say that all volumes are exported: that host is starting, or one of its exports has failed`,
  };
}

async function askTarget(env: NodeEnvironment, { volumeId, session, portal }: Question): Promise<TargetReach> {
  const { sid, targetIqn } = session;
  return await env.outstanding.run(volumeId, `asking ${portal} for ${targetIqn}`, DEADLINES.reach, () =>
    env.initiator.reach({ sid, targetIqn, portal }),
  );
}

async function askWitness(
  env: NodeEnvironment,
  { volumeId, record, portal }: Question,
): Promise<KnockAnswer | undefined> {
  const targetIqn = record?.witnessIqn;
  if (targetIqn === undefined) return undefined;
  return await env.outstanding.run(volumeId, `asking ${portal} for ${targetIqn}`, DEADLINES.reach, () =>
    env.initiator.knock({ targetIqn, portal }),
  );
}
