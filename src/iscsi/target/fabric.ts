/** What LIO needs before any target: its modules, configfs, and the iSCSI fabric's folder. */
import { CommandError, type Commands } from '../../system/commands.ts';
import { log } from '../../system/context.ts';
import type { Files } from '../../system/files.ts';
import { step } from '../../system/step.ts';
import { errorCode } from './configfs.ts';
import type { TargetLayout } from './layout.ts';

const MODULES = ['target_core_mod', 'target_core_iblock', 'iscsi_target_mod'];

export class Fabric {
  readonly #files: Files;
  readonly #commands: Commands;
  readonly #layout: TargetLayout;
  #isPrepared = false;

  constructor(files: Files, commands: Commands, layout: TargetLayout) {
    this.#files = files;
    this.#commands = commands;
    this.#layout = layout;
  }

  /** @returns [] or what is wrong and what to do. */
  async problems(): Promise<string[]> {
    const problems = await this.#mountProblems();
    this.forget();
    return problems.length > 0 ? problems : await this.prepare();
  }

  /** Loads what is missing, once. @returns as problems(). */
  async prepare(): Promise<string[]> {
    if (this.#isPrepared) return [];
    const problems = await this.#load();
    this.#isPrepared = problems.length === 0;
    return problems;
  }

  /** Something was not there that prepare() had found or made: the next prepare looks again. */
  forget(): void {
    this.#isPrepared = false;
  }

  async #load(): Promise<string[]> {
    if ((await this.#files.stat(this.#layout.iscsi)) !== undefined) return [];
    try {
      // The modules may be there without modprobe: built in, or loaded by somebody else.
      if ((await this.#files.stat(this.#layout.core)) === undefined || !(await this.#hasMadeFabric())) {
        await step('target-modules-load', () =>
          this.#commands.run({ file: 'modprobe', args: ['-a', ...MODULES], kind: 'mutate' }),
        );
        await this.#makeFabric();
      }
      return [];
    } catch (error) {
      const reason = error instanceof CommandError ? error.shortMessage : (errorCode(error) ?? String(error));
      return [
        `the kernel's iSCSI target (LIO) is not available: ${reason}; ` +
          `load the modules ${MODULES.join(', ')} (package linux-modules-extra on some distributions)`,
      ];
    }
  }

  async #hasMadeFabric(): Promise<boolean> {
    try {
      await this.#makeFabric();
      return true;
    } catch (error) {
      log().info({ err: error }, 'the iSCSI fabric is not there yet; its modules are loaded');
      return false;
    }
  }

  async #makeFabric(): Promise<void> {
    try {
      await step('target-fabric-make', () => this.#files.mkdir(this.#layout.iscsi));
    } catch (error) {
      if (errorCode(error) !== 'EEXIST') throw error;
    }
  }

  async #mountProblems(): Promise<string[]> {
    const root = this.#layout.configfsRoot;
    const mounts = (await this.#files.readText('/proc/self/mounts')).split('\n').map((line) => line.split(' '));
    const options = mounts.filter(([, path, type]) => path === root && type === 'configfs').at(-1)?.[3];
    if (options === undefined) return [`configfs is not mounted at ${root}: mount -t configfs none ${root}`];
    if (!options.split(',').includes('rw')) return [`configfs at ${root} is mounted read-only: it has to be writable`];
    return [];
  }
}
