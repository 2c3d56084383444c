/**
 * Wire messages as the handlers see them: field names as in the specification, int64 as number (checked by
 * incoming.ts), enums by name, absent messages null, other absent fields empty. Responses may leave fields out.
 */

export type StringMap = Readonly<Record<string, string>>;
export type Empty = Readonly<Record<never, never>>;

export interface WireCapacityRange {
  readonly required_bytes: number;
  readonly limit_bytes: number;
}

export interface WireMountVolume {
  readonly fs_type: string;
  readonly mount_flags: readonly string[];
  readonly volume_mount_group: string;
}

/** At most one of `block` and `mount` is there. */
export interface WireVolumeCapability {
  readonly block?: Empty | null;
  readonly mount?: WireMountVolume | null;
  readonly access_mode: { readonly mode: string } | null;
}

export interface WireContentSource {
  readonly snapshot?: { readonly snapshot_id: string } | null;
  readonly volume?: { readonly volume_id: string } | null;
}

export interface WireTopology {
  readonly segments: StringMap;
}

export interface TopologyRequirement {
  readonly requisite: readonly WireTopology[];
  readonly preferred: readonly WireTopology[];
}

export interface WireVolume {
  readonly capacity_bytes: number;
  readonly volume_id: string;
  readonly volume_context?: StringMap;
  readonly content_source?: WireContentSource;
  readonly accessible_topology?: readonly WireTopology[];
}

// Identity

export interface GetPluginInfoResponse {
  readonly name: string;
  readonly vendor_version: string;
  readonly manifest?: StringMap;
}

export type PluginCapability =
  | {
      readonly service: {
        readonly type: 'CONTROLLER_SERVICE' | 'GROUP_CONTROLLER_SERVICE' | 'VOLUME_ACCESSIBILITY_CONSTRAINTS';
      };
    }
  | { readonly volume_expansion: { readonly type: 'ONLINE' | 'OFFLINE' } };

export interface GetPluginCapabilitiesResponse {
  readonly capabilities: readonly PluginCapability[];
}

export interface ProbeResponse {
  readonly ready: { readonly value: boolean };
}

// Controller

export interface CreateVolumeRequest {
  readonly name: string;
  readonly capacity_range: WireCapacityRange | null;
  readonly volume_capabilities: readonly WireVolumeCapability[];
  readonly parameters: StringMap;
  readonly secrets: StringMap;
  readonly volume_content_source: WireContentSource | null;
  readonly accessibility_requirements: TopologyRequirement | null;
  readonly mutable_parameters: StringMap;
}

export interface CreateVolumeResponse {
  readonly volume: WireVolume;
}

export interface DeleteVolumeRequest {
  readonly volume_id: string;
  readonly secrets: StringMap;
}

export interface ControllerPublishVolumeRequest {
  readonly volume_id: string;
  readonly node_id: string;
  readonly volume_capability: WireVolumeCapability | null;
  readonly readonly: boolean;
  readonly secrets: StringMap;
  readonly volume_context: StringMap;
}

export interface ControllerPublishVolumeResponse {
  readonly publish_context: StringMap;
}

export interface ControllerUnpublishVolumeRequest {
  readonly volume_id: string;
  readonly node_id: string;
  readonly secrets: StringMap;
}

export interface ValidateVolumeCapabilitiesRequest {
  readonly volume_id: string;
  readonly volume_context: StringMap;
  readonly volume_capabilities: readonly WireVolumeCapability[];
  readonly parameters: StringMap;
  readonly secrets: StringMap;
  readonly mutable_parameters: StringMap;
}

export interface ValidateVolumeCapabilitiesResponse {
  readonly confirmed?: {
    readonly volume_context: StringMap;
    readonly volume_capabilities: readonly WireVolumeCapability[];
    readonly parameters: StringMap;
    readonly mutable_parameters: StringMap;
  };
  readonly message?: string;
}

export interface ListVolumesRequest {
  readonly max_entries: number;
  readonly starting_token: string;
}

export interface WireVolumeStatus {
  readonly published_node_ids: readonly string[];
}

export interface ListVolumesResponse {
  readonly entries: readonly { readonly volume: WireVolume; readonly status: WireVolumeStatus }[];
  readonly next_token: string;
}

export interface ControllerGetVolumeRequest {
  readonly volume_id: string;
}

export interface ControllerGetVolumeResponse {
  readonly volume: WireVolume;
  readonly status: WireVolumeStatus;
}

export interface GetCapacityRequest {
  readonly volume_capabilities: readonly WireVolumeCapability[];
  readonly parameters: StringMap;
  readonly accessible_topology: WireTopology | null;
}

export interface GetCapacityResponse {
  readonly available_capacity: number;
  readonly maximum_volume_size?: { readonly value: number };
  readonly minimum_volume_size?: { readonly value: number };
}

export interface RpcCapability<Type extends string> {
  readonly rpc: { readonly type: Type };
}

export interface CapabilitiesResponse<Type extends string> {
  readonly capabilities: readonly RpcCapability<Type>[];
}

export interface ControllerExpandVolumeRequest {
  readonly volume_id: string;
  readonly capacity_range: WireCapacityRange | null;
  readonly secrets: StringMap;
  readonly volume_capability: WireVolumeCapability | null;
}

export interface ControllerExpandVolumeResponse {
  readonly capacity_bytes: number;
  readonly node_expansion_required: boolean;
}

// Node

export interface NodeStageVolumeRequest {
  readonly volume_id: string;
  readonly publish_context: StringMap;
  readonly staging_target_path: string;
  readonly volume_capability: WireVolumeCapability | null;
  readonly secrets: StringMap;
  readonly volume_context: StringMap;
}

export interface NodeUnstageVolumeRequest {
  readonly volume_id: string;
  readonly staging_target_path: string;
}

export interface NodePublishVolumeRequest {
  readonly volume_id: string;
  readonly publish_context: StringMap;
  readonly staging_target_path: string;
  readonly target_path: string;
  readonly volume_capability: WireVolumeCapability | null;
  readonly readonly: boolean;
  readonly secrets: StringMap;
  readonly volume_context: StringMap;
}

export interface NodeUnpublishVolumeRequest {
  readonly volume_id: string;
  readonly target_path: string;
}

export interface NodeGetVolumeStatsRequest {
  readonly volume_id: string;
  readonly volume_path: string;
  readonly staging_target_path: string;
}

export interface VolumeUsage {
  readonly unit: 'BYTES' | 'INODES';
  readonly total: number;
  readonly available?: number;
  readonly used?: number;
}

export interface NodeGetVolumeStatsResponse {
  readonly usage: readonly VolumeUsage[];
}

export interface NodeExpandVolumeRequest {
  readonly volume_id: string;
  readonly volume_path: string;
  readonly capacity_range: WireCapacityRange | null;
  readonly staging_target_path: string;
  readonly volume_capability: WireVolumeCapability | null;
  readonly secrets: StringMap;
}

export interface NodeExpandVolumeResponse {
  readonly capacity_bytes: number;
}

export interface NodeGetInfoResponse {
  readonly node_id: string;
  readonly max_volumes_per_node: number;
  readonly accessible_topology: WireTopology;
}
