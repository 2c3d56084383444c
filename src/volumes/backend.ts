/**
 * The interface between the CSI services and whatever holds the volume group. The services never know whether it is in
 * this process (LvmBackend) or, one day, an agent on another storage host.
 * All methods throw DriverError with the code that the CSI specification asks for; all are idempotent.
 */
import type { CapacityRange, Volume, VolumeCapability } from './model.ts';
import type { PublishContext } from './publish-context.ts';

export interface CreateVolumeRequest {
  readonly name: string;
  readonly capacity: CapacityRange;
  readonly capabilities: readonly VolumeCapability[];
  /** StorageClass parameters as given; the backend refuses unknown keys by name. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly source: { readonly kind: 'snapshot' | 'volume'; readonly id: string } | undefined;
}

export interface PublishRequest {
  readonly volumeId: string;
  readonly nodeId: string;
  readonly capability: VolumeCapability;
  readonly readonly: boolean;
  /** Secrets of the call (StorageClass publish secret): CHAP credentials from the user. Never logged. */
  readonly secrets: Readonly<Record<string, string>>;
}

export interface ExpandResult {
  readonly sizeBytes: number;
  /** True whenever the volume is attached: the node must at least look at the device again. */
  readonly nodeExpansionRequired: boolean;
}

export interface Capacity {
  readonly availableBytes: number;
  readonly maximumVolumeSizeBytes: number;
  readonly minimumVolumeSizeBytes: number;
}

export interface ProbeResult {
  readonly ready: boolean;
  /** When not ready: each reason with what to do, e.g. `volume group "cinder-volumes" not found: …`. */
  readonly reasons: readonly string[];
}

export interface Backend {
  probe(): Promise<ProbeResult>;
  createVolume(request: CreateVolumeRequest): Promise<Volume>;
  deleteVolume(volumeId: string): Promise<void>;
  /** undefined when there is no such volume. */
  getVolume(volumeId: string): Promise<Volume | undefined>;
  /** Sorted by id. */
  listVolumes(): Promise<Volume[]>;
  expandVolume(
    volumeId: string,
    capacity: CapacityRange,
    capability: VolumeCapability | undefined,
  ): Promise<ExpandResult>;
  publishVolume(request: PublishRequest): Promise<PublishContext>;
  /** Empty nodeId: from all nodes. OK when not attached or the volume is gone. */
  unpublishVolume(volumeId: string, nodeId: string): Promise<void>;
  capacity(parameters: Readonly<Record<string, string>>, capabilities: readonly VolumeCapability[]): Promise<Capacity>;
  /** Why these cannot be used with the volume (or with any, when it is undefined), or undefined when they can. */
  capabilityProblem(volume: Volume | undefined, capabilities: readonly VolumeCapability[]): string | undefined;
  /** Throws INVALID_ARGUMENT naming unknown or malformed parameters. */
  checkParameters(parameters: Readonly<Record<string, string>>): void;
}
