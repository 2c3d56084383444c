/** Refuses specs that the kernel would misread: each of these texts becomes a folder name or an attribute. */
import { TargetError } from './errors.ts';
import type { AclSpec, TargetSpec } from './types.ts';

/** iscsi_node_auth.userid and .password have 256 bytes (iscsi_target_core.h). */
const CREDENTIAL = /^[\x21-\x7e]{1,255}$/;
const INITIATOR = /^(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}$/;

/** @throws TargetError invalid; never with a secret in it. */
export function checkSpec(spec: TargetSpec): void {
  const fail = (problem: string): never => {
    throw new TargetError('invalid', `target ${spec.targetIqn}: ${problem}`);
  };
  if (!/^[0-9a-f]{32}$/.test(spec.serial)) fail(`serial "${spec.serial}" is not 32 hex digits`);
  // LIO splits what is written to `control` at commas.
  if (!/^\/[^,\s]+$/.test(spec.devicePath)) fail(`device path "${spec.devicePath}" is not an absolute path`);
  const initiators = spec.acls.map((acl) => acl.initiatorIqn);
  for (const acl of spec.acls) {
    if (!INITIATOR.test(acl.initiatorIqn)) fail(`"${acl.initiatorIqn}" is not an initiator name`);
    if (!hasUsableCredentials(acl))
      fail(`the credentials of ${acl.initiatorIqn} are not 1 to 255 printable characters`);
  }
  if (new Set(initiators).size !== initiators.length) fail(`an initiator is named twice: ${initiators.join(', ')}`);
  const kinds = new Set(spec.acls.map((acl) => acl.auth.kind));
  // The portal group asks either everybody for credentials or nobody.
  if (kinds.has('none') && kinds.has('chap')) fail('some initiators have CHAP credentials and some have none');
}

function hasUsableCredentials({ auth }: AclSpec): boolean {
  if (auth.kind !== 'chap') return true;
  const texts = [
    auth.user,
    auth.password,
    ...(auth.mutual === undefined ? [] : [auth.mutual.user, auth.mutual.password]),
  ];
  // LIO takes whatever begins with NULL as "clear".
  return texts.every((text) => CREDENTIAL.test(text) && !text.startsWith('NULL'));
}
