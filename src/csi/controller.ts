/** CSI Controller service: wire requests to backend calls. What a volume is and how it is made is the backend's. */
import { DriverError } from '../errors.ts';
import type { Backend } from '../volumes/backend.ts';
import type { Volume } from '../volumes/model.ts';
import { encodePublishContext } from '../volumes/publish-context.ts';
import {
  missing,
  parseCapability,
  parseCapacity,
  requireCapabilities,
  requireCapability,
  requireCapacity,
  requireText,
} from './fields.ts';
import { InFlight } from './in-flight.ts';
import { page } from './paging.ts';
import { isWithin } from './topology.ts';
import type * as wire from './wire.ts';

const CAPABILITIES = [
  'CREATE_DELETE_VOLUME',
  'PUBLISH_UNPUBLISH_VOLUME',
  'LIST_VOLUMES',
  'LIST_VOLUMES_PUBLISHED_NODES',
  'GET_CAPACITY',
  'EXPAND_VOLUME',
  'GET_VOLUME',
  'SINGLE_NODE_MULTI_WRITER',
  'PUBLISH_READONLY',
] as const;

export interface ControllerOptions {
  readonly backend: Backend;
  /** Where every volume is accessible. */
  readonly topology: wire.WireTopology;
  /** The id that CreateVolume will give: creation and deletion of one volume then exclude each other. */
  readonly volumeIdForName: (name: string) => string;
  /** Of InFlight. */
  readonly patienceMs?: number | undefined;
}

export interface ControllerService {
  CreateVolume(request: wire.CreateVolumeRequest): Promise<wire.CreateVolumeResponse>;
  DeleteVolume(request: wire.DeleteVolumeRequest): Promise<wire.Empty>;
  ControllerPublishVolume(request: wire.ControllerPublishVolumeRequest): Promise<wire.ControllerPublishVolumeResponse>;
  ControllerUnpublishVolume(request: wire.ControllerUnpublishVolumeRequest): Promise<wire.Empty>;
  ValidateVolumeCapabilities(
    request: wire.ValidateVolumeCapabilitiesRequest,
  ): Promise<wire.ValidateVolumeCapabilitiesResponse>;
  ListVolumes(request: wire.ListVolumesRequest): Promise<wire.ListVolumesResponse>;
  GetCapacity(request: wire.GetCapacityRequest): Promise<wire.GetCapacityResponse>;
  ControllerGetCapabilities(request: wire.Empty): Promise<wire.CapabilitiesResponse<(typeof CAPABILITIES)[number]>>;
  ControllerExpandVolume(request: wire.ControllerExpandVolumeRequest): Promise<wire.ControllerExpandVolumeResponse>;
  ControllerGetVolume(request: wire.ControllerGetVolumeRequest): Promise<wire.ControllerGetVolumeResponse>;
  CreateSnapshot(request: wire.Empty): Promise<never>;
  DeleteSnapshot(request: wire.Empty): Promise<never>;
  ListSnapshots(request: wire.Empty): Promise<never>;
  GetSnapshot(request: wire.Empty): Promise<never>;
  ControllerModifyVolume(request: wire.Empty): Promise<never>;
}

export function controllerService(options: ControllerOptions): ControllerService {
  const { backend, topology, patienceMs } = options;
  const inFlight = new InFlight(patienceMs);

  return {
    CreateVolume: async (request) => {
      const name = requireText('name', request.name);
      const capabilities = requireCapabilities(request.volume_capabilities);
      const capacity = parseCapacity(request.capacity_range);
      const source = parseSource(request.volume_content_source);
      refuseMutableParameters(request.mutable_parameters);
      refuseElsewhere(request.accessibility_requirements, topology);
      const { parameters } = request;
      const key = options.volumeIdForName(name);
      return await inFlight.run(key, 'CreateVolume', request, async () => ({
        volume: wireVolume(await backend.createVolume({ name, capacity, capabilities, parameters, source }), topology),
      }));
    },

    DeleteVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      return await inFlight.run(volumeId, 'DeleteVolume', request, async () => {
        await backend.deleteVolume(volumeId);
        return {};
      });
    },

    ControllerPublishVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const nodeId = requireText('node_id', request.node_id);
      const capability = requireCapability('volume_capability', request.volume_capability);
      const { readonly, secrets } = request;
      return await inFlight.run(volumeId, 'ControllerPublishVolume', request, async () => ({
        publish_context: encodePublishContext(
          await backend.publishVolume({ volumeId, nodeId, capability, readonly, secrets }),
        ),
      }));
    },

    ControllerUnpublishVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      return await inFlight.run(volumeId, 'ControllerUnpublishVolume', request, async () => {
        await backend.unpublishVolume(volumeId, request.node_id);
        return {};
      });
    },

    ValidateVolumeCapabilities: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      if (request.volume_capabilities.length === 0) throw missing('volume_capabilities');
      const parsed = request.volume_capabilities.map((capability, index) =>
        parseCapability(`volume_capabilities[${index}]`, capability),
      );
      const volume = await existingVolume(backend, volumeId);
      const capabilities = parsed.flatMap((each) => (each.supported ? [each.capability] : []));
      const problem =
        parsed.flatMap((each) => (each.supported ? [] : [each.problem]))[0] ??
        backend.capabilityProblem(volume, capabilities) ??
        parameterProblem(backend, request.parameters) ??
        mutableParameterProblem(request.mutable_parameters);
      if (problem !== undefined) return { message: problem };
      const { volume_context, volume_capabilities, parameters, mutable_parameters } = request;
      return { confirmed: { volume_context, volume_capabilities, parameters, mutable_parameters } };
    },

    ListVolumes: async (request) => {
      // An impossible request is refused before the volume group is read.
      page([], request.max_entries, request.starting_token);
      const { entries, nextToken } = page(await backend.listVolumes(), request.max_entries, request.starting_token);
      return {
        entries: entries.map((volume) => ({ volume: wireVolume(volume, topology), status: volumeStatus(volume) })),
        next_token: nextToken,
      };
    },

    GetCapacity: async (request) => {
      const parsed = request.volume_capabilities.map((capability, index) =>
        parseCapability(`volume_capabilities[${index}]`, capability),
      );
      const capabilities = parsed.flatMap((each) => (each.supported ? [each.capability] : []));
      const { accessible_topology: place } = request;
      if (place !== null && !isWithin(place, topology)) return { available_capacity: 0 };
      // "The Plugin SHALL return the capacity … for volumes of the given capabilities": none can be made of these.
      if (capabilities.length < parsed.length || backend.capabilityProblem(undefined, capabilities) !== undefined) {
        return { available_capacity: 0 };
      }
      const capacity = await backend.capacity(request.parameters, capabilities);
      return {
        available_capacity: capacity.availableBytes,
        maximum_volume_size: { value: capacity.maximumVolumeSizeBytes },
        minimum_volume_size: { value: capacity.minimumVolumeSizeBytes },
      };
    },

    ControllerGetCapabilities: async () => ({ capabilities: CAPABILITIES.map((type) => ({ rpc: { type } })) }),

    ControllerExpandVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const capacity = requireCapacity(request.capacity_range);
      const capability =
        request.volume_capability === null
          ? undefined
          : requireCapability('volume_capability', request.volume_capability);
      return await inFlight.run(volumeId, 'ControllerExpandVolume', request, async () => {
        const result = await backend.expandVolume(volumeId, capacity, capability);
        return { capacity_bytes: result.sizeBytes, node_expansion_required: result.nodeExpansionRequired };
      });
    },

    ControllerGetVolume: async (request) => {
      const volume = await existingVolume(backend, requireText('volume_id', request.volume_id));
      return { volume: wireVolume(volume, topology), status: volumeStatus(volume) };
    },

    CreateSnapshot: async () => notYet('snapshots'),
    DeleteSnapshot: async () => notYet('snapshots'),
    ListSnapshots: async () => notYet('snapshots'),
    GetSnapshot: async () => notYet('snapshots'),
    ControllerModifyVolume: async () => notYet('mutable parameters (VolumeAttributesClass)'),
  };
}

