/**
 * A home on the host for commands that must never be killed.
 *
 * A pod's death (OOM, force-delete) and systemd's `KillMode=control-group` kill every process of our control group,
 * and neither `nsenter` nor `setsid` leaves it. So each process makes one long-lived systemd scope of its own, and each
 * mutating command moves itself there (one write to `cgroup.procs`) before it becomes the real program: until then
 * nothing has been changed, so dying there is harmless. The scope is held by a keeper, which ends when we end; the
 * scope itself lives on until the last command in it has ended, and systemd then collects it.
 *
 * Where that cannot be had (cgroup v1, no right to write there) each command gets a scope of its own by `systemd-run`,
 * at the cost of a D-Bus round trip. Without systemd they run in our own control group, and the log says so, once. A host
 * that has systemd and gives no scope just now (D-Bus overloaded, systemd re-executing itself) gets no mutating command:
 * the operation fails and is retried, which is better than LVM killed half-way.
 *
 * The price of outliving us: whoever takes our place may find our last command still at work, and would read what is about
 * to change. So the holder of a host lock runs its commands in scopes that have the lock's name, and its successor first
 * waits for what is in them (predecessors.ts). One that was started and has not entered its scope by then is not run: once
 * inside it looks whether the lock's file still has our words. The successor writes its own before it looks into the
 * scopes, so one of the two always sees the other.
 */
import { randomBytes } from 'node:crypto';
import { log } from './context.ts';
import type { LockRecord } from './host-lock.ts';
import { type HostNamespace, inHostNamespace } from './host-namespace.ts';
import { type Keeper, startKeeper } from './keeper.ts';

export type ScopeEntry =
  /** `procsPath`, in the host's mount namespace: a process enters by writing 0 to it. */
  | { readonly kind: 'cgroup'; readonly procsPath: string }
  | { readonly kind: 'systemd-run'; readonly owner: string }
  | { readonly kind: 'none' };

/**
 * When the scope is stopped (host shutdown), its commands get SIGCONT, which does nothing, in place of SIGTERM: systemd
 * then waits for them to end, at most TimeoutStopSec, and does not SIGKILL them itself.
 */
const SCOPE_PROPERTIES = ['--property=KillSignal=SIGCONT', '--property=SendSIGKILL=no'];
const SYSTEMD_RUN = ['systemd-run', '--scope', '--quiet', '--collect', ...SCOPE_PROPERTIES];

/** Printed, with this exit code, by a command that could not enter the scope: proof that nothing has been run. */
const SCOPE_GONE = 'lvm-iscsi-csi: the scope for mutating commands is gone';
const SCOPE_GONE_EXIT_CODE = 125;
/** Likewise by a command whose lock is another's by now. */
const LOCK_GONE = 'lvm-iscsi-csi: the lock file has the words of another';

/** The OOM killer must not prefer a mutating command, and a pod's oom_score_adj (up to 1000) is inherited. */
const SPARE_FROM_OOM = '{ echo -900 > /proc/self/oom_score_adj; } 2>/dev/null || :';
const ENTER = `{ echo 0 > "$0"; } 2>/dev/null || { echo '${SCOPE_GONE}' >&2; exit ${SCOPE_GONE_EXIT_CODE}; }`;
/** Of the lock's file and the words that it has to have. No process more: `read` is the shell's own. */
const CHECK_LOCK = [
  `{ IFS= read -r words < "$1"; } 2>/dev/null && [ "$words" = "$2" ] || { echo '${LOCK_GONE}' >&2; exit ${SCOPE_GONE_EXIT_CODE}; }`,
  'shift 2',
].join('; ');
const EXEC = 'exec "$@"';

/** What the keeper is called among the scope's processes (/proc/PID/comm). */
export const KEEPER_NAME = 'csi-keeper';

/** systemd tells the scope's control group; finding ourselves listed in it proves that the path is right. */
const KEEP = [
  // To be told from the commands.
  `{ echo ${KEEPER_NAME} > "/proc/$$/comm"; } 2>/dev/null || :`,
  'group=$(systemctl show --property=ControlGroup --value "$0") || exit 3',
  'procs="/sys/fs/cgroup$group/cgroup.procs"',
  'grep -qx "$$" "$procs" || exit 4',
  'echo "$procs"',
  'read _',
].join('; ');

const READY_TIMEOUT_MS = 30_000;
/** After a failure the dearer way is used for this long before the scope is tried again. */
const RETRY_AFTER_MS = 60_000;
/** Without any way the calls that come meanwhile are refused at once; each of them is retried by its client. */
const REFUSE_FOR_MS = 5_000;

/** systemd is there, or may be, and gives no scope: nothing has been run. */
export class NoScopeError extends Error {
  override readonly name = 'NoScopeError';
}

export class MutatingScope {
  readonly #host: HostNamespace;
  readonly #owner: string;
  readonly #start: typeof startKeeper;
  #keeper: Keeper | undefined;
  #entry: Promise<ScopeEntry> | undefined;
  /** Then the scope is tried again; 0: not of itself. */
  #retryAtMs = 0;
  #warned = false;
  #closed = false;

  /** `owner` goes into the unit's name, e.g. the role. */
  constructor(host: HostNamespace, owner: string, start: typeof startKeeper = startKeeper) {
    this.#host = host;
    this.#owner = owner;
    this.#start = start;
  }

