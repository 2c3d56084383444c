/** CreateVolume (order of writes and crash points: tags.ts). */
import { DriverError } from '../errors.ts';
import { log } from '../system/context.ts';
import type { CreateVolumeRequest } from './backend.ts';
import { wasBlank } from './blankness.ts';
import { contentFor } from './capabilities.ts';
import { discardVolume, hideDeleted } from './deletion.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainLvm, requireRoom } from './lvm-errors.ts';
import { requireMetadataRoom } from './metadata-room.ts';
import type { Volume, VolumeContent } from './model.ts';
import { newToken, volumeIdForName } from './names.ts';
import { parseParameters } from './parameters.ts';
import { formatBytes, newSizeBytes, sizeFits, tellRounding } from './sizes.ts';
import { identityTags, MADE_TAG } from './tags.ts';
import { type VolumeEntry, VolumeTable } from './volume-table.ts';

export async function createVolume(deps: BackendDependencies, request: CreateVolumeRequest): Promise<Volume> {
  const { config, lvm } = deps;
  parseParameters(request.parameters, config.volumeGroup);
  if (request.source !== undefined) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `volumes cannot be created from a ${request.source.kind} yet`,
      action: 'create an empty volume and copy the data',
    });
  }
  const content = contentFor(request.capabilities, config.defaultFsType);
  const volumeId = volumeIdForName(config.clusterId, request.name);
  let table = await VolumeTable.read(lvm, config.clusterId);
  if (table.halfDeleted(volumeId) !== undefined) {
    await hideDeleted(deps, volumeId);
    table = await VolumeTable.read(lvm, config.clusterId);
  }
  const { extentSizeBytes } = table.report.vg;
  const sizeBytes = newSizeBytes(request.capacity, extentSizeBytes, config.defaultVolumeSizeBytes, content);
  let existing = table.find(volumeId);
  if (existing?.made === true) {
    const volume = compatible(existing, request, content);
    tellRounding(volumeId, request.capacity, volume.sizeBytes, extentSizeBytes);
    return volume;
  }
  if (
    existing !== undefined &&
    (existing.lv.sizeBytes !== sizeBytes || !sameContent(existing.volume.content, content))
  ) {
    // Cut short by a crash and never handed out; this request wants something else of the same name.
    await discardVolume(deps, volumeId);
    table = await VolumeTable.read(lvm, config.clusterId);
    existing = undefined;
  }
  const blankMark = deps.blankMark(table.report);
  let unfinished: Unfinished;
  if (existing !== undefined) {
    // After a crash nobody knows how far an earlier mkfs came: all is zeroed again.
    unfinished = {
      volume: existing.volume,
      path: existing.lv.path,
      active: existing.lv.active,
      blankMark: undefined,
    };
  } else {
    await requireRoom(deps, sizeBytes, table.report);
    requireMetadataRoom(table, `volume "${request.name}" could not be created`);
    const identity = { clusterId: config.clusterId, name: request.name, serial: newToken(), content };
    const tags = identityTags(identity);
    await explainLvm(`volume "${request.name}" of ${formatBytes(sizeBytes)} could not be created`, lvm.vgName, () =>
      lvm.createLinear({ name: volumeId, sizeBytes, tags }),
    );
    const { name, serial } = identity;
    unfinished = {
      volume: { id: volumeId, name, sizeBytes, serial, content, provisioning: 'thick', attachments: [] },
      path: `/dev/${lvm.vgName}/${volumeId}`,
      active: true,
      blankMark,
    };
  }
  try {
    await finish(deps, unfinished);
    tellRounding(volumeId, request.capacity, unfinished.volume.sizeBytes, extentSizeBytes);
    return unfinished.volume;
  } catch (error) {
    await discardUnfinished(deps, volumeId, error);
    throw error;
  }
}

/** An LV that was never handed out. */
interface Unfinished {
  readonly volume: Volume;
  readonly path: string;
  readonly active: boolean;
  /** What its extents were believed to be zeros by, before they were allocated. */
  readonly blankMark: string | undefined;
}

/** Steps 2 to 4. */
async function finish(deps: BackendDependencies, { volume, path, active, blankMark }: Unfinished): Promise<void> {
  const { lvm, config } = deps;
  const blank = blankMark !== undefined && wasBlank(deps, blankMark, await VolumeTable.read(lvm, config.clusterId));
  if (!active)
    await explainLvm(`volume ${volume.id} could not be activated`, lvm.vgName, () => lvm.activate([volume.id]));
  if (!blank)
    await explainLvm(`volume ${volume.id} could not be zeroed`, lvm.vgName, () => deps.zeroNew(path, volume.sizeBytes));
  if (volume.content.kind === 'filesystem') await deps.makeFileSystem(path, volume.content.fsType);
  await explainLvm(`volume ${volume.id} could not be marked as made`, lvm.vgName, () =>
    lvm.changeTags(volume.id, { add: [MADE_TAG] }),
  );
}

/** A failed create leaves nothing behind: a code that the provisioner takes for final would leak the LV. */
async function discardUnfinished(deps: BackendDependencies, volumeId: string, error: unknown): Promise<void> {
  log().warn({ err: error, volumeId }, 'volume could not be finished; taking it back');
  try {
    const entry = (await VolumeTable.read(deps.lvm, deps.config.clusterId, { fresh: true })).find(volumeId);
    if (entry !== undefined && !entry.made) await discardVolume(deps, volumeId);
  } catch (cause) {
    throw new DriverError(
      'ABORTED',
      {
        problem: `volume ${volumeId} could not be finished, and not be taken back either`,
        found: 'two failures, see the controller log',
        action: 'the call is retried and goes on with the unfinished volume',
      },
      { cause: new AggregateError([error, cause]) },
    );
  }
}

/** @throws DriverError ALREADY_EXISTS */
function compatible(entry: VolumeEntry, request: CreateVolumeRequest, content: VolumeContent): Volume {
  const { volume } = entry;
  const differs: string[] = [];
  if (volume.name !== request.name) differs.push(`name "${volume.name}"`);
  if (!sameContent(volume.content, content))
    differs.push(`content ${describe(volume.content)} instead of ${describe(content)}`);
  if (!sizeFits(volume.sizeBytes, request.capacity)) {
    const { requiredBytes, limitBytes } = request.capacity;
    differs.push(
      `size ${volume.sizeBytes} bytes, asked ${requiredBytes}${limitBytes > 0 ? ` to ${limitBytes}` : ' or more'}`,
    );
  }
  if (differs.length > 0) {
    throw new DriverError('ALREADY_EXISTS', {
      problem: `a volume named "${request.name}" exists and differs from what was asked`,
      found: differs.join('; '),
      action: 'use another name, or ask for what is there',
    });
  }
  return volume;
}

function sameContent(a: VolumeContent, b: VolumeContent): boolean {
  return describe(a) === describe(b);
}

function describe(content: VolumeContent): string {
  return content.kind === 'raw' ? 'raw block' : content.fsType;
}
