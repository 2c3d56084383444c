/**
 * Where the host's programs run: in this process's own namespaces, or (from a pod with hostPID) in those of PID 1.
 */

export interface HostNamespace {
  readonly mode: 'direct' | 'nsenter';
  /** Whose namespaces `nsenter` enters; 1 when absent. Only tests name another process. */
  readonly targetPid?: number;
}

/** Host tools live in sbin on some distributions and not on others; nothing else of our environment is passed on. */
export const HOST_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C',
};

/**
 * The argument vector that runs `argv` in the host's namespaces. `--ipc` stays: udev cookies are SysV semaphores, and
 * LVM waits on them. `--cgroup` because with cgroup2's `nsdelegate` a process in a pod's private cgroup namespace may
 * not move itself out of it (Documentation/admin-guide/cgroup-v2.rst, "Delegation Containment").
 */
export function inHostNamespace(host: HostNamespace, argv: readonly string[]): string[] {
  if (host.mode === 'direct') return [...argv];
  const namespaces = ['--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup'];
  return ['nsenter', ...namespaces, '--target', String(host.targetPid ?? 1), '--', ...argv];
}

/** As one line that a shell would read back as the same arguments: for logs and messages. */
export function quoteCommand(argv: readonly string[]): string {
  return argv.map(quoteArgument).join(' ');
}

function quoteArgument(argument: string): string {
  if (/^[A-Za-z0-9_@%+=:,./-]+$/.test(argument)) return argument;
  return `'${argument.replaceAll("'", "'\\''")}'`;
}
