/**
 * At start: open-iscsi's lock goes if a dead predecessor of ours holds it; records of earlier boots whose sessions are
 * gone are forgotten, with their iSCSI node records; everything else is only looked at and logged. Live I/O is never
 * touched here: what is stale is ended by the next stage or unstage of that volume, which knows what is wanted.
 */
import { log } from '../system/context.ts';
import type { NodeEnvironment } from './environment.ts';
import { isTargetOf } from './sessions.ts';
import { deleteIscsiRecord } from './stale.ts';

export interface RecoveryResult {
  /** Volume ids whose records of an earlier boot were removed. */
  readonly forgotten: readonly string[];
  /** Volume ids with a record and a session. */
  readonly attached: readonly string[];
  /** Targets that look like ours (…:volume-<uuid>) and have a session but no record. */
  readonly unexplained: readonly string[];
}

const OUR_TARGET = /:volume-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Before Linux 5.8 syncfs(2) reports no write error: an unstage cannot see that data is lost. */
const SYNCFS_REPORTS = [5, 8] as const;

export async function warnOldKernel(env: NodeEnvironment): Promise<void> {
  const release = (await env.files.readText('/proc/sys/kernel/osrelease')).trim();
  if (!isOlder(release, SYNCFS_REPORTS)) return;
  log().warn(
    { kernel: release },
    'this kernel is older than 5.8: write errors of a file system are not reported when its volume is unstaged; update it',
  );
}

export function isOlder(release: string, [major, minor]: readonly [number, number]): boolean {
  const match = /^([0-9]+)\.([0-9]+)/.exec(release);
  if (match === null) return false;
  const [first, second] = [Number(match[1]), Number(match[2])];
  return first < major || (first === major && second < minor);
}

/** One bad record does not keep the others from being looked at; it is logged and left. */
export async function recoverRecords(env: NodeEnvironment): Promise<RecoveryResult> {
  // It hinders others; ours would wait for it and then break it as well.
  await env.initiator.releaseLeft().catch((error: unknown) => {
    log().error({ err: error }, "open-iscsi's database lock could not be looked at");
  });
  await env.records.sweep();
  const bootId = await env.bootId();
  const sessions = await env.initiator.sessions();
  const volumeIds = await env.records.list();
  const forgotten: string[] = [];
  const attached: string[] = [];
  for (const volumeId of volumeIds) {
    try {
      const record = await env.records.load(volumeId);
      if (record === undefined) continue;
      const mine = sessions.filter(({ targetIqn }) => isTargetOf(targetIqn, volumeId));
      if (mine.length > 0) {
        attached.push(volumeId);
        if (record.bootId !== bootId) {
          log().warn(
            { volumeId, sids: mine.map(({ sid }) => sid) },
            'a session that this boot did not make; left as it is',
          );
        }
      } else if (record.bootId === bootId) {
        log().warn(
          { volumeId, phase: record.phase },
          'a record of this boot without a session; left for stage or unstage',
        );
      } else {
        await deleteIscsiRecord(env, volumeId, record.targetIqn);
        await env.records.remove(volumeId);
        forgotten.push(volumeId);
      }
    } catch (error) {
      log().error({ volumeId, err: error }, 'node state record could not be looked at; left as it is');
    }
  }
  const unexplained = sessions
    .map(({ targetIqn }) => targetIqn)
    .filter((iqn) => OUR_TARGET.test(iqn) && !volumeIds.some((volumeId) => isTargetOf(iqn, volumeId)));
  if (unexplained.length > 0) {
    log().warn({ targets: unexplained }, 'sessions to targets like ours that no record explains; left as they are');
  }
  log().info({ attached: attached.length, forgotten: forgotten.length }, 'node state records read');
  return { forgotten, attached, unexplained };
}
