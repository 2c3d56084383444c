/**
 * One initiator's ACL. Credentials come last: an ACL that can log in and has no LUN meets LIO's virtual LUN 0, which
 * answers reads of its first 32 KiB with GOOD.
 */
import { log } from '../../system/context.ts';
import type { ConfigFs, Mutation } from './configfs.ts';
import { attribute, makeFolder, makeLink, removeFolder, removeLink, write, writeIfPresent } from './configfs-calls.ts';
import type { FoundAcl } from './inventory.ts';
import type { TargetPaths } from './layout.ts';
import type { AclSpec } from './types.ts';

const MAPPED_LUN_LINK = 'lun';
/** What LIO takes as "clear this" (__DEF_NACL_AUTH_STR in iscsi_target_configfs.c), and then shows. */
const CLEARED = 'NULL';

/** Complete but for its credentials. */
export function hasMappedLun(acl: FoundAcl): boolean {
  const [only] = acl.luns;
  return acl.luns.length === 1 && only?.name === 'lun_0' && only.links.length === 1;
}

/** What makes the ACL, or sets what differs; `found` has its mapped LUN (a half-built one has been revoked before). */
export async function aclChanges(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundAcl | undefined,
  spec: AclSpec,
): Promise<Mutation[]> {
  if (found !== undefined) return await differencesOf(fs, paths.acl(spec.initiatorIqn), spec);
  if (spec.auth.kind !== 'keep') return newAcl(paths, spec);
  log().warn({ initiatorIqn: spec.initiatorIqn }, 'no credentials known for an initiator: it gets no access');
  return [];
}

function newAcl(paths: TargetPaths, spec: AclSpec): Mutation[] {
  const acl = paths.acl(spec.initiatorIqn);
  const writeProtect = spec.readonly ? '1' : '0';
  return [
    makeFolder('target-acl-make', acl),
    makeFolder('target-acl-lun-make', `${acl}/lun_0`),
    // A new mapped LUN takes its write protection from here: it is never writable for a moment when it must not be.
    writeIfPresent('target-tpg-write-protect', `${paths.tpg}/attrib/prod_mode_write_protect`, writeProtect),
    makeLink('target-acl-lun-link', paths.lun, `${acl}/lun_0/${MAPPED_LUN_LINK}`),
    write('target-acl-write-protect', `${acl}/lun_0/write_protect`, writeProtect),
    ...wantedAuth(spec.auth)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => writeAuth(acl, name, value)),
  ];
}

async function differencesOf(fs: ConfigFs, acl: string, spec: AclSpec): Promise<Mutation[]> {
  const protectPath = `${acl}/lun_0/write_protect`;
  const wanted = spec.auth.kind === 'keep' ? [] : wantedAuth(spec.auth);
  const [writeProtect, ...found] = await fs.askAll([
    attribute(protectPath),
    ...wanted.map(([name]) => attribute(`${acl}/auth/${name}`)),
  ]);
  const changes = writeProtect === (spec.readonly ? '1' : '0') ? [] : [spec.readonly ? '1' : '0'];
  return [
    ...changes.map((text) => write('target-acl-write-protect', protectPath, text)),
    ...wanted
      .filter(([, value], index) => value !== (isSet(found[index]) ? found[index] : undefined))
      .map(([name, value]) => writeAuth(acl, name, value)),
  ];
}

/** In the order in which they are written: whoever knows only a part of them cannot log in. */
function wantedAuth(auth: AclSpec['auth']): [string, string | undefined][] {
  const chap = auth.kind === 'chap' ? auth : undefined;
  return [
    ['userid_mutual', chap?.mutual?.user],
    ['password_mutual', chap?.mutual?.password],
    ['userid', chap?.user],
    ['password', chap?.password],
  ];
}

/** Without a newline: LIO would make it a part of the secret. */
function writeAuth(acl: string, name: string, value: string | undefined): Mutation {
  return write('target-acl-auth', `${acl}/auth/${name}`, value ?? CLEARED);
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== '' && value !== CLEARED;
}

/** Which of these ACLs have been given credentials (of which only their presence is looked at). */
export async function withCredentials(fs: ConfigFs, acls: readonly string[]): Promise<boolean[]> {
  return (await fs.askAll(acls.map((acl) => attribute(`${acl}/auth/userid`)))).map(isSet);
}

/**
 * Ends the sessions of this ACL alone: LIO does so when the queue depth really changes
 * (core_tpg_set_initiator_node_queue_depth). Who still has valid credentials logs in again.
 */
export async function cutSessions(fs: ConfigFs, acl: string): Promise<void> {
  const path = `${acl}/cmdsn_depth`;
  const [current] = await fs.ask(attribute(path));
  if (current !== undefined) await fs.apply([writeIfPresent('target-acl-cut', path, current === '64' ? '63' : '64')]);
}

/** Its sessions are gone and it cannot log in. The last call waits in the kernel for whatever is left of a session. */
export function aclRemoval(paths: TargetPaths, acl: FoundAcl): Mutation[] {
  const path = paths.acl(acl.initiatorIqn);
  return [
    ...acl.luns.flatMap((lun) => [
      ...lun.links.map((link) => removeLink('target-acl-lun-unlink', `${path}/${lun.name}/${link.name}`)),
      removeFolder('target-acl-lun-remove', `${path}/${lun.name}`),
    ]),
    removeFolder('target-acl-remove', path),
  ];
}
