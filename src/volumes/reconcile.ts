/**
 * At start, and now and then: what the VG's tags say is made true in device-mapper and LIO, one target at a time. What is
 * right is not touched, so sessions with live I/O never notice. Absent is not empty: a VG that is absent or exported
 * changes nothing, and from a partial one nothing is taken away.
 */
import { DriverError } from '../errors.ts';
import type { Targets } from '../iscsi/target/types.ts';
import { LvmError } from '../lvm/types.ts';
import { log } from '../system/context.ts';
import type { KeyedMutex } from '../system/keyed-mutex.ts';
import { finishFences } from './attachment.ts';
import { discardVolume, hideDeleted } from './deletion.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainExport } from './export-errors.ts';
import { ensureExport, removeExport } from './exports.ts';
import type { UnfinishedFences } from './fences.ts';
import type { ForeignTargets } from './foreign-targets.ts';
import type { Growths } from './growth.ts';
import { targetIqn } from './names.ts';
import { isForgotten, planReconcile, type ReconcilePlan } from './reconcile-plan.ts';
import { VolumeTable } from './volume-table.ts';

const UNREADABLE = 'gates and targets of the storage host could not be listed';

export interface ReconcileResult {
  readonly repaired: number;
  readonly removed: number;
  /** Targets that are called as ours are, and were left alone. */
  readonly foreign: number;
  /** One for each volume that could not be repaired, and one for the portals; the others were. */
  readonly failures: readonly string[];
  /** Why no initiator can reach this host; undefined when it can. */
  readonly portalProblem: string | undefined;
}

export interface ReconcileOptions {
  readonly atStart: boolean;
  /** Calls have been let in for so long that a volume which still nobody asks for has been given up. */
  readonly discardUnfinished: boolean;
}

/** At the start, before LVM or the target is asked anything: I/O waits on these gates. @throws DriverError */
export async function resumeLeftGates(gates: BackendDependencies['gates']): Promise<void> {
  const resumed = await explainExport('gates that a crash left suspended could not be resumed', () =>
    gates.resumeAll(),
  );
  if (resumed.length > 0) log().warn({ volumes: resumed }, 'resumed gates that a crash had left suspended');
}

/**
 * @param mutex One operation for each volume: one that a call is at work on is passed over, and looked at the next time.
 * @throws DriverError FAILED_PRECONDITION at the start when a target of another prefix exports a volume; UNAVAILABLE when the VG can't be read or is exported; nothing was changed then.
 */
export async function reconcile(
  deps: BackendDependencies,
  mutex: KeyedMutex,
  fences: UnfinishedFences,
  growths: Growths,
  foreign: ForeignTargets,
  options: ReconcileOptions,
): Promise<ReconcileResult> {
  const { lvm, config, gates, targets } = deps;
  const table = await VolumeTable.read(lvm, config.clusterId, { fresh: true });
  table.warnRefused();
  if (options.atStart) await refuseForeignTargets(deps, table);
  const [serving, present] = await explainExport(UNREADABLE, async () => [await targets.list(), await gates.list()]);
  const plan = planReconcile(table, serving, present, (volumeId) => gates.path(volumeId));
  foreign.tell(plan.foreign);
  return await new Execution({
    deps,
    mutex,
    fences,
    growths,
    plan: options.discardUnfinished ? plan : { ...plan, unfinished: [] },
    vgUuid: table.report.vg.uuid,
  }).run();
}

/**
 * After a change of the IQN prefix the old targets are still there, with their sessions, and no fence of ours would reach
 * them; a second target beside each would be built.
 */
async function refuseForeignTargets({ targets, config, lvm }: BackendDependencies, table: VolumeTable): Promise<void> {
  const ours = new Set(table.entries().map(({ volume }) => volume.id));
  const foreign = (await explainExport(UNREADABLE, () => targets.listForeign())).filter(({ volumeId }) =>
    ours.has(volumeId),
  );
  const [first] = foreign;
  if (first === undefined) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `${foreign.length} volume(s) of volume group "${lvm.vgName}" are exported under another IQN prefix than ${config.iqnPrefix}`,
    found: `target ${first.targetIqn}`,
    action:
      'set iqn-prefix back to what it was and detach the volumes before it is changed, or remove these targets (targetcli)',
  });
}

/** Carries a plan out, one volume after the other. Each looks again, under its lock, whether there is still need. */
class Execution {
  readonly #deps: BackendDependencies;
  readonly #mutex: KeyedMutex;
  readonly #fences: UnfinishedFences;
  readonly #plan: ReconcilePlan;
  readonly #growths: Growths;
  readonly #vgUuid: string;
  readonly #failures: string[] = [];
  #repaired = 0;
  #removed = 0;

