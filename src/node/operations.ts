/** The interface between the CSI Node service and the node plugin's work. All methods throw DriverError; all are idempotent. */
import type { ProbeResult } from '../volumes/backend.ts';
import type { VolumeCapability } from '../volumes/model.ts';
import type { PublishContext } from '../volumes/publish-context.ts';

export interface StageRequest {
  readonly volumeId: string;
  readonly publishContext: PublishContext;
  readonly stagingPath: string;
  readonly capability: VolumeCapability;
}

export interface NodePublishRequest {
  readonly volumeId: string;
  readonly stagingPath: string;
  readonly targetPath: string;
  readonly capability: VolumeCapability;
  readonly readonly: boolean;
}

export interface NodeExpandRequest {
  readonly volumeId: string;
  readonly volumePath: string;
  readonly stagingPath: string | undefined;
  /** 0: as large as the device is. */
  readonly requiredBytes: number;
}

export type VolumeStats =
  | { readonly kind: 'block'; readonly totalBytes: number }
  | {
      readonly kind: 'mount';
      readonly totalBytes: number;
      readonly availableBytes: number;
      readonly usedBytes: number;
      readonly totalInodes: number;
      readonly freeInodes: number;
      readonly usedInodes: number;
    };

export interface NodeInfo {
  /** `<node name>/<initiator IQN>`, see src/volumes/node-id.ts; at most 192 bytes. */
  readonly nodeId: string;
  /** 0: no limit told. */
  readonly maxVolumes: number;
}

export interface NodeOperations {
  probe(): Promise<ProbeResult>;
  info(): Promise<NodeInfo>;
  stage(request: StageRequest): Promise<void>;
  unstage(volumeId: string, stagingPath: string): Promise<void>;
  publish(request: NodePublishRequest): Promise<void>;
  unpublish(volumeId: string, targetPath: string): Promise<void>;
  stats(volumeId: string, volumePath: string, stagingPath: string | undefined): Promise<VolumeStats>;
  /** The size of the device (block) or file system's device after growing, in bytes. */
  expand(request: NodeExpandRequest): Promise<number>;
}
