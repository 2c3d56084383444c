/** LIO through configfs. One operation at a time for each target; different targets do not wait for each other. */
import type { Commands } from '../../system/commands.ts';
import { Deadline, lockWithin } from '../../system/deadline.ts';
import type { Files } from '../../system/files.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { ConfigFs, errorCode } from './configfs.ts';
import { makeFolder } from './configfs-calls.ts';
import { TargetBuilder } from './converge.ts';
import { TargetError, TargetTimeoutError } from './errors.ts';
import { Fabric } from './fabric.ts';
import { disableTarget, revokeAcl } from './fence.ts';
import { readAcl, readTarget } from './inventory.ts';
import { TargetLayout } from './layout.ts';
import { listForeignTargets, listTargets } from './list.ts';
import { Portals } from './portals.ts';
import { checkSpec } from './spec-check.ts';
import type { TargetSpec, TargetState, Targets } from './types.ts';
import { disableWitness, enableWitness } from './witness.ts';

export interface LioTargetsOptions {
  readonly files: Files;
  /** For modprobe. */
  readonly commands: Commands;
  /** /sys/kernel/config when absent. */
  readonly configfsRoot?: string;
  /** Targets are `<iqnPrefix>:volume-<uuid>`; no others are touched. */
  readonly iqnPrefix: string;
  /** "address:port" list, IPv6 in brackets. */
  readonly portals: readonly string[];
  /** Names the target that holds the portals: the volume group. */
  readonly owner: string;
}

/** Nothing in here waits for I/O, except where a deadline is given. */
const ENSURE_TIMEOUT_MS = 60_000;
const LIST_TIMEOUT_MS = 60_000;

export class LioTargets implements Targets {
  readonly #files: Files;
  readonly #layout: TargetLayout;
  readonly #fabric: Fabric;
  readonly #portals: Portals;
  readonly #builder: TargetBuilder;
  readonly #holder: string;
  readonly #mutex = new KeyedMutex();

  constructor(options: LioTargetsOptions) {
    this.#files = options.files;
    this.#layout = new TargetLayout(options.configfsRoot ?? '/sys/kernel/config', options.iqnPrefix);
    this.#fabric = new Fabric(options.files, options.commands, this.#layout);
    this.#portals = new Portals(options.portals);
    this.#holder = this.#layout.portalHolder(options.owner);
    this.#builder = new TargetBuilder(this.#layout, this.#portals);
  }

  async problems(): Promise<string[]> {
    return await this.#fabric.problems();
  }

  async list(): Promise<TargetState[]> {
    return await listTargets(new ConfigFs(this.#files, new Deadline(LIST_TIMEOUT_MS)), this.#layout);
  }

  async listForeign(): Promise<{ targetIqn: string; volumeId: string }[]> {
    return await listForeignTargets(new ConfigFs(this.#files, new Deadline(LIST_TIMEOUT_MS)), this.#layout);
  }

  /** @throws TargetError; TargetTimeoutError when the kernel does not answer. */
  async ensure(spec: TargetSpec, options?: { portals?: boolean }): Promise<void> {
    this.#layout.assertOurs(spec.targetIqn, spec.volumeId);
    checkSpec(spec);
    await this.#exclusive(spec.targetIqn, ENSURE_TIMEOUT_MS, async (fs) => {
      const problems = await this.#fabric.prepare();
      if (problems.length > 0) throw new TargetError('kernel', problems.join('; '));
      try {
        await this.#builder.converge(fs, spec, options?.portals ?? true);
      } catch (error) {
        if (errorCode(error) === 'ENOENT') this.#fabric.forget();
        throw error;
      }
    });
  }

  async openPortals(targetIqn: string): Promise<void> {
    this.#layout.assertOurs(targetIqn);
    await this.#exclusive(targetIqn, ENSURE_TIMEOUT_MS, async (fs) => {
      const paths = this.#layout.target(targetIqn);
      const found = await readTarget(fs, paths);
      if (found?.enabled !== true) {
        throw new TargetError('kernel', `target ${targetIqn} is not complete: its portals stay closed`);
      }
      await this.#portals.converge(fs, paths, found.portals);
    });
  }

  /** @throws TargetError; TargetTimeoutError when the kernel does not answer. */
  async holdPortals(): Promise<void> {
    await this.#exclusive(this.#holder, ENSURE_TIMEOUT_MS, async (fs) => {
      const problems = await this.#fabric.prepare();
      if (problems.length > 0) throw new TargetError('kernel', problems.join('; '));
      const paths = this.#layout.target(this.#holder);
      const found = await readTarget(fs, paths);
      const before =
        found?.hasPortalGroup === true
          ? []
          : [makeFolder('target-holder-make', paths.iqn), makeFolder('target-holder-tpg-make', paths.tpg)];
      await this.#portals.converge(fs, paths, found?.portals ?? [], { before, after: [] });
    });
  }

  get witnessIqn(): string {
    return this.#holder;
  }

  /** @throws TargetError; TargetTimeoutError when the kernel does not answer. */
  async setWitness(isComplete: boolean): Promise<void> {
    const paths = this.#layout.target(this.#holder);
    await this.#exclusive(this.#holder, ENSURE_TIMEOUT_MS, (fs) =>
      isComplete ? enableWitness(fs, paths) : disableWitness(fs, paths),
    );
  }

  async revoke(targetIqn: string, initiatorIqn: string, options: { timeoutMs: number }): Promise<void> {
    this.#layout.assertOurs(targetIqn);
    await this.#exclusive(targetIqn, options.timeoutMs, async (fs) => {
      const paths = this.#layout.target(targetIqn);
      const acl = await readAcl(fs, paths, initiatorIqn);
      if (acl !== undefined) await revokeAcl(fs, paths, acl);
    });
  }

  async disable(targetIqn: string, options: { timeoutMs: number }): Promise<void> {
    this.#layout.assertOurs(targetIqn);
    await this.#exclusive(targetIqn, options.timeoutMs, async (fs) => {
      await disableTarget(fs, this.#layout.target(targetIqn));
    });
  }

  async remove(volumeId: string, targetIqn: string, options: { timeoutMs: number }): Promise<void> {
    this.#layout.assertOurs(targetIqn, volumeId);
    await this.#exclusive(targetIqn, options.timeoutMs, (fs) => this.#builder.remove(fs, volumeId, targetIqn));
  }

  async #exclusive<T>(targetIqn: string, timeoutMs: number, action: (fs: ConfigFs) => Promise<T>): Promise<T> {
    const deadline = new Deadline(timeoutMs);
    return await lockWithin(
      { mutex: this.#mutex, key: targetIqn },
      deadline,
      () => new TargetTimeoutError(`an earlier operation on ${targetIqn} has not ended within ${timeoutMs} ms`),
      () => action(new ConfigFs(this.#files, deadline)),
    );
  }
}
