/**
 * Room in the VG's metadata area. Every LV, tag and commit needs some, deleting too (it marks the volume first): in an
 * area that is full to the last byte no volume can be attached and none be deleted. So new volumes end before that.
 */
import { metadataFull } from './lvm-errors.ts';
import { formatBytes } from './sizes.ts';
import type { VolumeTable } from './volume-table.ts';

/** An LV more with its tags takes about 500 bytes (measured); the rest is for the marks of a few deletions at once. */
const NEW_VOLUME_BYTES = 4096;
/** The tag of an attachment, with the longest names allowed. */
const ATTACHMENT_BYTES = 400;

/** Bytes that must be free for one volume more: then each of those that are there can still be attached, and deleted. */
export function metadataReserveBytes(table: VolumeTable): number {
  const detached = table.entries().filter(({ volume }) => volume.attachments.length === 0).length;
  return NEW_VOLUME_BYTES + detached * ATTACHMENT_BYTES;
}

export function hasMetadataRoom(table: VolumeTable): boolean {
  return table.report.vg.metadataFreeBytes >= metadataReserveBytes(table);
}

/** @throws DriverError RESOURCE_EXHAUSTED */
export function requireMetadataRoom(table: VolumeTable, problem: string): void {
  if (hasMetadataRoom(table)) return;
  const { name, metadataFreeBytes } = table.report.vg;
  throw metadataFull(
    problem,
    `the metadata area of volume group "${name}" has ${formatBytes(metadataFreeBytes)} left, and ` +
      `${formatBytes(metadataReserveBytes(table))} are kept so that existing volumes can be attached and deleted`,
  );
}
