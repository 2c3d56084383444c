/**
 * One initiator's ACL. Credentials come last: an ACL that can log in and has no LUN meets LIO's virtual LUN 0, which
 * answers reads of its first 32 KiB with GOOD.
 */
import { log } from '../../system/context.ts';
import { step } from '../../system/step.ts';
import type { ConfigFs } from './configfs.ts';
import { aclHasSession, type FoundAcl } from './inventory.ts';
import type { TargetPaths } from './layout.ts';
import type { AclSpec } from './types.ts';

const MAPPED_LUN_LINK = 'lun';
/** What LIO takes as "clear this" (__DEF_NACL_AUTH_STR in iscsi_target_configfs.c), and then shows. */
const CLEARED = 'NULL';

export function hasMappedLun(acl: FoundAcl): boolean {
  return acl.luns.length === 1 && acl.luns[0]?.name === 'lun_0' && acl.luns[0].links.length === 1;
}

/** `open`: the portal group is enabled and asks nobody for credentials. */
export async function convergeAcl(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundAcl | undefined,
  spec: AclSpec,
  open: boolean,
): Promise<void> {
  if (found === undefined && spec.auth.kind === 'keep') {
    log().warn({ initiatorIqn: spec.initiatorIqn }, 'no credentials known for an initiator: it gets no access');
    return;
  }
  const acl = paths.acl(spec.initiatorIqn);
  const isNew = found === undefined || !hasMappedLun(found);
  if (isNew) await makeAcl(fs, paths, acl, spec.readonly);
  await convergeWriteProtect(fs, acl, spec.readonly);
  await convergeAuth(fs, acl, spec.auth);
  // It may have logged in before its LUN was there; the session that it makes now finds it.
  if (isNew && open && (await aclHasSession(fs, acl))) await cutSessions(fs, acl);
}

async function makeAcl(fs: ConfigFs, paths: TargetPaths, acl: string, readonly: boolean): Promise<void> {
  await step('target-acl-make', () => fs.makeFolder(acl));
  await step('target-acl-lun-make', () => fs.makeFolder(`${acl}/lun_0`));
  // A new mapped LUN takes its write protection from here: it is never writable for a moment when it must not be.
  const initial = `${paths.tpg}/attrib/prod_mode_write_protect`;
  const wanted = readonly ? '1' : '0';
  if ((await fs.readIfPresent(initial)) !== wanted)
    await step('target-tpg-write-protect', () => fs.write(initial, wanted));
  await step('target-acl-lun-link', () => fs.link(paths.lun, `${acl}/lun_0/${MAPPED_LUN_LINK}`));
}

async function convergeWriteProtect(fs: ConfigFs, acl: string, readonly: boolean): Promise<void> {
  const path = `${acl}/lun_0/write_protect`;
  const wanted = readonly ? '1' : '0';
  if ((await fs.read(path)) !== wanted) await step('target-acl-write-protect', () => fs.write(path, wanted));
}

async function convergeAuth(fs: ConfigFs, acl: string, auth: AclSpec['auth']): Promise<void> {
  if (auth.kind === 'keep') return;
  const chap = auth.kind === 'chap' ? auth : undefined;
  const wanted: [string, string | undefined][] = [
    ['userid_mutual', chap?.mutual?.user],
    ['password_mutual', chap?.mutual?.password],
    ['userid', chap?.user],
    ['password', chap?.password],
  ];
  const found = await Promise.all(wanted.map(([name]) => fs.read(`${acl}/auth/${name}`)));
  for (const [index, [name, value]] of wanted.entries()) {
    const current = found[index] === CLEARED || found[index] === '' ? undefined : found[index];
    // No newline: LIO would make it a part of the secret.
    if (current !== value) await step('target-acl-auth', () => fs.write(`${acl}/auth/${name}`, value ?? CLEARED));
  }
}

/** True when somebody has given this ACL credentials (of which only their presence is looked at). */
export async function hasCredentials(fs: ConfigFs, acl: string): Promise<boolean> {
  const user = await fs.readIfPresent(`${acl}/auth/userid`);
  return user !== undefined && user !== '' && user !== CLEARED;
}

/**
 * Ends the sessions of this ACL alone: LIO does so when the queue depth really changes
 * (core_tpg_set_initiator_node_queue_depth). Who still has valid credentials logs in again.
 */
export async function cutSessions(fs: ConfigFs, acl: string): Promise<void> {
  const path = `${acl}/cmdsn_depth`;
  const current = await fs.read(path);
  await step('target-acl-cut', () => fs.write(path, current === '64' ? '63' : '64'));
}
