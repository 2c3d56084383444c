/**
 * A lock in the host's namespaces that dies with this process: flock(1), held by a keeper (keeper.ts). flock locks the
 * inode, so it works between pods and the host, as long as all of them name the same file.
 *
 * When we are killed the lock is free at once, also while a mutating command of ours is still running in its scope. The
 * next holder has to wait for that (predecessors.ts), and finds out by the words in the lock's file (mutating-scope.ts).
 */
import { CommandError, type Commands } from './commands.ts';
import { log } from './context.ts';
import { type HostNamespace, inHostNamespace } from './host-namespace.ts';
import { type Keeper, startKeeper } from './keeper.ts';
import { step } from './step.ts';

/** Who holds the lock, as written into the file by the holder. */
export interface LockHolder {
  /** In the holder's own PID namespace. */
  readonly pid: number;
  /** Host name, which in a pod without hostNetwork is the pod's name. */
  readonly hostName: string;
  /** What the instance calls itself, e.g. the pod's name. */
  readonly instance: string;
  /** ISO 8601, UTC. */
  readonly since: string;
}

/** By which a command finds out whether the lock is still that of the process that started it. */
export interface LockRecord {
  /** On the host. */
  readonly path: string;
  /** The first line of that file, as long as the lock is ours. */
  readonly words: string;
}

export type HostLock =
  | {
      readonly held: true;
      readonly record: LockRecord;
      /** Settles (never rejects) when the lock is lost without release(), with how the keeper ended. */
      readonly lost: Promise<string>;
      release(): Promise<void>;
    }
  | {
      readonly held: false;
      /** undefined: the holder has not written (legible) words about itself. */
      readonly holder: LockHolder | undefined;
    };

const TAKEN_EXIT_CODE = 75;
const READY_TIMEOUT_MS = 30_000;

/** Ignored signals stay ignored across exec: a SIGTERM to the whole unit must not end the lock before the drain is over. */
const LOCK = [
  "trap '' TERM INT HUP",
  'mkdir -p -- "$(dirname -- "$0")" || exit 3',
  `exec flock --nonblock --exclusive --conflict-exit-code ${TAKEN_EXIT_CODE} "$0" sh -c "$2" "$0" "$1"`,
].join('; ');
const HOLD = 'printf "%s\\n" "$1" > "$0" || exit 4; echo locked; read _';

/**
 * Tries once, without waiting.
 * @param path of the lock file on the host; its folder is made when absent, the file is never removed.
 * @throws CommandError when neither "held" nor "held by another" could be established (flock missing, no such place…).
 */
export async function acquireHostLock(
  host: HostNamespace,
  commands: Commands,
  path: string,
  holder: LockHolder,
): Promise<HostLock> {
  const words = JSON.stringify(holder);
  const argv = inHostNamespace(host, ['sh', '-c', LOCK, path, words, HOLD]);
  let keeper: Keeper;
  try {
    keeper = await step('host-lock-acquire', () => startKeeper(argv, READY_TIMEOUT_MS));
  } catch (error) {
    if (!(error instanceof CommandError) || error.exitCode !== TAKEN_EXIT_CODE) throw error;
    return { held: false, holder: await readHolder(commands, path) };
  }
  let released = false;
  const { exited } = keeper;
  const lost = new Promise<string>((resolve) => {
    void exited.then((how) => {
      if (!released) resolve(how);
    });
  });
  return {
    held: true,
    record: { path, words },
    lost,
    async release() {
      released = true;
      await keeper.stop();
    },
  };
}

async function readHolder(commands: Commands, path: string): Promise<LockHolder | undefined> {
  const { stdout } = await commands.run({ file: 'cat', args: ['--', path], kind: 'read' });
  try {
    const value: unknown = JSON.parse(stdout);
    return isHolder(value) ? value : undefined;
  } catch (error) {
    // Caught between taking the lock and writing the words.
    log().debug({ err: error, path }, 'the lock file does not name its holder');
    return undefined;
  }
}

function isHolder(value: unknown): value is LockHolder {
  if (typeof value !== 'object' || value === null) return false;
  const { pid, hostName, instance, since } = value as Record<string, unknown>;
  return [hostName, instance, since].every((text) => typeof text === 'string') && typeof pid === 'number';
}

/** For messages: `instance "x" on host "y" (PID 12, since 2026-01-01T00:00:00.000Z)`. */
export function describeHolder(holder: LockHolder | undefined): string {
  if (holder === undefined) return 'an instance that has not named itself';
  return `instance "${holder.instance}" on host "${holder.hostName}" (PID ${holder.pid}, since ${holder.since})`;
}