  constructor(given: {
    readonly deps: BackendDependencies;
    readonly mutex: KeyedMutex;
    readonly fences: UnfinishedFences;
    readonly plan: ReconcilePlan;
    readonly growths: Growths;
    readonly vgUuid: string;
  }) {
    this.#deps = given.deps;
    this.#mutex = given.mutex;
    this.#fences = given.fences;
    this.#plan = given.plan;
    this.#growths = given.growths;
    this.#vgUuid = given.vgUuid;
  }

  async run(): Promise<ReconcileResult> {
    const { config, targets, wipeQueue } = this.#deps;
    const { cold, inactive, exports, leftovers, unfinished, halfDeleted, growing } = this.#plan;
    await this.#activate(inactive);
    await this.#each(exports, 'repair of the export', (volumeId) => this.#export(volumeId));
    if (cold) {
      await this.#each(exports, 'opening of the portal', (volumeId) =>
        explainExport('its portal could not be opened', () =>
          targets.openPortals(targetIqn(config.iqnPrefix, volumeId)),
        ),
      );
    }
    const portalProblem = await holdPortals(targets, this.#vgUuid);
    if (portalProblem !== undefined) this.#failures.push(portalProblem);
    await this.#each(leftovers, 'removal of a leftover export', (volumeId) => this.#removeLeftover(volumeId));
    await this.#each(unfinished, 'removal of an unfinished volume', (volumeId) => this.#discard(volumeId));
    await this.#each(halfDeleted, 'hiding of a deleted volume', (volumeId) => this.#hide(volumeId));
    wipeQueue.wake();
    // Nothing waits for it: until it is through everybody is shown what is known to be blank.
    for (const volumeId of growing) this.#growths.start(volumeId);
    return {
      repaired: this.#repaired,
      removed: this.#removed,
      foreign: this.#plan.foreign.length,
      failures: this.#failures,
      portalProblem,
    };
  }

  /**
   * All at once, which after a boot saves a command for each. LVM goes on after one that it cannot activate; those that
   * are left are tried on their own when their export is built, and fail there alone.
   */
  async #activate(volumeIds: readonly string[]): Promise<void> {
    if (volumeIds.length === 0) return;
    try {
      await this.#deps.lvm.activate(volumeIds);
    } catch (error) {
      if (!(error instanceof LvmError)) throw error;
      log().warn({ err: error, volumes: volumeIds.length }, 'not every attached volume could be activated at once');
    }
  }

  async #each(volumeIds: readonly string[], what: string, action: (volumeId: string) => Promise<void>): Promise<void> {
    for (const volumeId of volumeIds) {
      try {
        if (!(await this.#mutex.runIfFree(volumeId, () => action(volumeId))))
          log().debug(
            { volumeId },
            `${what} is left to the next comparison: an operation on the volume is in progress`,
          );
      } catch (error) {
        log().error({ err: error, volumeId }, `${what} failed`);
        this.#failures.push(`${volumeId}: ${what} failed: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  async #table(options?: { fresh?: boolean }): Promise<VolumeTable> {
    return await VolumeTable.read(this.#deps.lvm, this.#deps.config.clusterId, options);
  }

  async #export(volumeId: string): Promise<void> {
    let entry = (await this.#table()).findMade(volumeId);
    if (entry !== undefined && (await finishFences(this.#deps, this.#fences, entry)))
      entry = (await this.#table()).findMade(volumeId);
    if (entry === undefined || entry.volume.attachments.length === 0) return;
    await ensureExport(this.#deps, entry, entry.volume, { portals: !this.#plan.cold });
    this.#repaired += 1;
  }

  async #removeLeftover(volumeId: string): Promise<void> {
    // Published meanwhile? Then it is no leftover.
    const now = (await this.#table()).find(volumeId);
    if (now !== undefined && now.volume.attachments.length > 0) return;
    if (await explainExport(UNREADABLE, () => this.#deps.gates.servesOtherVg(volumeId, this.#vgUuid))) return;
    log().warn({ volumeId }, 'removing an export that no attachment asks for');
    await removeExport(this.#deps, volumeId);
    this.#removed += 1;
  }

  async #discard(volumeId: string): Promise<void> {
    const now = (await this.#table({ fresh: true })).find(volumeId);
    if (now === undefined || !isForgotten(now)) return;
    log().warn({ volumeId, name: now.volume.name }, 'removing a volume that was never finished, nor asked for again');
    await discardVolume(this.#deps, volumeId);
  }

  async #hide(volumeId: string): Promise<void> {
    if ((await this.#table()).halfDeleted(volumeId) === undefined) return;
    await removeExport(this.#deps, volumeId);
    await hideDeleted(this.#deps, volumeId);
  }
}

async function holdPortals(targets: Targets, vgUuid: string): Promise<string | undefined> {
  const problem = 'the portals cannot be opened';
  try {
    await explainExport(problem, () => targets.holdPortals(vgUuid));
    return undefined;
  } catch (error) {
    log().error({ err: error }, problem);
    return error instanceof DriverError ? error.message : `${problem}; see the controller log`;
  }
}
