/**
 * Runs LVM in its private environment, and once more in a new one when the old one may have hidden a PV. Only what takes
 * extents is not run again: the new PV may hold anything, and whoever asked believed to know the disks (tags.ts).
 */
import type { CommandResult, Commands } from '../system/commands.ts';
import type { LvmEnvironment, PreparedEnvironment } from './environment.ts';
import { toLvmError } from './errors.ts';
import { LvmError } from './types.ts';

/** LVM waits for the VG's lock without limit; a read behind a long mutation is not a fault. */
const READ_TIMEOUT_MS = 120_000;
const FLUSH_TIMEOUT_MS = 60_000;

export class LvmCommands {
  readonly #commands: Commands;
  readonly environment: LvmEnvironment;
  readonly #mustFlush: () => boolean;

  /** @param mustFlush is what LVM writes lost by a power cut until the disks are flushed? */
  constructor(commands: Commands, environment: LvmEnvironment, mustFlush: () => boolean = () => false) {
    this.#commands = commands;
    this.environment = environment;
    this.#mustFlush = mustFlush;
  }

  /** @throws LvmError */
  async read(args: readonly string[]): Promise<CommandResult> {
    return await this.#withEnvironment((environment) => this.#run('read', args, environment));
  }

  /** @throws LvmError; after vg-partial and vg-not-found nothing has been changed */
  async mutate(args: readonly string[]): Promise<CommandResult> {
    return await this.#withEnvironment((environment) => this.#run('mutate', args, environment));
  }

  /** For lvcreate and lvextend. @throws LvmError as `mutate`; vg-changed when only our knowledge of the PVs was old */
  async allocate(args: readonly string[]): Promise<CommandResult> {
    return await this.#withEnvironment(
      (environment) => this.#run('mutate', args, environment),
      (cause) => {
        throw new LvmError('vg-changed', 'the PVs of the volume group have changed; nothing was allocated', { cause });
      },
    );
  }

  /** @param onChanged instead of another run */
  async #withEnvironment(
    action: (environment: PreparedEnvironment) => Promise<CommandResult>,
    onChanged?: (cause: LvmError) => never,
  ): Promise<CommandResult> {
    const environment = await this.environment.get();
    try {
      return await action(environment);
    } catch (error) {
      if (!(error instanceof LvmError && (error.kind === 'vg-partial' || error.kind === 'vg-not-found'))) throw error;
      const refreshed = await this.environment.refresh();
      if (refreshed === environment) throw error;
      onChanged?.(error);
      return await action(refreshed);
    }
  }

  async #run(
    kind: 'read' | 'mutate',
    args: readonly string[],
    environment: PreparedEnvironment,
  ): Promise<CommandResult> {
    const [program = 'lvm'] = args;
    try {
      const result = await this.#commands.run({
        file: 'lvm',
        args,
        program,
        kind,
        env: environment.variables,
        ...(kind === 'read' ? { timeoutMs: READ_TIMEOUT_MS } : {}),
      });
      if (kind === 'mutate' && this.#mustFlush()) await this.#flush(environment);
      return result;
    } catch (error) {
      throw error instanceof LvmError ? error : toLvmError(error);
    }
  }

  /**
   * LVM writes its metadata past the page cache and flushes no disk: a tag that was answered for went away with a power cut
   * seconds later (measured, 2.03.16), and with it the attachment that it stood for.
   */
  async #flush({ paths }: PreparedEnvironment): Promise<void> {
    try {
      await this.#commands.run({ file: 'sync', args: ['--', ...paths], kind: 'read', timeoutMs: FLUSH_TIMEOUT_MS });
    } catch (cause) {
      throw new LvmError('write-failed', `what LVM has written could not be flushed: ${String(cause)}`, { cause });
    }
  }
}
