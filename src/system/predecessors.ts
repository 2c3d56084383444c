/**
 * Commands that a former holder of a host lock has left behind: its mutating commands outlive it (mutating-scope.ts), and
 * until they have ended nothing that its successor reads is certain. An lvextend that lands after the size was read leaves
 * bytes that nobody zeroes; a tag that is removed late takes away an attachment that was built again meanwhile.
 *
 * Waited for is what the scopes of that owner hold when the lock has been taken. What comes later cannot be a predecessor's.
 */
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Commands } from './commands.ts';
import { log } from './context.ts';
import { KEEPER_NAME, scopePattern } from './mutating-scope.ts';

export interface LeftBehind {
  readonly pid: number;
  /** /proc/PID/comm: the program, at most 15 characters. */
  readonly program: string;
  readonly scope: string;
}

const LOOK_EVERY_MS = 1_000;
/** cgroup v1 and v2 alike, in whatever slice. A group that is gone meanwhile has nothing in it. */
const LOOK = [
  'find "$1" -type d -name "$0" 2>/dev/null | while IFS= read -r group; do',
  '  while IFS= read -r pid; do',
  '    { IFS= read -r name < "/proc/$pid/comm"; } 2>/dev/null || continue',
  '    printf "%s %s %s\\n" "$pid" "$group" "$name"',
  '  done 2>/dev/null < "$group/cgroup.procs"',
  'done',
  'echo complete',
].join('\n');

/** @param cgroupRoot another one than the host's in tests. @throws CommandError, Error when it could not be found out */
export async function leftBehind(
  commands: Commands,
  owner: string,
  cgroupRoot = '/sys/fs/cgroup',
): Promise<LeftBehind[]> {
  const args = ['-c', LOOK, scopePattern(owner), cgroupRoot];
  const { stdout } = await commands.run({ file: 'sh', args, program: 'find', kind: 'read' });
  const lines = stdout.split('\n').slice(0, -1);
  if (lines.pop() !== 'complete') throw new Error('the scopes of mutating commands could not be listed');
  return lines
    .map((line) => /^(\d+) (\S+) (.*)$/.exec(line) ?? [])
    .map(([, pid, group = '', program = '']) => ({ pid: Number(pid), scope: basename(group), program }))
    .filter(({ program }) => program !== KEEPER_NAME);
}

export interface AwaitOptions {
  readonly commands: Commands;
  readonly owner: string;
  /** Told about once a second, with what is waited for. */
  readonly onWaiting: (reason: string) => void;
  readonly signal: AbortSignal;
  readonly cgroupRoot?: string;
}

/** Resolves when they have ended, however long that takes: none of them may be killed. @throws the signal's reason */
export async function awaitPredecessors({
  commands,
  owner,
  onWaiting,
  signal,
  cgroupRoot,
}: AwaitOptions): Promise<void> {
  let first: Set<string> | undefined;
  for (;;) {
    signal.throwIfAborted();
    try {
      const running = await leftBehind(commands, owner, cgroupRoot);
      first ??= new Set(running.map(keyOf));
      const waitedFor = running.filter((process) => first?.has(keyOf(process)));
      if (waitedFor.length === 0) return;
      const words = waitedFor.map(({ pid, program }) => `${program} (PID ${pid})`).join(', ');
      log().warn({ processes: waitedFor }, 'commands of a former controller are still running; waiting for their end');
      onWaiting(`commands of a former controller are still running on the storage host: ${words}`);
    } catch (error) {
      log().warn({ err: error }, 'it cannot be told whether commands of a former controller are running; trying again');
      onWaiting('it cannot be told whether commands of a former controller are still running; see the controller log');
    }
    await delay(LOOK_EVERY_MS, undefined, { signal });
  }
}

function keyOf({ pid, scope }: LeftBehind): string {
  return `${scope} ${pid}`;
}
