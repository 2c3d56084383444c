/** From what was asked to a size in whole extents, and the words when it can't be. All in bytes. */
import { DriverError } from '../errors.ts';
import { log } from '../system/context.ts';
import type { CapacityRange, VolumeContent } from './model.ts';

const MIB = 1024 ** 2;

/** Smallest useful device for each content; mkfs.xfs 6.1 refuses less than 300 MiB. */
export function minimumSizeBytes(content: VolumeContent): number {
  if (content.kind === 'raw') return 1;
  return content.fsType === 'xfs' ? 300 * MIB : 16 * MIB;
}

export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

export function formatBytes(bytes: number): string {
  const units = ['TiB', 'GiB', 'MiB', 'KiB'] as const;
  const factors = { TiB: 1024 ** 4, GiB: 1024 ** 3, MiB: MIB, KiB: 1024 };
  for (const unit of units) {
    if (bytes >= factors[unit]) {
      const value = bytes / factors[unit];
      return `${Number.isInteger(value) ? value : value.toFixed(2)} ${unit}`;
    }
  }
  return `${bytes} B`;
}

/**
 * Size of a new LV: what is required, rounded up to extents and to the content's minimum; never above the limit.
 * @throws DriverError OUT_OF_RANGE
 */
export function newSizeBytes(
  range: CapacityRange,
  extentBytes: number,
  defaultBytes: number,
  content: VolumeContent,
): number {
  checkRange(range);
  const asked =
    range.requiredBytes > 0
      ? range.requiredBytes
      : Math.min(defaultBytes, range.limitBytes > 0 ? range.limitBytes : defaultBytes);
  const minimum = minimumSizeBytes(content);
  const size = roundUp(Math.max(asked, minimum), extentBytes);
  if (range.requiredBytes === 0 && range.limitBytes > 0 && size > range.limitBytes) {
    // Only a limit was given: the largest multiple of the extent below it will do, if it is large enough.
    const down = Math.floor(range.limitBytes / extentBytes) * extentBytes;
    if (down >= minimum && down > 0) return down;
  }
  if (range.limitBytes > 0 && size > range.limitBytes) {
    throw new DriverError('OUT_OF_RANGE', {
      problem: `no volume size fits between ${range.requiredBytes} and ${range.limitBytes} bytes`,
      found: `sizes are multiples of ${formatBytes(extentBytes)} (the volume group's extents)${minimum > 1 ? `, at least ${formatBytes(minimum)} for this file system` : ''}; the smallest that is large enough is ${size} bytes`,
      action: 'raise limit_bytes or ask for a multiple of the extent size',
    });
  }
  return size;
}

/** CSI lets capacity_bytes differ from what was asked; the log then says what was asked and what was given. */
export function tellRounding(volumeId: string, range: CapacityRange, sizeBytes: number, extentBytes: number): void {
  const { requiredBytes, limitBytes } = range;
  const askedBytes = requiredBytes > 0 ? requiredBytes : limitBytes;
  if (askedBytes === 0 || askedBytes === sizeBytes) return;
  log().info(
    { volumeId, requiredBytes, limitBytes, sizeBytes, extentSizeBytes: extentBytes },
    'capacity_bytes differs from what was asked: sizes are whole extents, and no less than the content needs',
  );
}

/** @throws DriverError OUT_OF_RANGE */
export function checkRange(range: CapacityRange): void {
  if (range.limitBytes > 0 && range.requiredBytes > range.limitBytes) {
    throw new DriverError('OUT_OF_RANGE', {
      problem: 'capacity_range is empty',
      found: `required_bytes ${range.requiredBytes} is above limit_bytes ${range.limitBytes}`,
      action: 'ask for a range that holds at least one size',
    });
  }
}

/** Does an existing volume satisfy the request? (CSI: at least required_bytes, at most limit_bytes.) */
export function sizeFits(sizeBytes: number, range: CapacityRange): boolean {
  return sizeBytes >= range.requiredBytes && (range.limitBytes === 0 || sizeBytes <= range.limitBytes);
}
