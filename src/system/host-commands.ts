/**
 * Runs programs on the host, with execa: `read`s with a deadline, `mutate`s in a scope of their own and never killed
 * (see mutating-scope.ts for where they live, output-files.ts for why their output goes to files).
 */
import { basename } from 'node:path';
import { performance } from 'node:perf_hooks';
import { execa } from 'execa';
import type { CommandObserver, CommandOutcome } from './command-observer.ts';
import { CommandError, type CommandRequest, type CommandResult, type Commands } from './commands.ts';
import { log } from './context.ts';
import type { LockRecord } from './host-lock.ts';
import { HOST_ENVIRONMENT, type HostNamespace, inHostNamespace, quoteCommand } from './host-namespace.ts';
import {
  isLockGone,
  isScopeGone,
  MutatingScope,
  NoScopeError,
  type ScopeEntry,
  throughScope,
} from './mutating-scope.ts';
import { OutputFiles, readCaptured } from './output-files.ts';

export interface HostCommandsOptions {
  readonly host: HostNamespace;
  /** Goes into the scope's unit name: the role. */
  readonly owner: string;
  /** For the output of mutating commands, as this process sees it; on a tmpfs. */
  readonly outputFolder: string;
  readonly observer?: CommandObserver;
  /** Of stdout; 32 MiB when absent. More is an error. */
  readonly outputLimitBytes?: number;
  /** Made from `host` and `owner` when absent. */
  readonly scope?: MutatingScope;
  /** Without this lock no mutating command is begun. */
  readonly lock?: LockRecord;
}

const DEFAULT_TIMEOUT_MS = 60_000;
const DEFAULT_OUTPUT_LIMIT_BYTES = 32 * 1024 * 1024;
/** After SIGKILL a process in D state goes on; the caller does not wait for that. */
const KILL_PATIENCE_MS = 1_000;
const STILL_RUNNING_AFTER_MS = 60_000;
const LOGGED_STDERR_CHARACTERS = 4_000;

/** How a process ended, before anyone has judged it. */
interface Ending {
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  /** The first program of the vector does not exist. */
  readonly notStarted: unknown;
  readonly timedOut: boolean;
  readonly tooMuchOutput: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

export class HostCommands implements Commands {
  readonly #options: HostCommandsOptions;
  readonly #scope: MutatingScope;
  readonly #outputLimitBytes: number;
  readonly #mutating = new Set<{ readonly command: string }>();
  readonly #holders: HostCommands[] = [];

  constructor(options: HostCommandsOptions) {
    this.#options = options;
    this.#scope = options.scope ?? new MutatingScope(options.host, options.owner);
    this.#outputLimitBytes = options.outputLimitBytes ?? DEFAULT_OUTPUT_LIMIT_BYTES;
  }

  /** Makes the scope for mutating commands now, so that the first of them need not wait for it. */
  async prepare(): Promise<void> {
    // A failure is in the log, and that of whoever needs it.
    await this.#scope.entry().catch(() => undefined);
  }

  /** For the holder of a host lock: in a scope of that owner, and only as long as the lock is held. Closed with this one. */
  holding(lock: LockRecord, owner: string): HostCommands {
    const { scope: _scope, ...options } = this.#options;
    const commands = new HostCommands({ ...options, owner, lock });
    this.#holders.push(commands);
    return commands;
  }