async function existingVolume(backend: Backend, volumeId: string): Promise<Volume> {
  const volume = await backend.getVolume(volumeId);
  if (volume !== undefined) return volume;
  throw new DriverError('NOT_FOUND', {
    problem: `volume ${JSON.stringify(volumeId)} does not exist`,
    action: 'check the volume id; a deleted volume does not come back',
  });
}

function wireVolume(volume: Volume, topology: wire.WireTopology): wire.WireVolume {
  // No volume_context: what a node needs is in publish_context, and what a PV stores cannot be changed later.
  return { capacity_bytes: volume.sizeBytes, volume_id: volume.id, accessible_topology: [topology] };
}

function volumeStatus(volume: Volume): wire.WireVolumeStatus {
  // One that is left out is published again by the attacher: the only way to get its secrets once more.
  const published = volume.attachments.filter((attachment) => attachment.needsRepublish !== true);
  return { published_node_ids: published.map((attachment) => attachment.nodeId) };
}

/**
 * CSI specification, CreateVolume: where the requisite places cannot be met, RESOURCE_EXHAUSTED. One that can is enough;
 * what is preferred among several needs no look, since there is but one to choose.
 */
function refuseElsewhere(requirements: wire.TopologyRequirement | null, topology: wire.WireTopology): void {
  const asked = requirements?.requisite ?? [];
  if (asked.length === 0 || asked.some((place) => isWithin(place, topology))) return;
  throw new DriverError('RESOURCE_EXHAUSTED', {
    problem: 'no volume can be made that is accessible where it is required',
    found: `required ${asked.map(({ segments }) => JSON.stringify(segments)).join(' or ')}; volumes are accessible in ${JSON.stringify(topology.segments)}`,
    action: "leave out the StorageClass's allowedTopologies, or name that one there",
  });
}

/** Snapshots and clones come with their own capabilities; until then a source is refused, never ignored. */
function parseSource(source: wire.WireContentSource | null): undefined {
  if (source === null) return undefined;
  throw new DriverError('INVALID_ARGUMENT', {
    problem: 'volume_content_source is not supported: this driver cannot yet make a volume from a snapshot or a volume',
    action: 'create an empty volume and copy the data',
  });
}

function parameterProblem(backend: Backend, parameters: wire.StringMap): string | undefined {
  try {
    backend.checkParameters(parameters);
    return undefined;
  } catch (error) {
    if (error instanceof DriverError && error.code === 'INVALID_ARGUMENT') return error.message;
    throw error;
  }
}

function refuseMutableParameters(parameters: wire.StringMap): void {
  const problem = mutableParameterProblem(parameters);
  if (problem !== undefined) throw new DriverError('INVALID_ARGUMENT', problem);
}

function mutableParameterProblem(parameters: wire.StringMap): string | undefined {
  const keys = Object.keys(parameters);
  return keys.length === 0
    ? undefined
    : `mutable_parameters (VolumeAttributesClass) are not supported; found: ${keys.join(', ')}; to do: leave them out`;
}

function notYet(what: string): never {
  throw new DriverError('UNIMPLEMENTED', `this driver does not support ${what} yet, and does not claim to`);
}
