/**
 * Which block devices of the host LVM may look at. It reads every device that its filter lets through, and a read of a
 * suspended device, or of one whose I/O ends at one, hangs for good (measured, 2.03.16): so what could ever lead to one
 * of our gates is found out from sysfs, without opening a device, and left out.
 */
import type { Files } from '../system/files.ts';

/** device-mapper UUID prefixes: our own devices (src/gate/types.ts) and LVM's. */
const OWN_UUID = 'LVMISCSICSI-';
const LVM_UUID = 'LVM-';

export interface BlockDevice {
  /** Kernel name: sda, sda1, dm-3, md127. */
  readonly name: string;
  /** "major:minor". */
  readonly deviceNumber: string;
  /** Of a device-mapper device. */
  readonly dmName?: string;
}

/** Devices that LVM may look at, sorted by name: no LV, no gate, nothing suspended, nothing that stands on such. */
export async function scannableDevices(files: Files, hostRoot: string): Promise<BlockDevice[]> {
  const sysfs = `${hostRoot}/sys/block`;
  const found = new Map<string, Part>();
  const refused = new Set<string>();
  for (const name of await files.readdir(sysfs)) {
    if (/^(?:ram|fd|sr|zram)\d+$/.test(name)) continue;
    const { refuse, parts } = await readDevice(files, hostRoot, name);
    for (const part of parts) {
      if (refuse) refused.add(part.name);
      else found.set(part.name, part);
    }
  }
  for (let changed = true; changed; ) {
    changed = false;
    for (const { name, standsOn } of found.values()) {
      if (!standsOn.some((below) => refused.has(below))) continue;
      found.delete(name);
      refused.add(name);
      changed = true;
    }
  }
  return [...found.values()].map(({ standsOn: _standsOn, ...device }) => device);
}

interface Part extends BlockDevice {
  readonly standsOn: readonly string[];
}

/** A disk with its partitions; no parts: it has gone, or has no medium. */
async function readDevice(
  files: Files,
  hostRoot: string,
  name: string,
): Promise<{ refuse: boolean; parts: readonly Part[] }> {
  const gone = { refuse: true, parts: [] };
  const folder = `${hostRoot}/sys/block/${name}`;
  const deviceNumber = await attribute(files, `${folder}/dev`);
  const size = await attribute(files, `${folder}/size`);
  if (deviceNumber === undefined || size === undefined || size === '0') return gone;
  let refuse = false;
  let dmName: string | undefined;
  if (name.startsWith('dm-')) {
    const uuid = await attribute(files, `${folder}/dm/uuid`);
    const suspended = await attribute(files, `${folder}/dm/suspended`);
    if (uuid === undefined || suspended === undefined) return gone;
    dmName = await attribute(files, `${folder}/dm/name`);
    refuse = uuid.startsWith(OWN_UUID) || uuid.startsWith(LVM_UUID) || suspended !== '0';
  } else {
    refuse = await isOwnExport(files, hostRoot, folder);
  }
  const entries = await absentAsEmpty(files.readdir(folder));
  const standsOn = await absentAsEmpty(files.readdir(`${folder}/slaves`));
  const parts: Part[] = [{ name, deviceNumber, standsOn, ...(dmName === undefined ? {} : { dmName }) }];
  for (const entry of entries) {
    if (!entry.startsWith(name)) continue;
    const number = await attribute(files, `${folder}/${entry}/dev`);
    if (number !== undefined) parts.push({ name: entry, deviceNumber: number, standsOn: [name] });
  }
  return { refuse, parts };
}

/**
 * Is this an iSCSI disk of a target of this very host? A single machine in both roles has those: behind them are gates.
 * Their session ends at a target that stands in our own configfs.
 */
async function isOwnExport(files: Files, hostRoot: string, folder: string): Promise<boolean> {
  const session = /\/(session\d+)\//.exec(await absentAs('', files.readlink(folder)))?.[1];
  if (session === undefined) return false;
  const target = await attribute(files, `${hostRoot}/sys/class/iscsi_session/${session}/targetname`);
  // The session went away meanwhile, and its disk with it.
  if (target === undefined) return true;
  return (await files.stat(`${hostRoot}/sys/kernel/config/target/iscsi/${target}`)) !== undefined;
}

/** Names under /dev/disk/by-id that follow the hardware or the map, best first; the others come last. */
const PREFERENCE = [/^wwn-/, /^nvme-(?:eui|uuid|nvme)\./, /^dm-uuid-/, /^md-uuid-/, /^scsi-/, /^ata-/, /^nvme-/];

/**
 * A name for each device that stays the same across reboots and replugging where there is one, else its device-mapper
 * or kernel name.
 * Names that content decides (file system or PV UUIDs) are not used: a tenant could write them.
 */
export async function stableNames(
  files: Files,
  hostRoot: string,
  devices: readonly BlockDevice[],
  isUsable: (path: string) => boolean,
): Promise<string[]> {
  const folder = '/dev/disk/by-id';
  const byNumber = new Map<string, string[]>();
  for (const entry of await absentAsEmpty(files.readdir(`${hostRoot}${folder}`))) {
    if (/^(?:dm-name-|lvm-pv-uuid-|dm-uuid-LVM-|dm-uuid-LVMISCSICSI-)/.test(entry)) continue;
    const path = `${folder}/${entry}`;
    const stat = await files.stat(`${hostRoot}${path}`);
    if (stat?.rdev === undefined || !isUsable(path)) continue;
    byNumber.set(stat.rdev, [...(byNumber.get(stat.rdev) ?? []), path]);
  }
  const rank = (path: string): number => {
    const index = PREFERENCE.findIndex((pattern) => pattern.test(path.slice(folder.length + 1)));
    return index === -1 ? PREFERENCE.length : index;
  };
  return devices.map((device) => {
    const names = byNumber.get(device.deviceNumber) ?? [];
    const [best] = names.toSorted((a, b) => rank(a) - rank(b) || a.localeCompare(b));
    const mapped = `/dev/mapper/${device.dmName}`;
    return best ?? (device.dmName !== undefined && isUsable(mapped) ? mapped : devicePath(device));
  });
}

/** `/dev/…` of a device; sysfs writes `!` for `/` (cciss!c0d0). */
export function devicePath(device: BlockDevice): string {
  return `/dev/${device.name.replaceAll('!', '/')}`;
}

/** An attribute's text; undefined when the device has gone. */
async function attribute(files: Files, path: string): Promise<string | undefined> {
  return (await absentAs(undefined, files.readText(path)))?.trim();
}

async function absentAsEmpty(reading: Promise<string[]>): Promise<string[]> {
  return await absentAs([], reading);
}

/** ENODEV: a device that went away between open and read of its attribute. */
export async function absentAs<T, A>(absent: A, reading: Promise<T>): Promise<T | A> {
  try {
    return await reading;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENOTDIR') return absent;
    throw error;
  }
}
