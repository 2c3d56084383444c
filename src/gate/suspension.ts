/**
 * Suspending gates, and the guard that resumes them whatever happens to this process.
 *
 * The guard is a shell on the host, outside our control group, armed before the first suspend. It and we agree through
 * one flag file: the guard makes it (armed), we remove it (disarmed), or the guard renames it (fired); removing and
 * renaming are atomic, so exactly one of us wins, and a guard that we disarmed can never disturb a later suspension.
 *
 * A suspend waits for in-flight I/O and may therefore end after the guard has fired, so the shell that suspends looks at
 * the flag afterwards and resumes by itself when it is gone: no gate stays suspended without a guard.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import { Deadline, type Keep } from '../system/deadline.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import type { Dmsetup } from './dmsetup.ts';
import { GateError, GateTimeoutError } from './errors.ts';
import type { GateName } from './naming.ts';

export const GUARD_SECONDS = 8;
const DEFAULT_RUN_DIR = '/run/lvm-iscsi-csi';
const ARM_TIMEOUT_MS = 20_000;
/** Draining may take this long of the guard's time; what is left is for the action. */
const SUSPEND_TIMEOUT_MS = 5_000;
const POLL_MS = 20;

/** Arguments: flag, gates. It looks at the flag once a second, so that a disarmed guard is soon gone. */
export const GUARD_SCRIPT = `flag=$1; shift
: > "$flag" || exit 1
i=0
while [ "$i" -lt ${GUARD_SECONDS} ]; do sleep 1; [ -e "$flag" ] || exit 0; i=$((i + 1)); done
mv "$flag" "$flag.fired" 2>/dev/null || exit 0
for gate; do dmsetup resume --noudevsync "$gate"; done
rm -f "$flag.fired"`;

/** Arguments: flag, gates. Ends with 0 only when every gate is suspended and the guard is still armed. */
export const SUSPEND_SCRIPT = `flag=$1; shift
if [ -e "$flag" ] && dmsetup suspend --noudevsync "$@" && [ -e "$flag" ]; then exit 0; fi
for gate; do dmsetup resume --noudevsync "$gate"; done
exit 1`;

/** The guard's shell; `ended` never rejects. */
interface Guard {
  readonly flag: string;
  readonly ended: Promise<unknown>;
}

export class Suspension {
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #dmsetup: Dmsetup;
  readonly #runDir: string;
  readonly #hostRoot: string;

  constructor(options: { commands: Commands; files: Files; runDir?: string; hostRoot?: string }, dmsetup: Dmsetup) {
    this.#commands = options.commands;
    this.#files = options.files;
    this.#dmsetup = dmsetup;
    this.#runDir = options.runDir ?? DEFAULT_RUN_DIR;
    this.#hostRoot = options.hostRoot ?? '';
  }

  /** The caller holds the locks of these gates; `keep` holds them on while something may still resume the gates. */
  async run<T>(gates: readonly GateName[], action: () => Promise<T>, keep: Keep): Promise<T> {
    const names = gates.map((gate) => gate.name);
    const deviceNumbers = await this.#check(gates);
    const guard = await this.#arm(names);
    let result: { readonly value: T } | { readonly error: unknown };
    let heldThroughout = false;
    try {
      await this.#suspend(guard, names, keep);
      const value = await action();
      heldThroughout = await this.#allSuspended(deviceNumbers);
      result = { value };
    } catch (error) {
      result = { error };
    }
    const disarmed = await this.#release(guard, names);
    if (!disarmed) keep(guard.ended);
    if ('error' in result) throw result.error;
    if (!heldThroughout || !disarmed) {
      throw new GateError(
        'cut-short',
        `${names.join(', ')} did not stay suspended until the work under them had ended (limit ${GUARD_SECONDS} s): ` +
          'what was taken meanwhile is not consistent',
      );
    }
    return result.value;
  }

  async #check(gates: readonly GateName[]): Promise<string[]> {
    const devices = new Map((await this.#dmsetup.devices()).map((device) => [device.name, device]));
    return gates.map((gate) => {
      const device = devices.get(gate.name);
      if (device === undefined) throw new GateError('absent', `${gate.path} is not there and cannot be suspended`);
      if (device.uuid !== gate.uuid) throw new GateError('foreign', `${gate.path} is not ours and is left alone`);
      // The resume at the end would make it live.
      if (device.inactiveTable) throw new GateError('failed', `${gate.path} has a table waiting: ensure it first`);
      return device.deviceNumber;
    });
  }

  /** Armed when it returns: the guard itself has made the flag. */
  async #arm(names: readonly string[]): Promise<Guard> {
    await this.#files.mkdir(this.#seen(this.#runDir), { recursive: true });
    const flag = `${this.#runDir}/gate-guard-${randomUUID()}`;
    let failure: unknown;
    let hasEnded = false;
    const ended = step('gate-guard', () => this.#script(GUARD_SCRIPT, 'gate-guard', flag, names))
      .catch((error: unknown) => {
        failure = error;
      })
      .finally(() => {
        hasEnded = true;
      });
    const deadline = new Deadline(ARM_TIMEOUT_MS);
    while ((await this.#files.stat(this.#seen(flag))) === undefined) {
      if (hasEnded || deadline.remainingMs === 0) {
        throw new GateError('failed', 'the guard that resumes gates could not be armed; nothing was suspended', {
          cause: failure,
        });
      }
      await delay(POLL_MS);
    }
    return { flag, ended };
  }

  async #suspend(guard: Guard, names: readonly string[], keep: Keep): Promise<void> {
    const suspending = step('gate-suspend', () => this.#script(SUSPEND_SCRIPT, 'gate-suspend', guard.flag, names));
    // Until it has ended it may suspend, and resume, these gates.
    keep(suspending);
    await new Deadline(SUSPEND_TIMEOUT_MS).wait(
      suspending,
      () => new GateTimeoutError(`${names.join(', ')}: I/O in flight has not ended within ${SUSPEND_TIMEOUT_MS} ms`),
    );
  }

  async #allSuspended(deviceNumbers: readonly string[]): Promise<boolean> {
    const states = await Promise.all(
      deviceNumbers.map((number) => this.#files.readText(`/sys/dev/block/${number}/dm/suspended`)),
    );
    return states.every((state) => state.trim() === '1');
  }

  /** Resumes and disarms; false when the guard was faster, or has to do it because the resume failed. */
  async #release(guard: Guard, names: readonly string[]): Promise<boolean> {
    try {
      await step('gate-resume-all', () => this.#dmsetup.resumeEach(names));
    } catch (error) {
      log().error({ err: error, gates: names }, 'suspended gates could not be resumed; the guard tries again');
      return false;
    }
    try {
      await step('gate-guard-disarm', () => this.#files.unlink(this.#seen(guard.flag)));
      return true;
    } catch (error) {
      log().warn({ err: error, gates: names }, 'the guard of suspended gates could not be disarmed: it has fired');
      return false;
    }
  }

  /** A path of the host as this process sees it. */
  #seen(path: string): string {
    return `${this.#hostRoot}${path}`;
  }

  async #script(script: string, program: string, flag: string, names: readonly string[]): Promise<void> {
    await this.#commands.run({ file: 'sh', args: ['-c', script, program, flag, ...names], program, kind: 'mutate' });
  }
}
