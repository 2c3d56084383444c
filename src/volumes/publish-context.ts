/**
 * publish_context: what the controller tells the node about one attachment, as CSI's string map, and back.
 * It holds CHAP secrets: it is never logged (the logging interceptor drops the whole map).
 */
import { DriverError } from '../errors.ts';
import type { FsType, VolumeContent } from './model.ts';

const FORMAT = '1';
const IQN = /^(iqn|eui|naa)\.[a-zA-Z0-9.:_-]+$/;

export interface ChapCredentials {
  readonly user: string;
  readonly password: string;
}

export interface PublishContext {
  readonly targetIqn: string;
  /**
   * The target at the same portals that says "not authorized" while every attached volume is exported
   * (src/iscsi/target/witness.ts); undefined of a controller that has none.
   */
  readonly witnessIqn: string | undefined;
  /** "address:port", IPv6 in brackets; at least one. */
  readonly portals: readonly string[];
  readonly lun: number;
  /** VPD page 0x80 of the right device, 32 hex digits. */
  readonly serial: string;
  /** This attachment's nonce, 32 hex digits. */
  readonly nonce: string;
  readonly content: VolumeContent;
  /** The exported device's size when it was published. */
  readonly sizeBytes: number;
  /** Where credentials come from: nowhere, derived by the controller (below), or the user's own stage secret. */
  readonly authentication: 'none' | 'derived' | 'user';
  readonly chap: ChapCredentials | undefined;
  /** The target's own credentials towards the initiator. */
  readonly mutualChap: ChapCredentials | undefined;
}

export function encodePublishContext(context: PublishContext): Record<string, string> {
  const map: Record<string, string> = {
    format: FORMAT,
    targetIqn: context.targetIqn,
    portals: context.portals.join(','),
    lun: String(context.lun),
    serial: context.serial,
    nonce: context.nonce,
    content: context.content.kind === 'raw' ? 'raw' : context.content.fsType,
    sizeBytes: String(context.sizeBytes),
    authentication: context.authentication,
  };
  if (context.witnessIqn !== undefined) map['witnessIqn'] = context.witnessIqn;
  if (context.chap !== undefined) {
    map['chapUser'] = context.chap.user;
    map['chapPassword'] = context.chap.password;
  }
  if (context.mutualChap !== undefined) {
    map['mutualChapUser'] = context.mutualChap.user;
    map['mutualChapPassword'] = context.mutualChap.password;
  }
  return map;
}

/** @throws DriverError INVALID_ARGUMENT naming the key that is missing or malformed; never its value. */
export function decodePublishContext(map: Readonly<Record<string, string>>): PublishContext {
  const format = required(map, 'format', /^[0-9]+$/);
  if (format !== FORMAT) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `publish_context has format ${format}, this node plugin knows format ${FORMAT}`,
      action: 'run the same version of the controller and node plugins',
    });
  }
  const content = required(map, 'content', /^(raw|ext4|xfs)$/);
  return {
    targetIqn: required(map, 'targetIqn', IQN),
    witnessIqn: map['witnessIqn'] === undefined ? undefined : required(map, 'witnessIqn', IQN),
    portals: required(map, 'portals', /^[^,\s]+:[0-9]+(,[^,\s]+:[0-9]+)*$/).split(','),
    lun: Number(required(map, 'lun', /^[0-9]{1,3}$/)),
    serial: required(map, 'serial', /^[0-9a-f]{32}$/),
    nonce: required(map, 'nonce', /^[0-9a-f]{32}$/),
    content: content === 'raw' ? { kind: 'raw' } : { kind: 'filesystem', fsType: content as FsType },
    sizeBytes: Number(required(map, 'sizeBytes', /^[0-9]{1,16}$/)),
    authentication: required(map, 'authentication', /^(none|derived|user)$/) as PublishContext['authentication'],
    chap: credentials(map, 'chapUser', 'chapPassword'),
    mutualChap: credentials(map, 'mutualChapUser', 'mutualChapPassword'),
  };
}

function credentials(
  map: Readonly<Record<string, string>>,
  userKey: string,
  passwordKey: string,
): ChapCredentials | undefined {
  if (map[userKey] === undefined && map[passwordKey] === undefined) return undefined;
  return { user: required(map, userKey, /^\S+$/), password: required(map, passwordKey, /^\S+$/) };
}

function required(map: Readonly<Record<string, string>>, key: string, shape: RegExp): string {
  const value = map[key];
  if (value === undefined || !shape.test(value)) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `publish_context key "${key}" is ${value === undefined ? 'missing' : 'malformed'}`,
      found: `keys ${Object.keys(map).sort().join(', ') || '(none)'}`,
      action: 'pass publish_context exactly as ControllerPublishVolume answered it',
    });
  }
  return value;
}
