import { execa } from 'execa';

/** As a pod has it: the root read-only, /proc and /dev of the host. In a mount namespace, so that nothing stays mounted. */
const SCRIPT = `set -e
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount --rbind /dev "$0/dev"
mount --rbind /proc "$0/proc"
exec chroot "$0" "$@"`;

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Runs a command of an image in it.
 *
 * @param root the image's root, mounted
 * @param environment what the image sets; by default only the PATH that every runtime gives
 * @returns what it wrote to standard output
 */
export async function insideReadOnly(
  root: string,
  command: readonly string[],
  environment: Readonly<Record<string, string>> = { PATH },
): Promise<string> {
  const { stdout } = await execa('unshare', ['--mount', 'sh', '-c', SCRIPT, root, ...command], {
    extendEnv: false,
    env: environment,
  });
  return stdout;
}
