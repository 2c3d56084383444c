/** Runs programs as they are, for tests of adapters on regular files and loop devices; `prefix` puts them in a namespace. */
import { spawnSync } from 'node:child_process';
import { execa } from 'execa';
import {
  CommandError,
  type CommandRequest,
  type CommandResult,
  type Commands,
} from '../../../../src/system/commands.ts';

export class DirectCommands implements Commands {
  readonly #prefix: readonly string[];
  readonly requests: CommandRequest[] = [];
  /** Of the next run of that program: thrown, or answered, in place of running it. */
  readonly overrides = new Map<string, (request: CommandRequest) => Promise<CommandResult | undefined>>();

  constructor(prefix: readonly string[] = []) {
    this.#prefix = prefix;
  }

  async run(request: CommandRequest): Promise<CommandResult> {
    this.requests.push(request);
    const overridden = await this.overrides.get(request.file)?.(request);
    if (overridden !== undefined) return overridden;
    const [file = '', ...args] = [...this.#prefix, request.file, ...request.args];
    const command = [request.file, ...request.args].join(' ');
    const result = await execa(file, args, {
      reject: false,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
      ...(request.kind === 'read' ? { timeout: request.timeoutMs ?? 60_000 } : {}),
    });
    const { exitCode, stdout, stderr } = result;
    if (exitCode !== undefined && (request.acceptedExitCodes ?? [0]).includes(exitCode)) {
      return { command, exitCode, stdout, stderr, durationMs: 0 };
    }
    throw commandError(command, { exitCode, stdout, stderr, missing: result.code === 'ENOENT' || exitCode === 127 });
  }

  /** Programs that ran, without arguments. */
  get programs(): string[] {
    return this.requests.map(({ file }) => file);
  }
}

export function commandError(
  command: string,
  fields: { exitCode?: number | undefined; stdout?: string; stderr?: string; missing?: boolean; timedOut?: boolean },
): CommandError {
  return new CommandError({ command, shortMessage: `${command} failed`, durationMs: 1, ...fields });
}

export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${name}`], { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } }).status === 0;
}
