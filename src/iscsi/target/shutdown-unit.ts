/**
 * A systemd unit on the storage host whose stop ends every iSCSI session of ours, while the disks still answer.
 * Without it the disks go first in an orderly shutdown (a reboot for a kernel update, say): LIO then answers commands
 * in flight with NOT READY, which an initiator hands up as an I/O error. A session that ends is waited for instead, up
 * to the replacement timeout, as with a host that lost its power.
 *
 * A unit of the host and not a part of the controller's own stop: that must leave sessions alone, and can't tell a
 * restart from a shutdown. It lives in /run, and the controller puts it there at each start.
 */
import { CommandError, type Commands } from '../../system/commands.ts';
import { log } from '../../system/context.ts';
import type { Files } from '../../system/files.ts';
import { keepHostFile } from '../../system/host-file.ts';
import { step } from '../../system/step.ts';
import { PORTAL_HOLDER } from './layout.ts';

export interface ShutdownUnitOptions {
  readonly files: Files;
  readonly commands: Commands;
  /** Where the host's file system is seen; "" when it is our own. */
  readonly hostRoot: string;
  readonly iqnPrefix: string;
  readonly vgName: string;
}

const FOLDER = '/run/systemd/system';
/** A hung disk must not hold up the host's shutdown. */
const STOP_TIMEOUT_S = 30;

/** One for each volume group: controllers of two on one host may have different prefixes. */
export function shutdownUnitName(vgName: string): string {
  // A plus cannot stand in a unit's name (systemd.unit(5)).
  return `lvm-iscsi-csi-sessions-${vgName.replaceAll('+', '_')}.service`;
}

/**
 * The witness first (witness.ts): from then on no refusal is taken for a revoked attachment. Then the portals: an initiator
 * is to find nobody there ("try again later"), not a host that refuses it. `$$`: a dollar that systemd does not expand
 * itself (systemd.service(5)).
 */
export function shutdownUnitText(iqnPrefix: string): string {
  const script = [
    'cd /sys/kernel/config/target/iscsi || exit 0',
    `for e in ${iqnPrefix}:${PORTAL_HOLDER}*/tpgt_1/enable; do [ -e "$$e" ] && echo 0 >"$$e"; done`,
    `for p in ${iqnPrefix}:*/tpgt_1/np/*; do [ -d "$$p" ] && rmdir "$$p"; done`,
    `for e in ${iqnPrefix}:*/tpgt_1/enable; do [ "$$(cat "$$e")" = 1 ] && echo 0 >"$$e"; done`,
    'exit 0',
  ].join('; ');
  return `[Unit]
Description=iSCSI sessions of lvm-iscsi-csi end before the disks and the network do
After=local-fs.target network.target blk-availability.service lvm2-monitor.service
RefuseManualStop=yes
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c '${script}'
TimeoutStopSec=${STOP_TIMEOUT_S}
`;
}

/** Puts the unit there and starts it; one that is there already is left alone. A host without it works, but for its shutdown. */
export async function prepareShutdown(options: ShutdownUnitOptions): Promise<void> {
  const { files, commands, hostRoot, iqnPrefix, vgName } = options;
  const name = shutdownUnitName(vgName);
  try {
    // As sd_booted(3).
    if ((await files.stat(`${hostRoot}${FOLDER}`)) === undefined) {
      log().warn('the storage host runs no systemd: end its iSCSI sessions before its disks at a shutdown');
      return;
    }
    const path = `${hostRoot}${FOLDER}/${name}`;
    const systemctl = (...args: string[]) => commands.run({ file: 'systemctl', args, kind: 'mutate' });
    if (await keepHostFile(files, path, shutdownUnitText(iqnPrefix), 'shutdown-unit-write')) {
      await step('shutdown-unit-load', () => systemctl('daemon-reload'));
    }
    await step('shutdown-unit-start', () => systemctl('start', name));
  } catch (error) {
    const reason = error instanceof CommandError ? error.shortMessage : String(error);
    log().warn(
      { err: error },
      `${name} could not be set up (${reason}): a shutdown of this host may give nodes I/O errors`,
    );
  }
}
