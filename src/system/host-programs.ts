/** Which of the programs that a role needs are not on the host: told by Probe, before the first call that needs one fails. */
import { CommandError, type Commands } from './commands.ts';

export interface HostProgram {
  readonly name: string;
  /** That brings it, as the reader would install it. */
  readonly package: string;
}

const TIMEOUT_MS = 8_000;
/** One shell for all of them, which starts nothing itself: Probe asks every few seconds. */
const LOOK = 'for name; do command -v "$name" >/dev/null || echo "$name"; done; echo complete';

/** @param where e.g. "on this node" @returns [] or, for each package, what is missing and what to do */
export async function programProblems(
  commands: Commands,
  programs: readonly HostProgram[],
  where: string,
): Promise<string[]> {
  let lines: string[];
  try {
    const args = ['-c', LOOK, 'sh', ...programs.map(({ name }) => name)];
    const { stdout } = await commands.run({ file: 'sh', args, kind: 'read', timeoutMs: TIMEOUT_MS });
    lines = stdout.trim().split('\n');
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return [`it cannot be told which programs are installed ${where}: ${error.shortMessage}`];
  }
  if (lines.at(-1) !== 'complete') return [`it cannot be told which programs are installed ${where}: no answer of sh`];
  const missing = Map.groupBy(
    programs.filter(({ name }) => lines.includes(name)),
    (program) => program.package,
  );
  return [...missing].map(([packageName, group]) => {
    const names = group.map(({ name }) => name).join(' and ');
    return `${names} ${group.length === 1 ? 'is' : 'are'} not installed ${where}; to do: install the package ${packageName}`;
  });
}
