/**
 * A decoded request made safe for the handlers, by reflection over its type: int64 (decimal strings) become numbers,
 * values of enums that the schema doesn't know are refused, and the specification's size limits and banned characters
 * are checked for every field, so that no handler can forget one. Secrets are never quoted.
 */
import protobuf from 'protobufjs';
import { DriverError } from '../errors.ts';
import { foreignToken } from './paging.ts';
import type { WireObject } from './redact.ts';

/** CSI specification, "Size Limits". */
const MAX_STRING_BYTES = 128;
const MAX_MAP_BYTES = 4096;
/** "The total size of this repeated field SHALL NOT exceed 4 KiB" (VolumeCapability.MountVolume.mount_flags). */
const MAX_MOUNT_FLAGS_BYTES = 4096;
/** Fields that override the general limit: NodeGetInfoResponse.node_id 256; paths as long as the system takes (PATH_MAX). */
const STRING_LIMITS: Readonly<Record<string, number>> = {
  node_id: 256,
  staging_target_path: 4096,
  target_path: 4096,
  volume_path: 4096,
};

/** CreateVolumeRequest.name: control characters other than tab, line feed and carriage return are banned. */
const BANNED_IN_NAMES = /[^\P{Cc}\t\n\r]/u;
/** In ids, paths, types and tokens line breaks have no business either. */
const BANNED_ELSEWHERE = /\p{Cc}/u;

const INT64_TYPES = new Set(['int64', 'uint64', 'sint64', 'fixed64', 'sfixed64']);

/**
 * @returns a copy with numbers for int64.
 * @throws DriverError INVALID_ARGUMENT, OUT_OF_RANGE for an int64 beyond ±(2^53 − 1), ABORTED for a starting_token
 *   that cannot be ours
 */
export function checkIncoming(type: protobuf.Type, message: WireObject): WireObject {
  return convertMessage(type, message, '');
}

function convertMessage(type: protobuf.Type, message: WireObject, path: string): WireObject {
  const result: Record<string, unknown> = { ...message };
  for (const field of type.fieldsArray) {
    field.resolve();
    const value = message[field.name];
    if (value === undefined || value === null) continue;
    result[field.name] = convertField(field, value, path === '' ? field.name : `${path}.${field.name}`);
  }
  return result;
}

function convertField(field: protobuf.Field, value: unknown, path: string): unknown {
  if (field.map) {
    checkMap(value as Record<string, unknown>, path);
    return value;
  }
  if (!field.repeated) return convertValue(field, value, path);
  const items = value as readonly unknown[];
  if (field.name === 'mount_flags') checkMountFlags(items as readonly string[], path);
  return items.map((item, index) => convertValue(field, item, `${path}[${index}]`));
}

function convertValue(field: protobuf.Field, value: unknown, path: string): unknown {
  const type = field.resolvedType;
  if (type instanceof protobuf.Type) return convertMessage(type, value as WireObject, path);
  if (type instanceof protobuf.Enum) return checkEnum(type, value, path);
  if (INT64_TYPES.has(field.type)) return toSafeInteger(value, path);
  if (field.type === 'string') checkString(field, value as string, path);
  return value;
}

function checkEnum(type: protobuf.Enum, value: unknown, path: string): unknown {
  if (typeof value === 'string') return value;
  throw new DriverError('INVALID_ARGUMENT', {
    problem: `${path} has a value that this driver does not know`,
    found: String(value),
    action: `use one of ${Object.keys(type.values).join(', ')}`,
  });
}

function toSafeInteger(value: unknown, path: string): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new DriverError('OUT_OF_RANGE', {
    problem: `${path} is beyond what this driver can handle`,
    found: String(value),
    action: `use a value of at most ${Number.MAX_SAFE_INTEGER} (8 PiB)`,
  });
}

function checkString(field: protobuf.Field, value: string, path: string): void {
  const isFlag = field.name === 'mount_flags';
  const limitBytes = isFlag ? MAX_MOUNT_FLAGS_BYTES : (STRING_LIMITS[field.name] ?? MAX_STRING_BYTES);
  const isToken = field.name === 'starting_token';
  const sizeBytes = Buffer.byteLength(value);
  if (sizeBytes > limitBytes)
    throw isToken ? foreignToken(`${sizeBytes} bytes`) : tooLarge(path, sizeBytes, limitBytes);
  const match = (field.name === 'name' ? BANNED_IN_NAMES : BANNED_ELSEWHERE).exec(value);
  if (match === null) return;
  // A flag may be sensitive: its place is told, not its text.
  const found = `U+${match[0].charCodeAt(0).toString(16).padStart(4, '0').toUpperCase()} at character ${match.index + 1}`;
  if (isToken) throw foreignToken(found);
  throw new DriverError('INVALID_ARGUMENT', {
    problem: `${path} contains a control character`,
    found,
    action: 'remove it',
  });
}

function checkMap(map: Readonly<Record<string, unknown>>, path: string): void {
  const sizeBytes = Object.entries(map).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(String(value)),
    0,
  );
  if (sizeBytes > MAX_MAP_BYTES) throw tooLarge(path, sizeBytes, MAX_MAP_BYTES);
}

function checkMountFlags(flags: readonly string[], path: string): void {
  const sizeBytes = flags.reduce((sum, flag) => sum + Buffer.byteLength(flag), 0);
  if (sizeBytes > MAX_MOUNT_FLAGS_BYTES) throw tooLarge(path, sizeBytes, MAX_MOUNT_FLAGS_BYTES);
}

function tooLarge(path: string, sizeBytes: number, limitBytes: number): DriverError {
  return new DriverError('INVALID_ARGUMENT', {
    problem: `${path} is too long`,
    found: `${sizeBytes} bytes`,
    action: `use at most ${limitBytes} bytes (CSI specification, "Size Limits")`,
  });
}
