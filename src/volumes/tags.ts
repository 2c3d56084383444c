/**
 * The VG is the database: everything that must outlive the process is in LVM tags. This file is the format; what follows
 * is the order of writes and what each crash point leaves behind.
 *
 * Tags of a volume (`&xx` escapes, see src/lvm/tags.ts):
 *   lic:v=1              format version; a higher one is refused with words
 *   lic:cluster=ID       owning cluster; another cluster's volume is refused with words
 *   lic:name=NAME        CSI name
 *   lic:serial=HEX32     random for each creation
 *   lic:content=raw|ext4|xfs
 *   lic:made             the volume may be handed out
 *   lic:growing=BYTES    bytes from here on are not known to be blank, and nobody is shown them
 *   lic:att=…            one for each attachment
 *   lic:wipe             deleted: to be wiped, then removed
 *
 * CREATE  1. lvcreate with v, cluster, name, serial, content (one metadata commit: identity and LV are born together)
 *         2. zero the whole LV, unless its extents were blank: known before 1, and again from a report read after it
 *         3. make the file system, flush
 *         4. add `made`
 *   A crash after 1, 2 or 3 leaves an LV without `made`: it was never handed out, so the retry does 2–4 again on it, with
 *   the zeroing (or replaces it, if it asks for something else). `made` is never part of 1, though it would save a commit:
 *   only after 1 is it known which disks its extents came from.
 * PUBLISH 1. add `att` (with the nonce)  2. activate, gate, target
 *   A crash after 1 leaves an attachment without a target: the next start, or the retry, builds it, with the same nonce.
 * UNPUBLISH 1. fence: target disabled, ACL gone, gate severed and removed  2. remove `att`
 *   A crash in 1 leaves `att`: the start builds the target again (the node was not told that it is cut off), the retry
 *   fences again. Where no tag tells of the node (lost by hand, another LV by that name), LIO is asked all the same.
 *   Where the gate is severed already, the start completes the fence before it builds. The tag goes last, so
 *   that "no tag" always means "fenced". A fence that failed or was not waited for (no crash) is never undone: fences.ts.
 * EXPAND  1. add `growing=OLD`  2. lvextend  3. zero from OLD, unless these extents were blank (as in CREATE)
 *         4. remove `growing`  5. gate grows
 *   3 is done in the background (growth.ts), in segments: `growing` moves on with each that is on the disk. A crash after
 *   2 leaves a larger LV that has its old size to everybody: the start, or the retry, goes on with 3 from `growing`. The
 *   tag goes before the gate grows, and no gate is larger than it says: what a node has written must never be zeroed.
 * DELETE  1. add `wipe`  2. rename to _wipe-<uuid>  3. (background) wipe, lvremove
 *   A crash after 1 leaves the old name with `wipe`: it is no volume any more; start, CreateVolume of that name and the
 *   retry do 2. An LV with `wipe` is never read as a volume.
 */
import { escapeTagValue, unescapeTagValue } from '../lvm/tags.ts';
import type { LogicalVolume } from '../lvm/types.ts';
import type { AccessMode, Attachment, FsType, Volume, VolumeContent } from './model.ts';
import { isVolumeId } from './names.ts';

const PREFIX = 'lic:';
const FORMAT = 1;

export const MADE_TAG = `${PREFIX}made`;
export const WIPE_TAG = `${PREFIX}wipe`;

/** What an LV's name and tags say it is. */
export type LvMeaning =
  | {
      readonly kind: 'volume';
      readonly volume: Volume;
      readonly made: boolean;
      readonly growingFromBytes: number | undefined;
    }
  /** Deleted, waiting for wiping. */
  | { readonly kind: 'wipe' }
  /** Named like a volume, but not usable by this driver; the reason is for people. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'other' };

export interface VolumeIdentity {
  readonly clusterId: string;
  readonly name: string;
  readonly serial: string;
  readonly content: VolumeContent;
}

/** Tags for the lvcreate itself. */
export function identityTags(identity: VolumeIdentity): string[] {
  return [
    `${PREFIX}v=${FORMAT}`,
    `${PREFIX}cluster=${escapeTagValue(identity.clusterId)}`,
    `${PREFIX}name=${escapeTagValue(identity.name)}`,
    `${PREFIX}serial=${identity.serial}`,
    `${PREFIX}content=${identity.content.kind === 'raw' ? 'raw' : identity.content.fsType}`,
  ];
}

export function growingTag(oldSizeBytes: number): string {
  return `${PREFIX}growing=${oldSizeBytes}`;
}

const MODE_CODES: Readonly<Record<AccessMode, string>> = {
  SINGLE_NODE_WRITER: 'snw',
  SINGLE_NODE_READER_ONLY: 'snr',
  MULTI_NODE_READER_ONLY: 'mnr',
  MULTI_NODE_MULTI_WRITER: 'mnw',
  SINGLE_NODE_SINGLE_WRITER: 'snsw',
  SINGLE_NODE_MULTI_WRITER: 'snmw',
};

/** Fields are joined with '#', which neither a node name nor an IQN nor a hex string holds. */
export function attachmentTag(attachment: Attachment): string {
  const fields = [
    attachment.nodeName,
    // As the node wrote it: node_id is given back byte for byte.
    attachment.nodeId.slice(attachment.nodeName.length + 1),
    attachment.nonce,
    attachment.access,
    MODE_CODES[attachment.mode],
    attachment.readonly ? 'ro' : 'rw',
    authText(attachment.auth),
  ];
  return `${PREFIX}att=${fields.map((field) => escapeTagValue(field)).join('#')}`;
}

