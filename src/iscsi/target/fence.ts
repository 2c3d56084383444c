/**
 * Cutting initiators off. After these functions have returned none of the ACL's sessions is left, and no command of
 * them is in flight: `rmdir` of the ACL waits for the last of its sessions, and a session ends after its commands.
 *
 * Nothing is ever skipped because a first try has already done it: `enable` reads 0 while the kernel still waits for
 * the sessions, so only "no ACL is left" is believed. Calls that wait in the kernel are made only once there is nothing
 * left to wait for; on a hung disk a retry therefore adds no stuck call.
 */
import { randomBytes } from 'node:crypto';
import { log } from '../../system/context.ts';
import { aclRemoval, cutSessions, withCredentials } from './acl.ts';
import { type ConfigFs, errorCode } from './configfs.ts';
import { attribute, write } from './configfs-calls.ts';
import { aclHasSession, type FoundAcl, type FoundTarget, readTarget } from './inventory.ts';
import type { TargetPaths } from './layout.ts';

/** A login that was under way when the password changed may still come in: it is cut once more. */
const CUT_AGAIN_AFTER_MS = 1_000;

/** One initiator of several. Others are not disturbed. */
export async function revokeAcl(fs: ConfigFs, paths: TargetPaths, acl: FoundAcl): Promise<void> {
  const path = paths.acl(acl.initiatorIqn);
  const authentication = `${paths.tpg}/attrib/authentication`;
  const [[current], [hasCredentials]] = await Promise.all([
    fs.ask(attribute(authentication)),
    withCredentials(fs, [path]),
  ]);
  // Without CHAP nothing else would bar it: for a moment everybody who logs in is refused, and tries again.
  const open = current === '0';
  try {
    await fs.apply([
      ...(open ? [write('target-revoke-bar', authentication, '1')] : []),
      ...(open && hasCredentials !== true
        ? []
        : [write('target-revoke-password', `${path}/auth/password`, randomBytes(24).toString('hex'))]),
    ]);
    await endSessions(fs, path, acl.initiatorIqn);
    await fs.apply([...aclRemoval(paths, acl), ...(open ? [write('target-revoke-unbar', authentication, '0')] : [])]);
  } catch (error) {
    if (open) await unbar(fs, authentication);
    throw error;
  }
}

/** Until the retry of a fence that failed, whatever its step, the others must be able to log in again. */
async function unbar(fs: ConfigFs, authentication: string): Promise<void> {
  try {
    await fs.apply([write('target-revoke-give-up', authentication, '0')]);
  } catch (error) {
    log().error({ err: error, authentication }, 'a fence failed, and logins of the other initiators stay barred');
  }
}

async function endSessions(fs: ConfigFs, acl: string, initiatorIqn: string): Promise<void> {
  let cutAt = Number.NEGATIVE_INFINITY;
  await fs.waitUntil(async () => {
    if (!(await aclHasSession(fs, acl))) return true;
    if (performance.now() - cutAt > CUT_AGAIN_AFTER_MS) {
      await cutSessions(fs, acl);
      cutAt = performance.now();
    }
    return !(await aclHasSession(fs, acl));
  }, `the sessions of ${initiatorIqn} have to end`);
}

/** Everybody: the portal group is disabled, which ends every session; then each ACL goes. @returns what is left. */
export async function disableTarget(fs: ConfigFs, paths: TargetPaths): Promise<FoundTarget | undefined> {
  const [enabled] = await fs.ask(attribute(paths.enable));
  if (enabled === '1') await disable(fs, paths);
  const found = await readTarget(fs, paths);
  if (found === undefined) return undefined;
  for (const acl of found.acls) {
    const path = paths.acl(acl.initiatorIqn);
    await fs.waitUntil(async () => !(await aclHasSession(fs, path)), `the sessions of ${acl.initiatorIqn} have to end`);
  }
  await fs.apply(found.acls.flatMap((acl) => aclRemoval(paths, acl)));
  if (found.dynamicInitiators.length > 0) {
    await fs.waitUntil(
      async () => ((await readTarget(fs, paths))?.dynamicInitiators ?? []).length === 0,
      'sessions without an ACL have to end',
    );
  }
  return { ...found, acls: [], dynamicInitiators: [] };
}

export async function disable(fs: ConfigFs, paths: TargetPaths, step = 'target-disable'): Promise<void> {
  try {
    await fs.apply([write(step, paths.enable, '0')]);
  } catch (error) {
    // "Already inactive": an earlier write has got there between our look and now.
    if (errorCode(error) !== 'EINVAL' || (await fs.ask(attribute(paths.enable)))[0] === '1') throw error;
  }
}
