/** What the controller starts on the storage host, beside LVM's tools: those are missed where the volume group is read. */
import type { Commands } from '../system/commands.ts';
import { type HostProgram, programProblems } from '../system/host-programs.ts';

const PROGRAMS: readonly HostProgram[] = [
  { name: 'mkfs.ext4', package: 'e2fsprogs' },
  { name: 'mkfs.xfs', package: 'xfsprogs' },
  { name: 'flock', package: 'util-linux' },
  { name: 'blkdiscard', package: 'util-linux' },
  { name: 'dmsetup', package: 'dmsetup (Debian, Ubuntu) or device-mapper' },
];

/** @returns [] or what is missing, for Probe */
export async function controllerProgramProblems(commands: Commands): Promise<string[]> {
  return await programProblems(commands, PROGRAMS, 'on the storage host');
}