/** Also of a format that this version does not understand. */
export function isAttachmentTag(tag: string): boolean {
  return tag.startsWith(`${PREFIX}att=`);
}

/** `none`, `user`, `key:<id>:one` or `key:<id>:mutual`; `key:<id>` in tags that were made before the mode was kept. */
function authText(auth: Attachment['auth']): string {
  if (auth.kind !== 'derived') return auth.kind;
  const mode = auth.mutual === undefined ? [] : [auth.mutual ? 'mutual' : 'one'];
  return ['key', auth.keyId, ...mode].join(':');
}

function parseAuth(text: string): Attachment['auth'] | undefined {
  if (text === 'none' || text === 'user') return { kind: text };
  const [, keyId, mode] = /^key:([^:]+)(?::(one|mutual))?$/.exec(text) ?? [];
  if (keyId === undefined) return undefined;
  return { kind: 'derived', keyId, mutual: mode === undefined ? undefined : mode === 'mutual' };
}

function parseAttachment(value: string): Attachment | undefined {
  const [nodeName, initiatorName, nonce, access, modeCode, writable, auth, ...rest] = value
    .split('#')
    .map((field) => unescapeTagValue(field));
  const mode = (Object.keys(MODE_CODES) as AccessMode[]).find((candidate) => MODE_CODES[candidate] === modeCode);
  if (nodeName === undefined || initiatorName === undefined || nonce === undefined || mode === undefined)
    return undefined;
  if (access !== 'block' && access !== 'mount') return undefined;
  if (writable !== 'ro' && writable !== 'rw') return undefined;
  const authentication = auth === undefined || rest.length > 0 ? undefined : parseAuth(auth);
  if (authentication === undefined) return undefined;
  return {
    nodeName,
    nodeId: `${nodeName}/${initiatorName}`,
    initiatorIqn: initiatorName.toLowerCase(),
    nonce,
    access,
    mode,
    readonly: writable === 'ro',
    auth: authentication,
  };
}

/** Reads one LV. Never throws: what cannot be read is refused, with the reason. */
export function readLv(lv: LogicalVolume, clusterId: string): LvMeaning {
  if (lv.tags.includes(WIPE_TAG)) return { kind: 'wipe' };
  const values = new Map<string, string[]>();
  for (const tag of lv.tags) {
    if (!tag.startsWith(PREFIX)) continue;
    const equals = tag.indexOf('=');
    const key = equals < 0 ? tag.slice(PREFIX.length) : tag.slice(PREFIX.length, equals);
    values.set(key, [...(values.get(key) ?? []), equals < 0 ? '' : tag.slice(equals + 1)]);
  }
  if (!isVolumeId(lv.name)) return { kind: 'other' };
  const refuse = (reason: string): LvMeaning => ({ kind: 'refused', reason: `LV "${lv.name}" ${reason}` });
  const version = values.get('v')?.[0];
  if (version === undefined) return refuse('has no tag of this driver (made by other software, perhaps Cinder)');
  if (version !== String(FORMAT)) {
    return refuse(`has tag format ${version}, this driver knows format ${FORMAT}: upgrade the controller`);
  }
  const cluster = unescapeTagValue(values.get('cluster')?.[0] ?? '');
  if (cluster !== clusterId) return refuse(`belongs to cluster "${cluster}", this controller serves "${clusterId}"`);
  const name = unescapeTagValue(values.get('name')?.[0] ?? '&');
  const serial = values.get('serial')?.[0];
  const content = parseContent(values.get('content')?.[0]);
  if (name === undefined || serial === undefined || !/^[0-9a-f]{32}$/.test(serial) || content === undefined) {
    return refuse('has a tag "name", "serial" or "content" that is missing or malformed; see `lvs -o lv_name,lv_tags`');
  }
  const attachments: Attachment[] = [];
  for (const value of values.get('att') ?? []) {
    const attachment = parseAttachment(value);
    if (attachment === undefined) return refuse(`has a malformed attachment tag "${PREFIX}att=${value}"`);
    attachments.push(attachment);
  }
  const growing = (values.get('growing') ?? []).map((digits) =>
    /^[1-9]\d*$/.test(digits) ? Number(digits) : Number.NaN,
  );
  // All from there on would be zeroed.
  if (growing.some((bytes) => !Number.isSafeInteger(bytes))) return refuse('has a malformed tag "growing"');
  const growingFromBytes = growing.length === 0 ? undefined : Math.min(...growing);
  return {
    kind: 'volume',
    made: values.has('made'),
    // The lowest of them, should there ever be two: more is zeroed, never less.
    growingFromBytes,
    volume: {
      id: lv.name,
      name,
      sizeBytes: Math.min(lv.sizeBytes, growingFromBytes ?? lv.sizeBytes),
      serial,
      content,
      provisioning: lv.segmentType === 'thin' ? 'thin' : 'thick',
      attachments: attachments.sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1)),
    },
  };
}

function parseContent(value: string | undefined): VolumeContent | undefined {
  if (value === 'raw') return { kind: 'raw' };
  if (value === 'ext4' || value === 'xfs') return { kind: 'filesystem', fsType: value satisfies FsType };
  return undefined;
}

/** All tags `growing` of an LV, for removal. */
export function growingTags(lv: LogicalVolume): string[] {
  return lv.tags.filter((tag) => tag.startsWith(`${PREFIX}growing=`));
}
