/** Names that everything else is derived from: volume ids, IQNs, names of LVs that wait for wiping. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';

/** Namespace of the UUIDv5 below; random, fixed for ever: another value would lose every volume. */
const NAMESPACE = '5b0c9ac2-6f2c-4d8e-9d53-3a9f7f0b8a11';

const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}';
const VOLUME_ID = new RegExp(`^volume-${UUID}$`);
const WIPE_NAME = new RegExp(`^_wipe-${UUID}$`);

/** UUIDv5 (RFC 9562, section 5.5) of `name` in our namespace. */
function uuidV5(name: string): string {
  const hash = createHash('sha1')
    .update(Buffer.from(NAMESPACE.replaceAll('-', ''), 'hex'))
    .update(name, 'utf8')
    .digest();
  hash[6] = ((hash[6] ?? 0) & 0x0f) | 0x50;
  hash[8] = ((hash[8] ?? 0) & 0x3f) | 0x80;
  const hex = hash.toString('hex').slice(0, 32);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/**
 * The id of the volume with this CSI name, `volume-<uuid>`: derived, so that a repeated CreateVolume finds its volume
 * with no index to lose. The cluster's id is part of it: two clusters may use one CSI name in one VG.
 */
export function volumeIdForName(clusterId: string, csiName: string): string {
  return `volume-${uuidV5(`volume\0${clusterId}\0${csiName}`)}`;
}

export function isVolumeId(id: string): boolean {
  return VOLUME_ID.test(id);
}

export function newWipeName(): string {
  return `_wipe-${randomUUID()}`;
}

export function isWipeName(lvName: string): boolean {
  return WIPE_NAME.test(lvName);
}

/** As Cinder's: prefix, colon, volume id. */
export function targetIqn(iqnPrefix: string, volumeId: string): string {
  return `${iqnPrefix}:${volumeId}`;
}

/** 32 hex digits: a serial for a creation, a nonce for an attachment. */
export function newToken(): string {
  return randomBytes(16).toString('hex');
}
