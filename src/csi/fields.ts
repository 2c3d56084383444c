/**
 * Checks that need to know what a field is for: what is required, paths, capacity, capabilities. Sizes and control
 * characters are checked for all fields in incoming.ts. Every message says what was wrong and what to do.
 */
import { isAbsolute } from 'node:path';
import { DriverError } from '../errors.ts';
import {
  ACCESS_MODES,
  type AccessMode,
  type CapacityRange,
  type VolumeAccess,
  type VolumeCapability,
} from '../volumes/model.ts';
import type { WireCapacityRange, WireVolumeCapability } from './wire.ts';

/** @throws DriverError INVALID_ARGUMENT */
export function requireText(field: string, value: string): string {
  if (value === '') throw missing(field);
  return value;
}

/** @throws DriverError INVALID_ARGUMENT */
export function requireAbsolutePath(field: string, value: string): string {
  requireText(field, value);
  checkAbsolutePath(field, value);
  return value;
}

/** @throws DriverError INVALID_ARGUMENT */
export function checkAbsolutePath(field: string, value: string): void {
  const problem = !isAbsolute(value)
    ? 'is not an absolute path'
    : value.split('/').includes('..')
      ? 'contains ".."'
      : undefined;
  if (problem === undefined) return;
  throw new DriverError('INVALID_ARGUMENT', {
    problem: `${field} ${problem}`,
    found: JSON.stringify(value),
    action: 'pass an absolute path of the node without ".."',
  });
}

/**
 * Path of something that should exist: one that cannot be ours is one where no volume is.
 * @throws DriverError INVALID_ARGUMENT when empty, NOT_FOUND when not absolute
 */
export function requireVolumePath(volumeId: string, value: string): string {
  requireText('volume_path', value);
  if (isAbsolute(value)) return value;
  throw new DriverError('NOT_FOUND', {
    problem: `volume ${volumeId} is not at volume_path ${JSON.stringify(value)}`,
    found: 'a relative path',
    action: 'pass the absolute path at which the volume was staged or published',
  });
}

/**
 * Absent or {0, 0}: no size was asked for.
 * @throws DriverError INVALID_ARGUMENT for negative sizes, OUT_OF_RANGE when the limit is below what is required
 */
export function parseCapacity(range: WireCapacityRange | null): CapacityRange {
  if (range === null) return { requiredBytes: 0, limitBytes: 0 };
  const { required_bytes: requiredBytes, limit_bytes: limitBytes } = range;
  for (const [field, value] of Object.entries(range)) {
    if (value >= 0) continue;
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `capacity_range.${field} is negative`,
      found: String(value),
      action: 'use a size in bytes, or 0 for none',
    });
  }
  if (limitBytes > 0 && limitBytes < requiredBytes) {
    throw new DriverError('OUT_OF_RANGE', {
      problem: 'capacity_range.limit_bytes is smaller than required_bytes',
      found: `required ${requiredBytes}, limit ${limitBytes}`,
      action: 'raise the limit or lower the required size',
    });
  }
  return { requiredBytes, limitBytes };
}

/**
 * As parseCapacity, where a size must be given.
 * @throws DriverError INVALID_ARGUMENT, OUT_OF_RANGE
 */
export function requireCapacity(range: WireCapacityRange | null): CapacityRange {
  const capacity = parseCapacity(range);
  if (capacity.requiredBytes === 0 && capacity.limitBytes === 0) throw missing('capacity_range');
  return capacity;
}

/** A well-formed capability that the driver may still not be able to serve. */
export type ParsedCapability =
  | { readonly supported: true; readonly capability: VolumeCapability }
  | { readonly supported: false; readonly problem: string };

/** @throws DriverError INVALID_ARGUMENT when it is incomplete */
export function parseCapability(field: string, wire: WireVolumeCapability | null): ParsedCapability {
  if (wire === null) throw missing(field);
  const access = parseAccess(field, wire);
  const mode = wire.access_mode?.mode;
  if (mode === undefined || mode === 'UNKNOWN') throw missing(`${field}.access_mode.mode`);
  if (typeof access === 'string') return { supported: false, problem: access };
  if (!isAccessMode(mode)) {
    return {
      supported: false,
      problem: `${field}: access mode ${mode} is not supported; use one of ${ACCESS_MODES.join(', ')}`,
    };
  }
  return { supported: true, capability: { access, mode } };
}

/** @throws DriverError INVALID_ARGUMENT when it is incomplete or not supported */
export function requireCapability(field: string, wire: WireVolumeCapability | null): VolumeCapability {
  const parsed = parseCapability(field, wire);
  if (parsed.supported) return parsed.capability;
  throw new DriverError('INVALID_ARGUMENT', parsed.problem);
}

/** @throws DriverError INVALID_ARGUMENT when there is none, or one is incomplete or not supported */
export function requireCapabilities(wire: readonly WireVolumeCapability[]): VolumeCapability[] {
  if (wire.length === 0) throw missing('volume_capabilities');
  return wire.map((capability, index) => requireCapability(`volume_capabilities[${index}]`, capability));
}

export function missing(field: string): DriverError {
  return new DriverError('INVALID_ARGUMENT', { problem: `${field} is missing`, action: 'set it: the call needs it' });
}

/** A string says why this access is not supported. */
function parseAccess(field: string, wire: WireVolumeCapability): VolumeAccess | string {
  if (wire.block != null) return { kind: 'block' };
  if (wire.mount == null) throw missing(`${field}.access_type (block or mount)`);
  if (wire.mount.volume_mount_group !== '') {
    // Claiming VOLUME_MOUNT_GROUP would switch kubelet's fsGroup off, and neither ext4 nor xfs can do it by mounting.
    return `${field}: volume_mount_group is not supported; leave it out: kubelet applies fsGroup itself`;
  }
  return { kind: 'mount', fsType: wire.mount.fs_type, mountFlags: wire.mount.mount_flags };
}

function isAccessMode(mode: string): mode is AccessMode {
  return (ACCESS_MODES as readonly string[]).includes(mode);
}
