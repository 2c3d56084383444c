/**
 * Cutting initiators off. After these functions have returned none of the ACL's sessions is left, and no command of
 * them is in flight: `rmdir` of the ACL waits for the last of its sessions, and a session ends after its commands.
 *
 * Nothing is ever skipped because a first try has already done it: `enable` reads 0 while the kernel still waits for
 * the sessions, so only "no ACL is left" is believed. Calls that wait in the kernel are made only once there is nothing
 * left to wait for; on a hung disk a retry therefore adds no stuck call.
 */
import { randomBytes } from 'node:crypto';
import { step } from '../../system/step.ts';
import { cutSessions, hasCredentials } from './acl.ts';
import { type ConfigFs, errorCode } from './configfs.ts';
import { aclHasSession, type FoundAcl, readTarget } from './inventory.ts';
import type { TargetPaths } from './layout.ts';

/** A login that was under way when the password changed may still come in: it is cut once more. */
const CUT_AGAIN_AFTER_MS = 1_000;

/** One initiator of several. Others are not disturbed. */
export async function revokeAcl(fs: ConfigFs, paths: TargetPaths, acl: FoundAcl): Promise<void> {
  const folder = paths.acl(acl.initiatorIqn);
  const authentication = `${paths.tpg}/attrib/authentication`;
  const open = (await fs.readIfPresent(authentication)) === '0';
  // Without CHAP nothing else would bar it: for a moment everybody who logs in is refused, and tries again.
  if (open) await step('target-revoke-bar', () => fs.write(authentication, '1'));
  if (!open || (await hasCredentials(fs, folder)))
    await step('target-revoke-password', () => fs.write(`${folder}/auth/password`, randomBytes(24).toString('hex')));
  try {
    await endSessions(fs, folder, acl.initiatorIqn);
  } catch (error) {
    // Until the retry, the others must be able to log in again.
    if (open) await step('target-revoke-give-up', () => fs.write(authentication, '0'));
    throw error;
  }
  await removeAcl(fs, paths, acl);
  if (open) await step('target-revoke-unbar', () => fs.write(authentication, '0'));
}

async function endSessions(fs: ConfigFs, folder: string, initiatorIqn: string): Promise<void> {
  let cutAt = Number.NEGATIVE_INFINITY;
  await fs.waitUntil(async () => {
    if (!(await aclHasSession(fs, folder))) return true;
    if (performance.now() - cutAt > CUT_AGAIN_AFTER_MS) {
      await cutSessions(fs, folder);
      cutAt = performance.now();
    }
    return !(await aclHasSession(fs, folder));
  }, `the sessions of ${initiatorIqn} have to end`);
}

/** Everybody: the portal group is disabled, which ends every session; then each ACL goes. */
export async function disableTarget(fs: ConfigFs, paths: TargetPaths): Promise<void> {
  if ((await fs.readIfPresent(paths.enable)) === '1') await step('target-disable', () => disable(fs, paths));
  const found = await readTarget(fs, paths);
  if (found === undefined) return;
  for (const acl of found.acls) {
    const folder = paths.acl(acl.initiatorIqn);
    await fs.waitUntil(
      async () => !(await aclHasSession(fs, folder)),
      `the sessions of ${acl.initiatorIqn} have to end`,
    );
    await removeAcl(fs, paths, acl);
  }
  if (found.dynamicInitiators.length === 0) return;
  await fs.waitUntil(
    async () => ((await readTarget(fs, paths))?.dynamicInitiators ?? []).length === 0,
    'sessions without an ACL have to end',
  );
}

async function disable(fs: ConfigFs, paths: TargetPaths): Promise<void> {
  try {
    await fs.write(paths.enable, '0');
  } catch (error) {
    // "Already inactive": an earlier write has got there between our look and now.
    if (errorCode(error) !== 'EINVAL' || (await fs.readIfPresent(paths.enable)) === '1') throw error;
  }
}

/** Its sessions are gone and it cannot log in. */
async function removeAcl(fs: ConfigFs, paths: TargetPaths, acl: FoundAcl): Promise<void> {
  const folder = paths.acl(acl.initiatorIqn);
  for (const lun of acl.luns) {
    for (const link of lun.links)
      await step('target-acl-lun-unlink', () => fs.removeLink(`${folder}/${lun.name}/${link.name}`));
    await step('target-acl-lun-remove', () => fs.removeFolder(`${folder}/${lun.name}`));
  }
  await step('target-acl-remove', () => fs.removeFolder(folder));
}
