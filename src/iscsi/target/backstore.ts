/**
 * The block backstore of one volume: HBA, device, serial, enable, attributes. In this order: the serial cannot be
 * changed once a LUN is linked, and `emulate_tpu` on a backstore that is not enabled panics Linux 6.1 (a null pointer
 * in iblock_configure_unmap).
 */
import { log } from '../../system/context.ts';
import { step } from '../../system/step.ts';
import { type ConfigFs, errorCode } from './configfs.ts';
import { TargetError } from './errors.ts';
import type { HbaIndex } from './hba-index.ts';
import { type FoundBackstore, readBackstore } from './inventory.ts';
import type { TargetLayout } from './layout.ts';
import type { TargetSpec } from './types.ts';

/** Why this backstore must not serve the volume, or undefined when it is right as far as it has been built. */
export function backstoreProblem(found: FoundBackstore, spec: TargetSpec, deviceNumber: string): string | undefined {
  // Not enabled yet: device and serial can still be set, nothing can be linked to it.
  if (!found.enabled) return undefined;
  if (found.devicePath !== spec.devicePath) return `it exports ${found.devicePath} instead of ${spec.devicePath}`;
  if (found.deviceNumber !== deviceNumber)
    return `it holds device ${found.deviceNumber} open, ${spec.devicePath} is ${deviceNumber}`;
  if (found.serial !== spec.serial) return `its serial is "${found.serial}" instead of "${spec.serial}"`;
  return undefined;
}

/** @returns "major:minor" of the device to export. @throws TargetError device. */
export async function exportedDevice(fs: ConfigFs, devicePath: string): Promise<string> {
  const device = await fs.stat(devicePath);
  if (device?.kind !== 'block' || device.rdev === undefined) {
    throw new TargetError(
      'device',
      `${devicePath} cannot be exported: ${device?.kind ?? 'nothing'} is there, not a block device`,
    );
  }
  return device.rdev;
}

/** Makes, or goes on making, a backstore; then its attributes. @returns its folder's path. */
export async function completeBackstore(
  fs: ConfigFs,
  layout: TargetLayout,
  hba: string,
  spec: TargetSpec,
  deviceNumber: string,
): Promise<string> {
  const path = `${layout.core}/${hba}/${spec.volumeId}`;
  const found = await readBackstore(fs, layout, hba, spec.volumeId);
  if (found === undefined) throw new TargetError('kernel', `backstore ${path} has gone while it was being built`);
  if (!found.enabled) {
    await step('target-backstore-device', () => fs.write(`${path}/control`, `udev_path=${spec.devicePath}`));
    await step('target-backstore-serial', () => fs.write(`${path}/wwn/vpd_unit_serial`, spec.serial));
    await step('target-backstore-enable', () => enable(fs, path, spec.devicePath));
    const enabled = await readBackstore(fs, layout, hba, spec.volumeId);
    const problem =
      enabled?.enabled === true ? backstoreProblem(enabled, spec, deviceNumber) : 'it did not become enabled';
    if (problem !== undefined) throw new TargetError('kernel', `backstore ${path} was built and is wrong: ${problem}`);
  }
  await convergeAttributes(fs, `${path}/attrib`, spec);
  return path;
}

async function enable(fs: ConfigFs, path: string, devicePath: string): Promise<void> {
  try {
    await fs.write(`${path}/enable`, '1');
  } catch (error) {
    const code = errorCode(error);
    // Opened exclusively: something else (another backstore, a mount, LVM) has it.
    const why = code === 'EBUSY' ? 'something else holds it open' : `the kernel answered ${code ?? 'an error'}`;
    if (code === undefined || code === 'ETIMEDOUT') throw error;
    throw new TargetError('device', `${devicePath} cannot be exported: ${why}`, { cause: error });
  }
}

async function convergeAttributes(fs: ConfigFs, folder: string, spec: TargetSpec): Promise<void> {
  const discard = spec.discard ? '1' : '0';
  const wanted: [string, string][] = [
    // Third-party copy has let an initiator reach other volumes (CVE-2020-28374).
    ['emulate_3pc', '0'],
    // Reservations live in memory only and would silently be lost with a reboot.
    ['emulate_pr', '0'],
    ['emulate_tpu', discard],
    ['emulate_tpws', discard],
  ];
  const found = await Promise.all(wanted.map(([name]) => fs.readIfPresent(`${folder}/${name}`)));
  for (const [index, [name, value]] of wanted.entries()) {
    if (found[index] === undefined || found[index] === value) continue;
    try {
      await step('target-backstore-attribute', () => fs.write(`${folder}/${name}`, value));
    } catch (error) {
      if (errorCode(error) !== 'ENOSYS') throw error;
      log().warn({ volumeId: spec.volumeId, attribute: name }, 'the device takes no discards: none will reach it');
    }
  }
}

/** Absent: nothing to do. The LUN link must be gone. */
export async function removeBackstore(fs: ConfigFs, index: HbaIndex, volumeId: string): Promise<void> {
  const hba = await index.find(fs, volumeId);
  if (hba !== undefined) await index.release(fs, hba, volumeId);
}
