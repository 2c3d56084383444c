/** The lab could not do what was asked; the message says what is missing and what to do about it. */
export class LabError extends Error {
  override readonly name: string = 'LabError';
}

/** A command in a machine ended with another exit code than 0, or did not end in time. */
export class CommandError extends LabError {
  override readonly name = 'CommandError';
  readonly machine: string;
  readonly command: string;
  /** undefined when the command was cut off: a timeout, or the connection ended under it. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;

  constructor(fields: {
    machine: string;
    command: string;
    exitCode: number | undefined;
    stdout: string;
    stderr: string;
    durationMs: number;
    reason?: string;
    cause?: unknown;
  }) {
    const how = fields.reason ?? `exit code ${fields.exitCode}`;
    super(
      `${fields.machine}: ${how} after ${Math.round(fields.durationMs)} ms: ${fields.command}\n${fields.stderr || fields.stdout}`,
      { cause: fields.cause },
    );
    this.machine = fields.machine;
    this.command = fields.command;
    this.exitCode = fields.exitCode;
    this.stdout = fields.stdout;
    this.stderr = fields.stderr;
    this.durationMs = fields.durationMs;
  }
}
