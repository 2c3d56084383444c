/** The one table that a gate should have: the whole of its LV up to the volume's size, from offset 0. */
import type { Files } from '../system/files.ts';
import type { DmDevice } from './dm-table.ts';
import { GateError } from './errors.ts';
import { SECTOR_BYTES } from './naming.ts';

export interface LinearTable {
  readonly lengthSectors: number;
  /** "major:minor" of the LV. */
  readonly backing: string;
  readonly lvPath: string;
  /** As dmsetup takes it. */
  readonly text: string;
}

/** @throws GateError backing. */
export async function linearTable(files: Files, lvPath: string, sizeBytes: number): Promise<LinearTable> {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % SECTOR_BYTES !== 0) {
    throw new GateError('backing', `a gate of ${sizeBytes} bytes: not a multiple of ${SECTOR_BYTES} above 0`);
  }
  const device = await files.stat(lvPath);
  if (device?.kind !== 'block' || device.rdev === undefined) {
    const found = device === undefined ? 'nothing there' : `a ${device.kind}`;
    throw new GateError('backing', `${lvPath} is not a block device (${found}): is the logical volume active?`);
  }
  const lengthSectors = sizeBytes / SECTOR_BYTES;
  return { lengthSectors, backing: device.rdev, text: `0 ${lengthSectors} linear ${lvPath} 0`, lvPath };
}

/** `smaller`: right but for its size, which can grow under I/O. */
export function compareTable(device: DmDevice, wanted: LinearTable): 'none' | 'smaller' | 'other' {
  const [only] = device.table;
  if (device.table.length !== 1 || device.readonly || only?.type !== 'linear') return 'other';
  if (only.args !== `${wanted.backing} 0` || only.lengthSectors > wanted.lengthSectors) return 'other';
  return only.lengthSectors === wanted.lengthSectors ? 'none' : 'smaller';
}
