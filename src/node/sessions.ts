/** Which iSCSI sessions belong to a volume, and whether one works. */
import { DriverError } from '../errors.ts';
import type { IscsiSession, TargetReach } from '../iscsi/initiator/types.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { isSafeVolumeId, type NodeRecord } from './records.ts';

/** A target's name ends in the volume's id, whatever its prefix: so a session is found when the record is lost. */
export function isTargetOf(targetIqn: string, volumeId: string): boolean {
  return isSafeVolumeId(volumeId) && targetIqn.endsWith(`:${volumeId}`);
}

export async function sessionsOf(env: NodeEnvironment, volumeId: string): Promise<IscsiSession[]> {
  return (await env.initiator.sessions()).filter((session) => isTargetOf(session.targetIqn, volumeId));
}

/** Of a session that is down: refused, unreachable, or up again. */
export async function reachOf(
  env: NodeEnvironment,
  volumeId: string,
  session: IscsiSession,
  record: NodeRecord | undefined,
): Promise<TargetReach> {
  const portal = portalOf(session, record);
  if (portal === '') return 'unreachable';
  return await env.outstanding.run(volumeId, `asking ${portal} for ${session.targetIqn}`, DEADLINES.reach, () =>
    env.initiator.reach({ targetIqn: session.targetIqn, portal }),
  );
}

/** A session that never had a connection names no portal; the record does. */
export function portalOf(session: IscsiSession, record: NodeRecord | undefined): string {
  return session.portal === '' ? (record?.portals[0] ?? '') : session.portal;
}

/** @throws DriverError UNAVAILABLE, with the reason, unless the session is logged in */
export async function requireLoggedIn(
  env: NodeEnvironment,
  volumeId: string,
  session: IscsiSession,
  record: NodeRecord | undefined,
): Promise<void> {
  if (session.state === 'LOGGED_IN') return;
  const reach = await reachOf(env, volumeId, session, record);
  if (reach === 'logged-in') return;
  if (reach === 'refused') {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `the iSCSI session of volume ${volumeId} is down`,
      found: 'the target refuses this node: the attachment has been revoked',
      action: 'let the volume be unstaged, attached and staged again',
    });
  }
  throw sessionDown(volumeId, session, portalOf(session, record));
}

export function sessionDown(volumeId: string, session: IscsiSession, portal: string): DriverError {
  return new DriverError('UNAVAILABLE', {
    problem: `the iSCSI session of volume ${volumeId} is down`,
    found: `session ${session.sid} is ${session.state}, portal ${portal === '' ? 'unknown' : portal}`,
    action: 'check the storage host and the network to it; nothing was changed, the call is retried',
  });
}
