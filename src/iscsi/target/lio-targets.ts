/** LIO through configfs. One operation at a time for each target; different targets do not wait for each other. */
import type { Commands } from '../../system/commands.ts';
import { Deadline, lockWithin } from '../../system/deadline.ts';
import type { Files } from '../../system/files.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { ConfigFs, errorCode } from './configfs.ts';
import { folder, makeFolder } from './configfs-calls.ts';
import { TargetBuilder } from './converge.ts';
import { TargetError, TargetTimeoutError } from './errors.ts';
import { Fabric } from './fabric.ts';
import { disableTarget, revokeAcl } from './fence.ts';
import { readAcl, readTarget } from './inventory.ts';
import { TargetLayout } from './layout.ts';
import { listForeignTargets, listTargets } from './list.ts';
import { portalGroupRemoval } from './portal-group.ts';
import { Portals, portalProblems } from './portals.ts';
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
  /** Name of the volume group. */
  readonly vgName: string;
}

/** Nothing in here waits for I/O, except where a deadline is given. */
const ENSURE_TIMEOUT_MS = 60_000;
const LIST_TIMEOUT_MS = 60_000;
/** What the targets that hold portals are locked by, all of them together. */
const HOLDERS = 'portal holders';

export class LioTargets implements Targets {
  readonly #files: Files;
  readonly #layout: TargetLayout;
  readonly #fabric: Fabric;
  readonly #wantedPortals: readonly string[];
  readonly #portals: Portals;
  readonly #builder: TargetBuilder;
  readonly #vgName: string;
  readonly #mutex = new KeyedMutex();

  constructor(options: LioTargetsOptions) {
    this.#files = options.files;
    this.#layout = new TargetLayout(options.configfsRoot ?? '/sys/kernel/config', options.iqnPrefix);
    this.#fabric = new Fabric(options.files, options.commands, this.#layout);
    this.#wantedPortals = options.portals;
    this.#portals = new Portals(options.portals);
    this.#vgName = options.vgName;
    this.#builder = new TargetBuilder(this.#layout, this.#portals);
  }

  async problems(): Promise<string[]> {
    return [...(await this.#fabric.problems()), ...portalProblems(this.#wantedPortals)];
  }

  async list(): Promise<TargetState[]> {
    return await listTargets(new ConfigFs(this.#files, new Deadline(LIST_TIMEOUT_MS)), this.#layout);
  }

  async listForeign(): Promise<{ targetIqn: string; volumeId: string }[]> {
    return await listForeignTargets(new ConfigFs(this.#files, new Deadline(LIST_TIMEOUT_MS)), this.#layout);
  }

  /** In its turn, like all that may meet a call that hangs: a retry must not add another. @throws TargetTimeoutError */
  async find(targetIqn: string, options: { timeoutMs: number }): Promise<TargetState | undefined> {
    const volumeId = this.#layout.assertOurs(targetIqn);
    return await this.#exclusive(targetIqn, options.timeoutMs, (fs) => this.#builder.find(fs, volumeId, targetIqn));
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
  async holdPortals(vgUuid: string): Promise<void> {
    const holder = this.witnessIqn(vgUuid);
    await this.#exclusive(HOLDERS, ENSURE_TIMEOUT_MS, async (fs) => {
      const problems = await this.#fabric.prepare();
      if (problems.length > 0) throw new TargetError('kernel', problems.join('; '));
      const paths = this.#layout.target(holder);
      const found = await readTarget(fs, paths);
      const before =
        found?.hasPortalGroup === true
          ? []
          : [makeFolder('target-holder-make', paths.iqn), makeFolder('target-holder-tpg-make', paths.tpg)];
      await this.#portals.converge(fs, paths, found?.portals ?? [], { before, after: [] });
      // Last, so that the portals listen all the time.
      for (const old of await this.#holders(fs)) if (old !== holder) await this.#removeHolder(fs, old);
    });
  }

  witnessIqn(vgUuid: string): string {
    return this.#layout.portalHolder(this.#vgName, vgUuid);
  }

  /** @throws TargetError; TargetTimeoutError when the kernel does not answer. */
  async setWitness(vgUuid: string | undefined): Promise<void> {
    const speaker = vgUuid === undefined ? undefined : this.witnessIqn(vgUuid);
    await this.#exclusive(HOLDERS, ENSURE_TIMEOUT_MS, async (fs) => {
      for (const holder of await this.#holders(fs))
        if (holder !== speaker) await disableWitness(fs, this.#layout.target(holder));
      if (speaker !== undefined) await enableWitness(fs, this.#layout.target(speaker));
    });
  }

  async #holders(fs: ConfigFs): Promise<string[]> {
    const [iqns] = await fs.ask(folder(this.#layout.iscsi));
    return iqns.filter((iqn) => this.#layout.isPortalHolderOf(this.#vgName, iqn));
  }

  async #removeHolder(fs: ConfigFs, holder: string): Promise<void> {
    const paths = this.#layout.target(holder);
    await disableWitness(fs, paths);
    const found = await readTarget(fs, paths);
    await this.#portals.remove(fs, paths, found?.portals ?? [], portalGroupRemoval(paths));
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
