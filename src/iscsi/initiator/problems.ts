/** What keeps this node from being an iSCSI initiator that mounts, in words for its administrator. */
import { CommandError, type Commands } from '../../system/commands.ts';
import { log } from '../../system/context.ts';
import type { Files } from '../../system/files.ts';
import { type HostProgram, programProblems } from '../../system/host-programs.ts';
import { IscsiError, OPEN_ISCSI_PACKAGE } from './errors.ts';
import { readInitiatorName } from './initiator-name.ts';

const COMMAND_TIMEOUT_MS = 10_000;
/** iscsid's socket (usr/mgmt_ipc.h), an abstract one: held by iscsid itself, or by systemd, which starts it on demand. */
const ISCSID_SOCKET = '@ISCSIADM_ABSTRACT_NAMESPACE';
/** __SO_ACCEPTCON in the "Flags" column of /proc/net/unix: somebody listens. */
const LISTENING = 0x10000;

const MOUNT = 'mount (Debian, Ubuntu) or util-linux';
const PROGRAMS: readonly HostProgram[] = [
  { name: 'blkid', package: 'util-linux' },
  { name: 'mount', package: MOUNT },
  { name: 'umount', package: MOUNT },
  { name: 'e2fsck', package: 'e2fsprogs' },
  { name: 'resize2fs', package: 'e2fsprogs' },
  { name: 'xfs_growfs', package: 'xfsprogs' },
];

export interface ProblemsOptions {
  readonly files: Files;
  readonly commands: Commands;
  readonly hostRoot: string;
  readonly initiatorNameFile: string;
}

/** [] when all is well. Changes nothing: modules are only looked for, iscsid loads them itself. */
export async function findProblems(options: ProblemsOptions): Promise<string[]> {
  const found = await Promise.all([
    iscsiadm(options),
    iscsid(options),
    module(options),
    initiatorName(options),
    programProblems(options.commands, PROGRAMS, 'on this node'),
  ]);
  return found.flat().filter((problem) => problem !== undefined);
}

async function iscsiadm({ commands }: ProblemsOptions): Promise<string | undefined> {
  try {
    const { stdout } = await commands.run({
      file: 'iscsiadm',
      args: ['--version'],
      kind: 'read',
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    if (/\b2\.1\.10\b/.test(stdout)) {
      log().warn(
        'open-iscsi 2.1.10 does not answer logins with scan=manual: each takes the whole login timeout; update to 2.1.11',
      );
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (error.missing) return `iscsiadm is not installed; to do: ${OPEN_ISCSI_PACKAGE}`;
    return `iscsiadm does not work: ${error.shortMessage}`;
  }
}

async function iscsid({ files, hostRoot }: ProblemsOptions): Promise<string | undefined> {
  // PID 1's view: an abstract socket belongs to a network namespace, and /proc/net would be the reader's own.
  const sockets = await files.readText(`${hostRoot}/proc/1/net/unix`);
  for (const line of sockets.split('\n')) {
    const fields = line.trim().split(/\s+/);
    if (fields.at(-1) === ISCSID_SOCKET && (Number.parseInt(fields[3] ?? '0', 16) & LISTENING) !== 0) return undefined;
  }
  return 'iscsid is not running and would not be started on demand; to do: systemctl enable --now iscsid.socket (or iscsid)';
}

async function module({ files, commands, hostRoot }: ProblemsOptions): Promise<string | undefined> {
  if ((await files.stat(`${hostRoot}/sys/class/iscsi_transport/tcp`)) !== undefined) return undefined;
  try {
    await commands.run({
      file: 'modprobe',
      args: ['--dry-run', 'iscsi_tcp'],
      kind: 'read',
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    return undefined;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return "the kernel module iscsi_tcp is neither loaded nor found; to do: install the kernel's extra modules (linux-modules-extra on Ubuntu, kernel-modules on Fedora) for the running kernel";
  }
}

async function initiatorName(options: ProblemsOptions): Promise<string | undefined> {
  try {
    await readInitiatorName(options.files, options.hostRoot, options.initiatorNameFile);
    return undefined;
  } catch (error) {
    if (error instanceof IscsiError) return error.message;
    throw error;
  }
}