  /** Command lines of the mutating commands in progress. */
  get mutating(): string[] {
    return [...[...this.#mutating].map(({ command }) => command), ...this.#holders.flatMap((other) => other.mutating)];
  }

  /** Lets go of the scope. Commands in progress go on, also after our end. */
  async close(): Promise<void> {
    await Promise.all([this.#scope.close(), ...this.#holders.map((other) => other.close())]);
  }

  async run(request: CommandRequest): Promise<CommandResult> {
    const command = quoteCommand([request.file, ...request.args]);
    const startedAt = performance.now();
    let ending: Ending;
    if (request.kind === 'read') {
      ending = await this.#read(request);
    } else {
      const stopWatching = this.#watch(command);
      try {
        ending = await this.#mutate(request);
      } finally {
        stopWatching();
      }
    }
    const durationMs = Math.round((performance.now() - startedAt) * 10) / 10;
    const error = judge(request, command, ending, durationMs, this.#outputLimitBytes);
    this.#report(request, command, ending, durationMs, error);
    if (error !== undefined) throw error;
    return { command, exitCode: ending.exitCode ?? 0, stdout: ending.stdout, stderr: ending.stderr, durationMs };
  }

  async #read(request: CommandRequest): Promise<Ending> {
    const argv = inHostNamespace(this.#options.host, [request.file, ...request.args]);
    const [file = '', ...args] = argv;
    const subprocess = execa(file, args, {
      ...baseOptions(request),
      ...(request.input === undefined ? { stdin: 'ignore' } : { input: request.input }),
      encoding: 'buffer',
      maxBuffer: this.#outputLimitBytes,
      // nsenter waits for a child of its own: both have to go.
      killDescendants: true,
    });
    let timedOut = false;
    const timers: NodeJS.Timeout[] = [];
    const abandoned = new Promise<undefined>((resolve) => {
      const onDeadline = (): void => {
        timedOut = true;
        subprocess.kill('SIGKILL');
        timers.push(setTimeout(() => resolve(undefined), KILL_PATIENCE_MS));
      };
      timers.push(setTimeout(onDeadline, request.timeoutMs ?? DEFAULT_TIMEOUT_MS));
    });
    const result = await Promise.race([subprocess, abandoned]);
    for (const timer of timers) clearTimeout(timer);
    if (result === undefined) {
      subprocess.nodeChildProcess.unref();
      for (const stream of [subprocess.stdin, subprocess.stdout, subprocess.stderr]) stream?.destroy();
    }
    return {
      exitCode: result?.exitCode,
      signal: result?.signal,
      notStarted: result === undefined ? undefined : startFailure(result),
      timedOut,
      tooMuchOutput: result?.isMaxBuffer ?? false,
      stdout: decode(result?.stdout),
      stderr: decode(result?.stderr),
    };
  }

  async #mutate(request: CommandRequest): Promise<Ending> {
    try {
      return await this.#mutateInScope(request);
    } catch (error) {
      if (!(error instanceof NoScopeError)) throw error;
      const nothing = { exitCode: undefined, signal: undefined, timedOut: false, tooMuchOutput: false };
      return { ...nothing, notStarted: error, stdout: '', stderr: '' };
    }
  }

  async #mutateInScope(request: CommandRequest): Promise<Ending> {
    const entry = await this.#scope.entry();
    const ending = await this.#mutateIn(entry, request);
    if (!isScopeGone(entry, ending.exitCode, ending.stderr)) return ending;
    log().warn({ program: request.file }, 'the scope for mutating commands is gone; a new one is made');
    this.#scope.invalidate(entry);
    const second = await this.#scope.entry();
    // Twice gone: nothing has been run yet, so a scope for this command alone is still safe.
    const secondEnding = await this.#mutateIn(second, request);
    if (!isScopeGone(second, secondEnding.exitCode, secondEnding.stderr)) return secondEnding;
    return await this.#mutateIn({ kind: 'systemd-run', owner: this.#options.owner }, request);
  }

  async #mutateIn(entry: ScopeEntry, request: CommandRequest): Promise<Ending> {
    const { host, lock } = this.#options;
    const argv = inHostNamespace(host, throughScope(entry, [request.file, ...request.args], lock));
    const [file = '', ...args] = argv;
    const files = await OutputFiles.create(this.#options.outputFolder, request.input);
    try {
      const result = await execa(file, args, {
        ...baseOptions(request),
        // execa passes any descriptor on; its types name only the small ones.
        stdin: (files.stdin?.fd as 3 | undefined) ?? 'ignore',
        stdout: files.stdout.fd as 3,
        stderr: files.stderr.fd as 3,
        buffer: false,
        detached: true,
        cleanup: false,
      });
      const stdout = await readCaptured(files.stdout, this.#outputLimitBytes);
      const stderr = await readCaptured(files.stderr, this.#outputLimitBytes);
      return {
        exitCode: result.exitCode,
        signal: result.signal,
        notStarted: startFailure(result),
        timedOut: false,
        tooMuchOutput: stdout.truncated,
        stdout: stdout.text,
        stderr: stderr.text,
      };
    } finally {
      await files.close();
    }
  }

  /** A mutating command has no deadline: at least say that it takes long. */
  #watch(command: string): () => void {
    const startedAt = performance.now();
    const entry = { command };
    this.#mutating.add(entry);
    const timer = setInterval(() => {
      const seconds = Math.round((performance.now() - startedAt) / 1000);
      log().warn({ command, seconds }, 'a mutating command is still running; it is never killed');
    }, STILL_RUNNING_AFTER_MS);
    timer.unref();
    return () => {
      clearInterval(timer);
      this.#mutating.delete(entry);
    };
  }

  #report(
    request: CommandRequest,
    command: string,
    ending: Ending,
    durationMs: number,
    error: CommandError | undefined,
  ): void {
    this.#options.observer?.observe(programOf(request), request.kind, durationMs, outcome(ending, error));
    const stderr = ending.stderr.trim().slice(0, LOGGED_STDERR_CHARACTERS);
    const fields = { command, kind: request.kind, exitCode: ending.exitCode, durationMs };
    log().debug(
      { ...fields, ...(stderr === '' ? {} : { stderr }) },
      error === undefined ? 'command' : `command failed: ${error.shortMessage}`,
    );
  }
}

function programOf(request: CommandRequest): string {
  return request.program ?? basename(request.file);
}

function baseOptions(request: CommandRequest) {
  return {
    reject: false,
    extendEnv: false,
    env: { ...HOST_ENVIRONMENT, ...request.env },
    cwd: '/',
    stripFinalNewline: false,
    forceKillAfterDelay: false,
  } as const;
}

/** The reason why no process came to be (ENOENT, EACCES, EAGAIN…), or undefined when one did. */
function startFailure(result: { exitCode?: number; signal?: string; cause?: unknown; failed: boolean }): unknown {
  if (!result.failed || result.exitCode !== undefined || result.signal !== undefined) return undefined;
  return result.cause ?? new Error('the process could not be started');
}

function decode(bytes: unknown): string {
  return bytes instanceof Uint8Array ? Buffer.from(bytes).toString('utf8') : '';
}

/** The exit code is judged before anyone looks at the output: a failed `lvs` prints a valid, empty report. */
function judge(
  request: CommandRequest,
  command: string,
  ending: Ending,
  durationMs: number,
  outputLimitBytes: number,
): CommandError | undefined {
  const program = programOf(request);
  const fail = (shortMessage: string, more?: { missing?: boolean }): CommandError =>
    new CommandError({ command, shortMessage, durationMs, cause: ending.notStarted, ...ending, ...more });

  if (isMissing(request.file, ending))
    return fail(`program "${basename(request.file)}" not found on this host`, { missing: true });
  if (ending.notStarted !== undefined) return fail(`${program} could not be started: ${errorText(ending.notStarted)}`);
  if (isLockGone(ending.exitCode, ending.stderr))
    return fail(`${program} was not run: the lock of this process is another's, or its file was changed`);
  if (ending.timedOut) return fail(`${program} did not end within ${request.timeoutMs ?? DEFAULT_TIMEOUT_MS} ms`);
  // A read that prints too much is ended by us: how it ended then says nothing. A mutating command ended by itself.
  const endedByItself = request.kind === 'mutate' && ending.exitCode !== 0;
  if (ending.tooMuchOutput && !endedByItself) return fail(`${program} printed more than ${outputLimitBytes} bytes`);
  if (ending.signal !== undefined) return fail(`${program} was ended by ${ending.signal}`);
  if (!(request.acceptedExitCodes ?? [0]).includes(ending.exitCode ?? -1)) {
    return fail(`${program} failed with exit code ${ending.exitCode}`);
  }
  return undefined;
}

/**
 * Directly: ENOENT from the start. Through sh or nsenter: exit code 127 together with their own words about this
 * program ("sh: 1: exec: lvs: not found", "nsenter: failed to execute lvs: No such file or directory").
 */
function isMissing(file: string, ending: Ending): boolean {
  if (ending.notStarted !== undefined) {
    const { code, syscall } = ending.notStarted as { code?: unknown; syscall?: unknown };
    return code === 'ENOENT' && typeof syscall === 'string' && syscall.startsWith('spawn');
  }
  if (ending.exitCode !== 127) return false;
  return ending.stderr
    .split('\n')
    .some((line) => line.includes(file) && /(: not found|No such file or directory)$/.test(line.trimEnd()));
}

function outcome(ending: Ending, error: CommandError | undefined): CommandOutcome {
  if (error === undefined) return 'ok';
  if (error.missing) return 'missing';
  if (error.timedOut) return 'timeout';
  if (ending.signal !== undefined) return 'signal';
  return ending.exitCode === undefined || ending.tooMuchOutput ? 'failed' : 'exit';
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
