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

export class LvmCommands {
  readonly #commands: Commands;
  readonly environment: LvmEnvironment;

  constructor(commands: Commands, environment: LvmEnvironment) {
    this.#commands = commands;
    this.environment = environment;
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
      return await this.#commands.run({
        file: 'lvm',
        args,
        program,
        kind,
        env: environment.variables,
        ...(kind === 'read' ? { timeoutMs: READ_TIMEOUT_MS } : {}),
      });
    } catch (error) {
      throw toLvmError(error);
    }
  }
}