  /**
   * How the next mutating command gets out of our control group. Makes the scope when there is none.
   * @throws NoScopeError
   */
  entry(): Promise<ScopeEntry> {
    if (this.#entry === undefined || (this.#retryAtMs !== 0 && Date.now() > this.#retryAtMs)) {
      this.#retryAtMs = 0;
      this.#entry = this.#open();
      // Whoever asked hears of it.
      this.#entry.catch(() => undefined);
    }
    return this.#entry;
  }

  /** A command found the scope gone: the next entry() makes a new one. */
  invalidate(gone: ScopeEntry): void {
    void this.#entry?.then(
      (current) => {
        if (current === gone) this.#entry = undefined;
      },
      () => undefined,
    );
  }

  /** Lets go of the scope; commands in it go on. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#entry?.catch(() => undefined);
    await this.#keeper?.stop();
    this.#keeper = undefined;
  }

  async #open(): Promise<ScopeEntry> {
    if (!(await this.#hasSystemd())) {
      this.#warnOnce('no systemd on this host: a mutating command dies with this process’s control group');
      return { kind: 'none' };
    }
    const unit = newUnit(this.#owner);
    const argv = [...SYSTEMD_RUN, `--unit=${unit}`, '--property=Delegate=yes', 'sh', '-c', KEEP, unit];
    try {
      const keeper = await this.#start(inHostNamespace(this.#host, argv), READY_TIMEOUT_MS);
      const entry: ScopeEntry = { kind: 'cgroup', procsPath: keeper.firstLine };
      this.#keeper = keeper;
      void keeper.exited.then((how) => {
        if (this.#closed) return;
        log().warn({ unit, how }, 'the keeper of the scope for mutating commands has ended; a new one is made');
        this.invalidate(entry);
      });
      log().info({ unit, procs: entry.procsPath }, 'mutating commands run in a scope of their own');
      return entry;
    } catch (error) {
      return await this.#fallBack(error);
    }
  }

  async #fallBack(reason: unknown): Promise<ScopeEntry> {
    try {
      const probe = await this.#start(inHostNamespace(this.#host, [...SYSTEMD_RUN, 'echo', 'ok']), READY_TIMEOUT_MS);
      await probe.stop();
      this.#retryAtMs = Date.now() + RETRY_AFTER_MS;
      log().warn({ err: reason }, 'no lasting scope for mutating commands; each gets one of its own by systemd-run');
      return { kind: 'systemd-run', owner: this.#owner };
    } catch (error) {
      throw this.#refusal('systemd gives no scope', error);
    }
  }

  async #hasSystemd(): Promise<boolean> {
    // As sd_booted(3), asked in the host's mount namespace.
    const script = '[ -d /run/systemd/system ] && command -v systemd-run >/dev/null && echo yes || echo no';
    try {
      const probe = await this.#start(inHostNamespace(this.#host, ['sh', '-c', script]), READY_TIMEOUT_MS);
      await probe.stop();
      return probe.firstLine === 'yes';
    } catch (error) {
      throw this.#refusal('cannot tell whether the host runs systemd', error);
    }
  }

  #refusal(why: string, cause: unknown): NoScopeError {
    this.#retryAtMs = Date.now() + REFUSE_FOR_MS;
    log().error({ err: cause }, `${why}: mutating commands are refused, because nothing would protect them`);
    return new NoScopeError(`${why}: no command that changes the system is run unprotected`, { cause });
  }

  #warnOnce(message: string): void {
    if (this.#warned) return;
    this.#warned = true;
    log().warn(message);
  }
}

function newUnit(owner: string): string {
  return `lvm-iscsi-csi-${owner}-${randomBytes(6).toString('hex')}.scope`;
}

/** All scopes of an owner, as a pattern for file names. */
export function scopePattern(owner: string): string {
  return `lvm-iscsi-csi-${owner}-${'[0-9a-f]'.repeat(12)}.scope`;
}

/**
 * The argument vector, still without nsenter, that runs `argv` out of our control group.
 * @param lock only as long as it is ours
 */
export function throughScope(entry: ScopeEntry, argv: readonly string[], lock?: LockRecord): string[] {
  const check = lock === undefined ? [] : [CHECK_LOCK];
  const checked = lock === undefined ? argv : [lock.path, lock.words, ...argv];
  switch (entry.kind) {
    case 'cgroup':
      return ['sh', '-c', [ENTER, ...check, SPARE_FROM_OOM, EXEC].join('; '), entry.procsPath, ...checked];
    case 'systemd-run': {
      const script = [...check, SPARE_FROM_OOM, EXEC].join('; ');
      return [...SYSTEMD_RUN, `--unit=${newUnit(entry.owner)}`, 'sh', '-c', script, 'sh', ...checked];
    }
    case 'none':
      return lock === undefined ? [...argv] : ['sh', '-c', [...check, EXEC].join('; '), 'sh', ...checked];
  }
}

/** True only when the command was never started because the scope was gone: it may be run again. */
export function isScopeGone(entry: ScopeEntry, exitCode: number | undefined, stderr: string): boolean {
  return entry.kind === 'cgroup' && exitCode === SCOPE_GONE_EXIT_CODE && stderr.startsWith(SCOPE_GONE);
}

/** True only when the command was never started because the lock is another's. */
export function isLockGone(exitCode: number | undefined, stderr: string): boolean {
  return exitCode === SCOPE_GONE_EXIT_CODE && stderr.startsWith(LOCK_GONE);
}
