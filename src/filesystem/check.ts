/**
 * The check before a mount. ext4: `e2fsck -p`, which replays the journal and repairs only what is safe to repair without
 * a question, and only when the superblock says that there is something to do: for a clean one e2fsck itself does
 * nothing more than to read that. XFS: none (fsck.xfs(8) does nothing: the kernel replays the log; repair is by hand).
 */
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';
import { readExt4Superblock } from './superblock.ts';

/** e2fsck(8), exit codes: a sum of these. */
const CORRECTED = 1;
const REBOOT = 2;
const UNCORRECTED = 4;

export type CheckResult = 'clean' | 'checked' | 'repaired';

/**
 * Only for a device that is not mounted anywhere, and of which the probe said that it is ext4.
 * @throws FileSystemError 'needs-repair' when a human must decide, 'tool-missing', 'other'
 */
export async function checkExt4(
  { commands, files }: { readonly commands: Commands; readonly files: Files },
  device: { readonly devicePath: string; readonly fileRoot: string },
): Promise<CheckResult> {
  const { devicePath } = device;
  const superblock = await readExt4Superblock(files, `${device.fileRoot}${devicePath}`);
  if (superblock?.valid && !superblock.hasErrors && !superblock.needsRecovery) return 'clean';
  let exitCode: number;
  try {
    const result = await commands.run({
      file: 'e2fsck',
      args: ['-p', devicePath],
      kind: 'mutate',
      acceptedExitCodes: [0, CORRECTED, REBOOT, CORRECTED | REBOOT],
    });
    exitCode = result.exitCode;
  } catch (error) {
    throw checkFailure(devicePath, error);
  }
  return exitCode === 0 ? 'checked' : 'repaired';
}

function checkFailure(devicePath: string, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  if (error.missing) {
    return new FileSystemError('tool-missing', 'e2fsck is not installed (package e2fsprogs)', { cause: error });
  }
  if (error.exitCode !== undefined && (error.exitCode & UNCORRECTED) !== 0) {
    return new FileSystemError(
      'needs-repair',
      `the file system on ${devicePath} has damage that e2fsck -p does not repair`,
      {
        cause: error,
      },
    );
  }
  return new FileSystemError('other', `the file system on ${devicePath} could not be checked: ${error.shortMessage}`, {
    cause: error,
  });
}
