/**
 * The block backstore of one volume: HBA, device, serial, enable, attributes. In this order: the serial cannot be
 * changed once a LUN is linked, and `emulate_tpu` on a backstore that is not enabled panics Linux 6.1 (a null pointer
 * in iblock_configure_unmap).
 */
import { log } from '../../system/context.ts';
import type { FileStat } from '../../system/files.ts';
import { type ConfigFs, errorCode, type Mutation } from './configfs.ts';
import { differences, write } from './configfs-calls.ts';
import { TargetError } from './errors.ts';
import { type BackstorePlace, backstoreQueries, type FoundBackstore, toBackstore } from './inventory.ts';
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
export function deviceNumberOf(device: FileStat | undefined, devicePath: string): string {
  if (device?.kind === 'block' && device.rdev !== undefined) return device.rdev;
  const found = device === undefined ? 'nothing' : `a ${device.kind}`;
  throw new TargetError('device', `${devicePath} cannot be exported: ${found} is there, not a block device`);
}

/** What sets up a backstore that is not enabled yet. */
export function backstoreSetup(path: string, spec: TargetSpec): Mutation[] {
  return [
    write('target-backstore-device', `${path}/control`, `udev_path=${spec.devicePath}`),
    write('target-backstore-serial', `${path}/wwn/vpd_unit_serial`, spec.serial),
    write('target-backstore-enable', `${path}/enable`, '1'),
  ];
}

/** Makes these changes, the backstore's setup among them; verified. */
export async function buildBackstore(
  fs: ConfigFs,
  place: BackstorePlace,
  mutations: readonly Mutation[],
  spec: TargetSpec,
  deviceNumber: string,
): Promise<void> {
  const enable = `${place.path}/enable`;
  let built: FoundBackstore | undefined;
  try {
    const { answers } = await fs.applyAndAsk(mutations, ...backstoreQueries(place));
    built = toBackstore(place, answers);
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined || (error as NodeJS.ErrnoException).path !== enable) throw error;
    // LIO opens exclusively: another backstore, a mount or LVM has it.
    const why = code === 'EBUSY' ? 'something else holds it open' : `the kernel answered ${code}`;
    throw new TargetError('device', `${spec.devicePath} cannot be exported: ${why}`, { cause: error });
  }
  const problem = built?.enabled === true ? backstoreProblem(built, spec, deviceNumber) : 'it did not become enabled';
  if (problem !== undefined)
    throw new TargetError('kernel', `backstore ${place.path} was built and is wrong: ${problem}`);
}

/** What differs in the attributes of an enabled backstore. A new one has the kernel's defaults and is asked as well. */
export async function attributeChanges(fs: ConfigFs, backstorePath: string, spec: TargetSpec): Promise<Mutation[]> {
  const discard = spec.discard ? '1' : '0';
  const wanted: [string, string][] = [
    // Third-party copy has let an initiator reach other volumes (CVE-2020-28374).
    ['emulate_3pc', '0'],
    // Reservations live in memory only and are lost with a reboot: only for nodes that share the volume and may need them.
    ['emulate_pr', spec.reservations === true ? '1' : '0'],
    ['emulate_tpu', discard],
    ['emulate_tpws', discard],
  ];
  const changes = await differences(
    fs,
    wanted.map(([name, text]) => ({
      step: 'target-backstore-attribute',
      path: `${backstorePath}/attrib/${name}`,
      text,
    })),
  );
  // ENOSYS: the device takes no discards.
  return changes.map(({ step, call }) => ({ step, call: { ...call, accept: ['ENOSYS'] } }));
}

/** The volume works without discards: a warning, no error. */
export function warnWithoutDiscard(spec: TargetSpec, codes: readonly (string | undefined)[]): void {
  if (spec.discard && codes.includes('ENOSYS'))
    log().warn(
      { volumeId: spec.volumeId, device: spec.devicePath },
      'the device takes no discards: none will reach it',
    );
}
