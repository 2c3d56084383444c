/**
 * Contract of the process runner: the only way in which any part of the driver starts a program.
 * The implementation (`host-commands.ts`) runs it directly or in the host's namespaces, by configuration.
 */

/** One program to run. Nothing here goes through a shell. */
export interface CommandRequest {
  readonly file: string;
  readonly args: readonly string[];
  /**
   * What does the work when `file` only starts it: lvcreate of `lvm lvcreate …`, blkdiscard of `flock … blkdiscard …`.
   * Stands in messages and in the metric's label, so it is a name out of the source, never made of data.
   */
  readonly program?: string;
  /**
   * `read` may be killed at its deadline. `mutate` changes the system (LVM, device-mapper, mkfs, mount): it runs in a
   * scope of the host's own, detached, and is never killed: not by a timeout, a cancelled call or the pod's death.
   */
  readonly kind: 'read' | 'mutate';
  /** Deadline of a `read`, in milliseconds; 60,000 when absent. Ignored for `mutate`. */
  readonly timeoutMs?: number;
  readonly input?: string;
  /** Added to the minimal environment (PATH, LC_ALL=C). */
  readonly env?: Readonly<Record<string, string>>;
  /** Exit codes that are an answer and not an error; [0] when absent. */
  readonly acceptedExitCodes?: readonly number[];
}

export interface CommandResult {
  /** The command line as shown in the log, quoted for a shell. */
  readonly command: string;
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** A program that could not be started, was killed, timed out or ended with an exit code that was not accepted. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly command: string;
  /** `undefined` when the program was never started or was ended by a signal. */
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly timedOut: boolean;
  /** The program does not exist on that host (ENOENT): the message names it, for "install package …" hints. */
  readonly missing: boolean;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
  /** One line without output, safe for the client; `message` ends with stderr, for the log. */
  readonly shortMessage: string;

  constructor(fields: {
    command: string;
    shortMessage: string;
    exitCode?: number | undefined;
    signal?: string | undefined;
    timedOut?: boolean;
    missing?: boolean;
    stdout?: string;
    stderr?: string;
    durationMs: number;
    cause?: unknown;
  }) {
    const stderr = fields.stderr?.trim() ?? '';
    super(stderr === '' ? fields.shortMessage : `${fields.shortMessage}\n${stderr}`, { cause: fields.cause });
    this.command = fields.command;
    this.shortMessage = fields.shortMessage;
    this.exitCode = fields.exitCode;
    this.signal = fields.signal;
    this.timedOut = fields.timedOut ?? false;
    this.missing = fields.missing ?? false;
    this.stdout = fields.stdout ?? '';
    this.stderr = fields.stderr ?? '';
    this.durationMs = fields.durationMs;
  }
}

export interface Commands {
  /**
   * Runs a program to its end.
   * @throws CommandError
   */
  run(request: CommandRequest): Promise<CommandResult>;
}
