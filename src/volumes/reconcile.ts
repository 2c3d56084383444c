/**
 * At start, and now and then: what the VG's tags say is made true in device-mapper and LIO, one target at a time. What is
 * right is not touched, so sessions with live I/O never notice. A VG that is absent or partial changes nothing.
 */
import { DriverError } from '../errors.ts';
import type { TargetState, Targets } from '../iscsi/target/types.ts';
import { log } from '../system/context.ts';
import type { KeyedMutex } from '../system/keyed-mutex.ts';
import { discardVolume, hideDeleted } from './deletion.ts';
import type { BackendDependencies } from './dependencies.ts';
import { finishGrowth } from './expansion.ts';
import { explainExport } from './export-errors.ts';
import { ensureExport, removeExport } from './exports.ts';
import { explainLvm } from './lvm-errors.ts';
import { isVolumeId, targetIqn } from './names.ts';
import { type VolumeEntry, VolumeTable } from './volume-table.ts';

/** The provisioner repeats a create after minutes at most; a day also covers a cluster that is down for the night. */
const UNFINISHED_KEPT_S = 86_400;
const UNREADABLE = 'gates and targets of the storage host could not be listed';

export interface ReconcileResult {
  readonly repaired: number;
  readonly removed: number;
  /** One for each volume that could not be repaired, and one for the portals; the others were. */
  readonly failures: readonly string[];
  /** Why no initiator can reach this host; undefined when it can. */
  readonly portalProblem: string | undefined;
}

/**
 * @param mutex One operation for each volume: a call in progress is waited for, never raced.
 * @throws DriverError UNAVAILABLE when the VG can't be read or is partial; nothing was changed then.
 */
export async function reconcile(
  deps: BackendDependencies,
  mutex: KeyedMutex,
  options: { atStart: boolean },
): Promise<ReconcileResult> {
  const { lvm, config, gates, targets } = deps;
  if (options.atStart) {
    // Before anything else: I/O waits on them, and it must not wait for LVM.
    const resumed = await explainExport('gates that a crash left suspended could not be resumed', () =>
      gates.resumeAll(),
    );
    if (resumed.length > 0) log().warn({ volumes: resumed }, 'resumed gates that a crash had left suspended');
  }
  const table = await VolumeTable.read(lvm, config.clusterId, { fresh: true });
  table.warnRefused();
  const failures: string[] = [];
  let repaired = 0;
  let removed = 0;
  const attempt = async (volumeId: string, what: string, action: () => Promise<void>) => {
    try {
      await mutex.run(volumeId, action);
    } catch (error) {
      log().error({ err: error, volumeId }, `${what} failed`);
      failures.push(`${volumeId}: ${what} failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  };

  const attached = table.entries().filter(({ volume }) => volume.attachments.length > 0);
  const inactive = attached.filter(({ lv }) => !lv.active).map(({ volume }) => volume.id);
  if (inactive.length > 0) {
    await explainLvm('attached volumes could not be activated', lvm.vgName, () => lvm.activate(inactive));
  }
  // After a boot the portal must not answer before every target is there: an initiator takes "no such target" hard.
  const serving = await explainExport(UNREADABLE, () => targets.list());
  const cold = !serving.some((target) => target.portals.length > 0);
  for (const { volume } of attached) {
    await attempt(volume.id, 'repair of the export', async () => {
      let entry = (await VolumeTable.read(lvm, config.clusterId)).findMade(volume.id);
      if (entry === undefined || entry.volume.attachments.length === 0) return;
      if (entry.growingFromBytes !== undefined && !cold) entry = await finishGrowth(deps, entry);
      await ensureExport(deps, entry, entry.volume, { portals: !cold });
      repaired += 1;
    });
  }
  if (cold) {
    for (const { volume } of attached) {
      await attempt(volume.id, 'opening of the portal', () =>
        explainExport('its portal could not be opened', () =>
          targets.openPortals(targetIqn(config.iqnPrefix, volume.id)),
        ),
      );
    }
  }

  const portalProblem = await holdPortals(targets);
  if (portalProblem !== undefined) failures.push(portalProblem);

  for (const volumeId of await explainExport(UNREADABLE, () => leftovers(deps, table, serving))) {
    await attempt(volumeId, 'removal of a leftover export', async () => {
      // Published meanwhile? Then it is no leftover.
      const now = (await VolumeTable.read(lvm, config.clusterId)).find(volumeId);
      if (now !== undefined && now.volume.attachments.length > 0) return;
      log().warn({ volumeId }, 'removing an export that no attachment asks for');
      await removeExport(deps, volumeId);
      removed += 1;
    });
  }
  for (const { volume } of table.entries().filter(isForgotten)) {
    await attempt(volume.id, 'removal of an unfinished volume', async () => {
      const now = (await VolumeTable.read(lvm, config.clusterId, { fresh: true })).find(volume.id);
      if (now === undefined || !isForgotten(now)) return;
      log().warn(
        { volumeId: volume.id, name: volume.name },
        'removing a volume that was never finished, nor asked for again',
      );
      await discardVolume(deps, volume.id);
    });
  }
  for (const lv of table.waitingForWipe()) {
    if (isVolumeId(lv.name))
      await attempt(lv.name, 'hiding of a deleted volume', () => hideIfStillThere(deps, lv.name));
  }
  deps.wipeQueue.wake();
  return { repaired, removed, failures, portalProblem };
}

async function holdPortals(targets: Targets): Promise<string | undefined> {
  const problem = 'the portals cannot be opened';
  try {
    await explainExport(problem, () => targets.holdPortals());
    return undefined;
  } catch (error) {
    log().error({ err: error }, problem);
    return error instanceof DriverError ? error.message : `${problem}; see the controller log`;
  }
}

/** A create that a crash cut short, and that nobody has repeated: its claim is gone. It was never handed out. */
function isForgotten({ lv, made }: VolumeEntry): boolean {
  return !made && Date.now() / 1000 - lv.createdAt > UNFINISHED_KEPT_S;
}

async function hideIfStillThere(deps: BackendDependencies, volumeId: string): Promise<void> {
  const table = await VolumeTable.read(deps.lvm, deps.config.clusterId);
  if (table.halfDeleted(volumeId) === undefined) return;
  await removeExport(deps, volumeId);
  await hideDeleted(deps, volumeId);
}

/** Volumes with a gate or a target that no attachment asks for; never one that may be another VG's. */
async function leftovers(
  deps: BackendDependencies,
  table: VolumeTable,
  serving: readonly TargetState[],
): Promise<string[]> {
  const wanted = new Set(table.attachments().map(({ volumeId }) => volumeId));
  const found = new Set<string>();
  for (const target of serving)
    if (target.volumeId !== undefined && !wanted.has(target.volumeId)) found.add(target.volumeId);
  for (const gate of await deps.gates.list()) if (!wanted.has(gate.volumeId)) found.add(gate.volumeId);
  const refused = new Set(table.refused().map(({ lvName }) => lvName));
  const others: string[] = [];
  for (const volumeId of found) {
    if (refused.has(volumeId) || (await deps.gates.servesOtherVg(volumeId, table.report.vg.uuid)))
      others.push(volumeId);
  }
  return [...found].filter((volumeId) => !others.includes(volumeId)).sort();
}
