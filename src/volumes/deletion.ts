/** DeleteVolume: unexport, mark, rename, answer; the wiper does the rest (order of writes: tags.ts). */
import { DriverError } from '../errors.ts';
import type { BackendDependencies } from './dependencies.ts';
import { removeExport } from './exports.ts';
import { explainLvm } from './lvm-errors.ts';
import { isVolumeId, newWipeName } from './names.ts';
import { WIPE_TAG } from './tags.ts';
import { VolumeTable } from './volume-table.ts';

/** @throws DriverError FAILED_PRECONDITION while attached, naming the nodes; nothing is changed then. */
export async function deleteVolume(deps: BackendDependencies, volumeId: string): Promise<void> {
  if (!isVolumeId(volumeId)) return;
  const table = await VolumeTable.read(deps.lvm, deps.config.clusterId);
  if (table.halfDeleted(volumeId) !== undefined) {
    await hideDeleted(deps, volumeId);
    return;
  }
  if (table.find(volumeId) === undefined) return;
  requireNoAttachment(table, volumeId);
  // Not attached means fenced, but a crash may have left pieces of an export behind.
  await removeExport(deps, volumeId);
  await discardVolume(deps, volumeId);
}

/** @throws DriverError FAILED_PRECONDITION as deleteVolume does. */
export async function requireDetached(deps: BackendDependencies, volumeId: string): Promise<void> {
  requireNoAttachment(await VolumeTable.read(deps.lvm, deps.config.clusterId), volumeId);
}

function requireNoAttachment(table: VolumeTable, volumeId: string): void {
  const nodes = (table.find(volumeId)?.volume.attachments ?? []).map((attachment) => attachment.nodeName);
  if (nodes.length > 0) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be deleted while it is attached`,
      found: `attached to ${nodes.join(', ')}`,
      action: 'detach it there first (delete the pods that use it)',
    });
  }
}

/** From volume to "waiting for wiping". The LV must not be exported. */
export async function discardVolume(deps: BackendDependencies, volumeId: string): Promise<void> {
  await explainLvm(`volume ${volumeId} could not be marked as deleted`, deps.lvm.vgName, () =>
    deps.lvm.changeTags(volumeId, { add: [WIPE_TAG] }),
  );
  await hideDeleted(deps, volumeId);
}

/** Gives the name free: the same CSI name may be created again at once, before the wiping is done. */
export async function hideDeleted(deps: BackendDependencies, volumeId: string): Promise<void> {
  await explainLvm(`deleted volume ${volumeId} could not be renamed`, deps.lvm.vgName, () =>
    deps.lvm.rename(volumeId, newWipeName()),
  );
  deps.wipeQueue.wake();
}
