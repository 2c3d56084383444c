/** Which iSCSI sessions belong to a volume, and whether one works. */
import { DriverError } from '../errors.ts';
import type { IscsiSession } from '../iscsi/initiator/types.ts';
import type { NodeEnvironment } from './environment.ts';
import { isSafeVolumeId, type NodeRecord } from './records.ts';
import { portalsOf, standingOf } from './standing.ts';

/** A target's name ends in the volume's id, whatever its prefix: so a session is found when the record is lost. */
export function isTargetOf(targetIqn: string, volumeId: string): boolean {
  return isSafeVolumeId(volumeId) && targetIqn.endsWith(`:${volumeId}`);
}

export async function sessionsOf(env: NodeEnvironment, volumeId: string): Promise<IscsiSession[]> {
  return (await env.initiator.sessions()).filter((session) => isTargetOf(session.targetIqn, volumeId));
}

/** A session that never had a connection names no portal; the record does. */
export function portalOf(session: IscsiSession, record: NodeRecord | undefined): string {
  return portalsOf(session, record)[0] ?? '';
}

/** @throws DriverError UNAVAILABLE, with the reason, unless the session is logged in */
export async function requireLoggedIn(
  env: NodeEnvironment,
  volumeId: string,
  session: IscsiSession,
  record: NodeRecord | undefined,
): Promise<void> {
  if (session.state === 'LOGGED_IN') return;
  const standing = await standingOf(env, volumeId, session, record);
  if (standing.kind === 'logged-in') return;
  if (standing.kind === 'revoked') {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `the iSCSI session of volume ${volumeId} is down`,
      found: 'the target refuses this node: the attachment has been revoked',
      action: 'let the volume be unstaged, attached and staged again',
    });
  }
  throw sessionDown(volumeId, session, standing.why);
}

export function sessionDown(volumeId: string, session: IscsiSession, why: string): DriverError {
  return new DriverError('UNAVAILABLE', {
    problem: `the iSCSI session of volume ${volumeId} is down`,
    found: `session ${session.sid} is ${session.state}; ${why}`,
    action: 'check the storage host, its controller and the network to it; nothing was changed, the call is retried',
  });
}
