/** ControllerExpandVolume: online, in whole extents, and blank (order of writes: tags.ts). */
import { DriverError } from '../errors.ts';
import type { ExpandResult } from './backend.ts';
import { wasBlank } from './blankness.ts';
import { capabilityProblemOf } from './capabilities.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainExport } from './export-errors.ts';
import { explainLvm, requireRoom } from './lvm-errors.ts';
import type { CapacityRange, Volume, VolumeCapability } from './model.ts';
import { checkRange, formatBytes, roundUp, tellRounding } from './sizes.ts';
import { growingTag, growingTags } from './tags.ts';
import { type VolumeEntry, VolumeTable } from './volume-table.ts';

/** @returns undefined when what it added, now or earlier, has to be zeroed first: then again (growth.ts) */
export async function expandVolume(
  deps: BackendDependencies,
  volumeId: string,
  capacity: CapacityRange,
  capability: VolumeCapability | undefined,
): Promise<ExpandResult | undefined> {
  const { lvm, config } = deps;
  checkRange(capacity);
  const before = await VolumeTable.read(lvm, config.clusterId);
  const { extentSizeBytes } = before.report.vg;
  let entry = before.require(volumeId);
  if (capability !== undefined) {
    const problem = capabilityProblemOf(entry.volume, capability);
    if (problem !== undefined) throw new DriverError('INVALID_ARGUMENT', problem);
  }
  if (entry.growingFromBytes !== undefined) {
    if (entry.growingFromBytes < entry.lv.sizeBytes) return undefined;
    // A crash, or a failure, came before the lvextend.
    entry = await explainLvm(`volume ${volumeId} could not be expanded`, lvm.vgName, () => endGrowth(deps, entry));
  }
  if (capacity.requiredBytes <= entry.volume.sizeBytes) {
    if (capacity.limitBytes > 0 && capacity.limitBytes < entry.volume.sizeBytes) {
      throw new DriverError('OUT_OF_RANGE', {
        problem: `volume ${volumeId} cannot become smaller`,
        found: `it has ${entry.volume.sizeBytes} bytes, the limit asked for is ${capacity.limitBytes}`,
        action: 'create a smaller volume and copy the data',
      });
    }
    // Grown earlier: a crash may have come between the LV and the gate.
    await growGate(deps, entry);
    tellRounding(volumeId, capacity, entry.volume.sizeBytes, extentSizeBytes);
    return result(entry.volume);
  }
  const { report } = await VolumeTable.read(lvm, config.clusterId);
  const sizeBytes = roundUp(capacity.requiredBytes, extentSizeBytes);
  if (capacity.limitBytes > 0 && sizeBytes > capacity.limitBytes) {
    throw new DriverError('OUT_OF_RANGE', {
      problem: `no volume size fits between ${capacity.requiredBytes} and ${capacity.limitBytes} bytes`,
      found: `sizes are multiples of ${formatBytes(extentSizeBytes)}, the volume group's extents`,
      action: 'raise limit_bytes or ask for a multiple of the extent size',
    });
  }
  await requireRoom(deps, sizeBytes - entry.volume.sizeBytes, report);

  const table = await VolumeTable.read(lvm, config.clusterId);
  const markBefore = deps.blankMark(table.report);
  await explainLvm(`volume ${volumeId} could not be expanded to ${formatBytes(sizeBytes)}`, lvm.vgName, async () => {
    await lvm.changeTags(volumeId, { add: [growingTag(entry.volume.sizeBytes)] });
    await lvm.extend(volumeId, sizeBytes);
  });
  const after = await VolumeTable.read(lvm, config.clusterId);
  if (!wasBlank(deps, markBefore, after)) return undefined;
  const grown = await explainLvm(`the expansion of volume ${volumeId} could not be recorded`, lvm.vgName, () =>
    endGrowth(deps, after.require(volumeId)),
  );
  tellRounding(volumeId, capacity, grown.volume.sizeBytes, extentSizeBytes);
  return result(grown.volume);
}

/** All bytes are blank. The tag goes before the gate grows: what a node has written must never be zeroed. */
export async function endGrowth(deps: BackendDependencies, { lv, volume }: VolumeEntry): Promise<VolumeEntry> {
  await deps.lvm.changeTags(volume.id, { remove: growingTags(lv) });
  const grown = { ...volume, sizeBytes: lv.sizeBytes };
  const entry: VolumeEntry = { lv, volume: grown, made: true, growingFromBytes: undefined };
  await growGate(deps, entry);
  return entry;
}

async function growGate(deps: BackendDependencies, entry: VolumeEntry): Promise<void> {
  const { volume, lv } = entry;
  if (volume.attachments.length === 0) return;
  await explainExport(`volume ${volume.id} was expanded, but its nodes cannot be shown the new size`, () =>
    deps.gates.ensure({ volumeId: volume.id, lvPath: lv.path, sizeBytes: volume.sizeBytes }),
  );
}

/** A file system grows on the node, now or at the next stage; an attached device must be looked at again. */
function result(volume: Volume): ExpandResult {
  return {
    sizeBytes: volume.sizeBytes,
    nodeExpansionRequired: volume.attachments.length > 0 || volume.content.kind === 'filesystem',
  };
}
