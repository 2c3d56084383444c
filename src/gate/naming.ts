/** Names of gates: `gate-<uuid>` and device-mapper UUID `LVMISCSICSI-gate-<uuid>` for volume `volume-<uuid>`. */
import type { DmDevice } from './dm-table.ts';
import { GateError } from './errors.ts';
import type { Gate } from './types.ts';

/** Ours, and not known to LVM, multipath or cryptsetup, whose udev rules look at this prefix. */
const UUID_PREFIX = 'LVMISCSICSI-gate-';
export const SECTOR_BYTES = 512;

export interface GateName {
  readonly name: string;
  readonly uuid: string;
  readonly path: string;
}

/** @throws GateError when it is not a volume's id. */
export function gateName(volumeId: string): GateName {
  const suffix = /^volume-([0-9A-Za-z-]{1,64})$/.exec(volumeId)?.[1];
  if (suffix === undefined) throw new GateError('failed', `"${volumeId}" is not a volume id: volume-<uuid>`);
  return { name: `gate-${suffix}`, uuid: `${UUID_PREFIX}${suffix}`, path: `/dev/mapper/gate-${suffix}` };
}

/** The gate that a device-mapper device is, or undefined when it is not one of ours. */
export function asGate(device: DmDevice): Gate | undefined {
  if (!device.uuid.startsWith(UUID_PREFIX)) return undefined;
  const suffix = device.uuid.slice(UUID_PREFIX.length);
  if (device.name !== `gate-${suffix}`) return undefined;
  const [only] = device.table;
  const type = device.table.length === 1 ? only?.type : undefined;
  return {
    volumeId: `volume-${suffix}`,
    path: `/dev/mapper/gate-${suffix}`,
    suspended: device.suspended,
    table: device.table.length === 0 ? 'none' : type === 'linear' || type === 'error' ? type : 'other',
    sizeBytes: device.table.reduce((sum, line) => sum + line.lengthSectors, 0) * SECTOR_BYTES,
    backing: type === 'linear' ? only?.args.split(' ')[0] : undefined,
    openCount: device.openCount,
  };
}
