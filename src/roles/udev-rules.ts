/**
 * Rules for the storage host's udev that keep it, and through it the host's LVM, md, btrfs and systemd, away from what
 * tenants write into their volumes. Without them:
 * - LVM takes a gate for an ordinary disk: 69-lvm.rules runs pvscan and `vgchange -aay` on one that holds a PV. The
 *   tenant's LV then has the gate open, before LIO does (publish fails) or against its removal (unpublish never ends);
 * - a volume's LV or gate gets links by the UUID and label of the tenant's file system: with the UUID of the host's own
 *   root or data disk it stands in for that at the next boot.
 *
 * dmsetup(8) cannot make a device with these flags. They are set at every event, after the rules that take them from the
 * event's cookie or from udev's database, so coldplug and `udevadm trigger` find the same. Links in /dev/mapper and
 * /dev/VG stay: the rules of device-mapper and of LVM as a subsystem make them, with other flags.
 *
 * One set of files for each volume group: two controllers on one host do not overwrite each other's.
 */
import { CommandError, type Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import type { Files } from '../system/files.ts';
import { keepHostFile } from '../system/host-file.ts';
import { step } from '../system/step.ts';

export interface UdevRulesOptions {
  readonly files: Files;
  readonly commands: Commands;
  /** Where the host's file system is seen; "" when it is our own. */
  readonly hostRoot: string;
  readonly vgName: string;
}

/** Persistent: the boot's coldplug comes before the controller. */
const FOLDER = '/etc/udev/rules.d';
const VOLATILE_FOLDER = '/run/udev/rules.d';
/** As libudev and LVM ask whether udev is there. */
const CONTROL_SOCKET = '/run/udev/control';

/**
 * After the rules that set DM_UUID, DM_NAME and the flags, and before those that probe: lvm2 installs them as 10-dm, 11-dm-lvm
 * and 13-dm-disk, Debian and Ubuntu as 55-dm, 56-lvm and 60-persistent-storage-dm. In the other's place the same text
 * does nothing, or the same again: so both are kept, and no distribution has to be recognised.
 */
const POSITIONS = [12, 57];

const GATE_UUIDS = 'LVMISCSICSI-?*';
/** Of volumes; of deleted volumes and freed space, which hold tenants' data until they are wiped. */
const LV_PREFIXES = ['volume-', '_wipe-', '_scrub-'];
const UUID_PATTERN = [8, 4, 4, 4, 12].map((digits) => '?'.repeat(digits)).join('-');

export function udevRulesNames(vgName: string): string[] {
  return POSITIONS.map((position) => `${position}-lvm-iscsi-csi-${vgName}.rules`);
}

/** Patterns of the device-mapper names of LVs that hold tenants' data, exact but for the digits: an LV of the administrator's keeps its links. */
function lvPatterns(vgName: string): string[] {
  // LVM joins VG and LV by a hyphen and doubles their own (dm_build_dm_name in libdm-string.c).
  const doubled = (name: string): string => name.replaceAll('-', '--');
  return LV_PREFIXES.map((prefix) => `${doubled(vgName)}-${doubled(`${prefix}${UUID_PATTERN}`)}`);
}

export function udevRulesText(vgName: string): string {
  const actions = [
    // No blkid, and so no links by UUID and label; no watch.
    'ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1"',
    // No pvscan, no multipath, none of any other layer that could be stacked above.
    'ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1"',
    // For the rules of md and btrfs, and for systemd's units.
    'ENV{SYSTEMD_READY}="0"',
    'OPTIONS:="nowatch"',
  ].join(', ');
  return `# Kept by lvm-iscsi-csi, controller of volume group "${vgName}" (docs/security.md): what tenants write into their
# volumes is not for this host. First gates, then logical volumes.
SUBSYSTEM=="block", ACTION!="remove", ENV{DM_UUID}=="${GATE_UUIDS}", ${actions}
SUBSYSTEM=="block", ACTION!="remove", ENV{DM_UUID}=="LVM-?*", ENV{DM_NAME}=="${lvPatterns(vgName).join('|')}", ${actions}
`;
}

/**
 * Puts the rules there, before the first gate is made. What has been written anew is applied to the devices that are
 * there already. A crash before that leaves these as they were until their next event, at the latest the next boot's.
 * Where /etc cannot be written, the rules hold until the next boot, and a warning says what to do.
 */
export async function keepUdevRules(options: UdevRulesOptions): Promise<void> {
  const { files, commands, hostRoot, vgName } = options;
  const names = udevRulesNames(vgName).join(' and ');
  try {
    if ((await files.stat(`${hostRoot}${CONTROL_SOCKET}`)) === undefined) {
      log().info('the storage host runs no udev: it needs no rules for what tenants write into their volumes');
      return;
    }
    if (!(await keepWhereItStays(options))) return;
    const udevadm = (...args: string[]) => commands.run({ file: 'udevadm', args, kind: 'mutate' });
    await step('udev-rules-load', () => udevadm('control', '--reload'));
    const properties = [`DM_UUID=${GATE_UUIDS}`, ...lvPatterns(vgName).map((pattern) => `DM_NAME=${pattern}`)];
    const matches = properties.map((property) => `--property-match=${property}`);
    await step('udev-rules-apply', () => udevadm('trigger', '--action=change', '--subsystem-match=block', ...matches));
  } catch (error) {
    log().warn(
      { err: error },
      `the udev rules ${names} could not be set up (${reasonOf(error)}): this host may act on what tenants write into their volumes (docs/security.md)`,
    );
  }
}

/** Whether anything was written. */
async function keepWhereItStays(options: UdevRulesOptions): Promise<boolean> {
  const { vgName } = options;
  try {
    return await keepIn(FOLDER, options);
  } catch (error) {
    log().warn(
      { err: error, rules: udevRulesText(vgName) },
      `${FOLDER} of the storage host cannot be written (${reasonOf(error)}): its udev rules for volume group "${vgName}" last until the next boot, ` +
        `at which this host would act on what tenants have written into their volumes; to do: put the text of "rules" into its ` +
        `${udevRulesNames(vgName).join(' and ')} in the way in which this host's /etc is kept`,
    );
    return await keepIn(VOLATILE_FOLDER, options);
  }
}

async function keepIn(folder: string, { files, hostRoot, vgName }: UdevRulesOptions): Promise<boolean> {
  let written = false;
  for (const name of udevRulesNames(vgName)) {
    const path = `${hostRoot}${folder}/${name}`;
    if (await keepHostFile(files, path, udevRulesText(vgName), 'udev-rules-write')) written = true;
  }
  return written;
}

function reasonOf(error: unknown): string {
  return error instanceof CommandError ? error.shortMessage : String(error);
}
