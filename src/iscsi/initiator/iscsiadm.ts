/** Runs iscsiadm. Its arguments are seen by every local user: no secret is ever among them. */
import { CommandError, type CommandResult, type Commands } from '../../system/commands.ts';
import { explainMissingProgram, IscsiError } from './errors.ts';

/** open-iscsi's exit codes, include/iscsi_err.h. */
export const EXIT = {
  ok: 0,
  sessionNotFound: 2,
  transport: 4,
  login: 5,
  database: 6,
  transportTimeout: 8,
  internal: 9,
  pduTimeout: 11,
  transportModule: 12,
  sessionExists: 15,
  iscsidTalk: 18,
  fatalLogin: 19,
  iscsidConnect: 20,
  nothingFound: 21,
  authorization: 24,
  notConnected: 32,
  requestTimeout: 33,
} as const;

export interface Exited {
  readonly kind: 'exited';
  readonly exitCode: number;
  readonly result: CommandResult | CommandError;
}

export interface TimedOut {
  readonly kind: 'timed-out';
  readonly error: CommandError;
}

export type IscsiadmOutcome = Exited | TimedOut;

export class Iscsiadm {
  readonly #commands: Commands;

  constructor(commands: Commands) {
    this.#commands = commands;
  }

  /**
   * Every exit code is an answer here. Bounded (`read`) also where it changes something: iscsiadm only hands a request to
   * iscsid, so killing it harms nothing, but iscsid goes on; the caller looks at sysfs for what has become of it.
   * @throws IscsiError missing; CommandError when it was never started or ended by a signal of somebody else's
   */
  async run(args: readonly string[], timeoutMs: number): Promise<IscsiadmOutcome> {
    try {
      const result = await this.#commands.run({ file: 'iscsiadm', args, kind: 'read', timeoutMs });
      return { kind: 'exited', exitCode: result.exitCode, result };
    } catch (error) {
      if (error instanceof CommandError && error.timedOut) return { kind: 'timed-out', error };
      if (error instanceof CommandError && error.exitCode !== undefined) {
        return { kind: 'exited', exitCode: error.exitCode, result: error };
      }
      throw explainMissingProgram(error, 'iscsiadm');
    }
  }
}

export function timedOut(outcome: TimedOut, doing: string): IscsiError {
  const message = `${doing}: iscsiadm did not end in time; to do: look at "journalctl -u iscsid"`;
  return new IscsiError('timeout', message, { cause: outcome.error });
}

/** What an exit code means whatever was being done; undefined when only the caller can tell. */
export function exitFailure(outcome: Exited, doing: string): IscsiError | undefined {
  const cause = outcome.result;
  switch (outcome.exitCode) {
    case EXIT.iscsidTalk:
    case EXIT.iscsidConnect:
      return new IscsiError(
        'iscsid-down',
        `${doing}: iscsid does not answer; to do: systemctl enable --now iscsid.socket (or iscsid), then "journalctl -u iscsid"`,
        { cause },
      );
    case EXIT.transportModule:
      return new IscsiError(
        'missing',
        `${doing}: the kernel module iscsi_tcp is not loaded and could not be; to do: install the kernel's extra modules, "modprobe iscsi_tcp"`,
        { cause },
      );
    default:
      return undefined;
  }
}
