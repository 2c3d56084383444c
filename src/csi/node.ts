/** CSI Node service: wire requests to the node plugin's operations. */
import { DriverError } from '../errors.ts';
import type { NodeOperations, VolumeStats } from '../node/operations.ts';
import { userCredentials } from '../volumes/chap.ts';
import { decodePublishContext, type PublishContext } from '../volumes/publish-context.ts';
import {
  checkAbsolutePath,
  parseCapacity,
  requireAbsolutePath,
  requireCapability,
  requireText,
  requireVolumePath,
} from './fields.ts';
import { InFlight } from './in-flight.ts';
import type * as wire from './wire.ts';

const CAPABILITIES = ['STAGE_UNSTAGE_VOLUME', 'GET_VOLUME_STATS', 'EXPAND_VOLUME', 'SINGLE_NODE_MULTI_WRITER'] as const;

export interface NodeService {
  NodeStageVolume(request: wire.NodeStageVolumeRequest): Promise<wire.Empty>;
  NodeUnstageVolume(request: wire.NodeUnstageVolumeRequest): Promise<wire.Empty>;
  NodePublishVolume(request: wire.NodePublishVolumeRequest): Promise<wire.Empty>;
  NodeUnpublishVolume(request: wire.NodeUnpublishVolumeRequest): Promise<wire.Empty>;
  NodeGetVolumeStats(request: wire.NodeGetVolumeStatsRequest): Promise<wire.NodeGetVolumeStatsResponse>;
  NodeExpandVolume(request: wire.NodeExpandVolumeRequest): Promise<wire.NodeExpandVolumeResponse>;
  NodeGetCapabilities(request: wire.Empty): Promise<wire.CapabilitiesResponse<(typeof CAPABILITIES)[number]>>;
  NodeGetInfo(request: wire.Empty): Promise<wire.NodeGetInfoResponse>;
}

export interface NodeServiceOptions {
  readonly node: NodeOperations;
  /** What is accessible from here. */
  readonly topology: wire.WireTopology;
  /** Of InFlight. */
  readonly patienceMs?: number | undefined;
}

export function nodeService(options: NodeServiceOptions): NodeService {
  const { node, topology, patienceMs } = options;
  const inFlight = new InFlight(patienceMs);

  return {
    NodeStageVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const stagingPath = requireAbsolutePath('staging_target_path', request.staging_target_path);
      const capability = requireCapability('volume_capability', request.volume_capability);
      const publishContext = withUserSecrets(decodePublishContext(request.publish_context), request.secrets);
      return await inFlight.run(volumeId, 'NodeStageVolume', request, async () => {
        await node.stage({ volumeId, publishContext, stagingPath, capability });
        return {};
      });
    },

    NodeUnstageVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const stagingPath = requireAbsolutePath('staging_target_path', request.staging_target_path);
      return await inFlight.run(volumeId, 'NodeUnstageVolume', request, async () => {
        await node.unstage(volumeId, stagingPath);
        return {};
      });
    },

    NodePublishVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const targetPath = requireAbsolutePath('target_path', request.target_path);
      const capability = requireCapability('volume_capability', request.volume_capability);
      const stagingPath = requireStagingPath(volumeId, request.staging_target_path);
      const { readonly } = request;
      return await inFlight.run(volumeId, 'NodePublishVolume', request, async () => {
        await node.publish({ volumeId, stagingPath, targetPath, capability, readonly });
        return {};
      });
    },

    NodeUnpublishVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const targetPath = requireAbsolutePath('target_path', request.target_path);
      return await inFlight.run(volumeId, 'NodeUnpublishVolume', request, async () => {
        await node.unpublish(volumeId, targetPath);
        return {};
      });
    },

    NodeGetVolumeStats: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const volumePath = requireVolumePath(volumeId, request.volume_path);
      return { usage: usage(await node.stats(volumeId, volumePath, optionalPath(request.staging_target_path))) };
    },

    NodeExpandVolume: async (request) => {
      const volumeId = requireText('volume_id', request.volume_id);
      const volumePath = requireVolumePath(volumeId, request.volume_path);
      const { requiredBytes } = parseCapacity(request.capacity_range);
      const stagingPath = optionalPath(request.staging_target_path);
      // The device tells block from mount; a capability is checked for its form alone.
      if (request.volume_capability !== null) requireCapability('volume_capability', request.volume_capability);
      return await inFlight.run(volumeId, 'NodeExpandVolume', request, async () => ({
        capacity_bytes: await node.expand({ volumeId, volumePath, stagingPath, requiredBytes }),
      }));
    },

    NodeGetCapabilities: async () => ({ capabilities: CAPABILITIES.map((type) => ({ rpc: { type } })) }),

    NodeGetInfo: async () => {
      const { nodeId, maxVolumes } = await node.info();
      return { node_id: nodeId, max_volumes_per_node: maxVolumes, accessible_topology: topology };
    },
  };
}

/** A user's own CHAP credentials do not travel in publish_context: the node stage secret brings them. */
function withUserSecrets(context: PublishContext, secrets: wire.StringMap): PublishContext {
  if (context.authentication !== 'user') return context;
  const given = userCredentials(secrets);
  if (given !== undefined) return { ...context, chap: given.chap, mutualChap: given.mutual };
  throw new DriverError('INVALID_ARGUMENT', {
    problem: "the volume was published with the user's own CHAP credentials, and NodeStageVolume has none",
    found: `secret keys ${Object.keys(secrets).sort().join(', ') || '(none)'}`,
    action:
      'name one secret in the StorageClass as csi.storage.k8s.io/controller-publish-secret-name and csi.storage.k8s.io/node-stage-secret-name',
  });
}

/** CSI specification, NodePublishVolume: FAILED_PRECONDITION when staging is claimed and the path is not set. */
function requireStagingPath(volumeId: string, value: string): string {
  if (value === '') {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be published: staging_target_path is missing`,
      action: 'call NodeStageVolume first, and pass the path of that call',
    });
  }
  checkAbsolutePath('staging_target_path', value);
  return value;
}

function optionalPath(value: string): string | undefined {
  if (value === '') return undefined;
  checkAbsolutePath('staging_target_path', value);
  return value;
}

function usage(stats: VolumeStats): wire.VolumeUsage[] {
  if (stats.kind === 'block') return [{ unit: 'BYTES', total: stats.totalBytes }];
  return [
    { unit: 'BYTES', total: stats.totalBytes, available: stats.availableBytes, used: stats.usedBytes },
    { unit: 'INODES', total: stats.totalInodes, available: stats.freeInodes, used: stats.usedInodes },
  ];
}
