/** What a volume and an attachment are, free of wire types and of LVM. */

export const FS_TYPES = ['ext4', 'xfs'] as const;
export type FsType = (typeof FS_TYPES)[number];

/** CSI's VolumeCapability.AccessMode.Mode, the ones the driver knows. */
export const ACCESS_MODES = [
  'SINGLE_NODE_WRITER',
  'SINGLE_NODE_READER_ONLY',
  'MULTI_NODE_READER_ONLY',
  'MULTI_NODE_MULTI_WRITER',
  'SINGLE_NODE_SINGLE_WRITER',
  'SINGLE_NODE_MULTI_WRITER',
] as const;
export type AccessMode = (typeof ACCESS_MODES)[number];

export type VolumeAccess =
  | { readonly kind: 'block' }
  | {
      readonly kind: 'mount';
      /** As given by the client; '' when it left the choice to the driver. */
      readonly fsType: string;
      readonly mountFlags: readonly string[];
    };

export interface VolumeCapability {
  readonly access: VolumeAccess;
  readonly mode: AccessMode;
}

/** Bytes; 0 means "not given" (CSI's CapacityRange). */
export interface CapacityRange {
  readonly requiredBytes: number;
  readonly limitBytes: number;
}

/** What is on the device: a file system that the controller made, or bytes that belong to the user alone. */
export type VolumeContent = { readonly kind: 'filesystem'; readonly fsType: FsType } | { readonly kind: 'raw' };

export interface Attachment {
  /** CSI node name: attachments are keyed by it, never by the whole node id. */
  readonly nodeName: string;
  /** node_id as it was given at publish, byte for byte (ListVolumes returns it). */
  readonly nodeId: string;
  /** In lower case, as the target compares it. */
  readonly initiatorIqn: string;
  /** 32 hex digits, new for each attachment; changes only after an unpublish. */
  readonly nonce: string;
  readonly access: 'block' | 'mount';
  readonly mode: AccessMode;
  readonly readonly: boolean;
  /** The target does not let it in until it is published again, with the user's secrets (ListVolumes leaves it out). */
  readonly needsRepublish?: boolean;
  /** Where the CHAP credentials come from; for the attachment's whole life, whatever the controller's mode is by then. */
  readonly auth:
    | { readonly kind: 'none' }
    /** `mutual`: undefined in tags that do not tell; then it is as the controller's mode says. */
    | { readonly kind: 'derived'; readonly keyId: string; readonly mutual: boolean | undefined }
    | { readonly kind: 'user' };
}

export interface Volume {
  /** `volume-<uuid>`: the volume id and the LV's name. */
  readonly id: string;
  /** The CSI name that it was created under. */
  readonly name: string;
  /** Size of the LV and of the exported device. */
  readonly sizeBytes: number;
  /** 32 hex digits, random for each creation: the LUN's VPD serial (page 0x80). */
  readonly serial: string;
  readonly content: VolumeContent;
  readonly provisioning: 'thick' | 'thin';
  readonly attachments: readonly Attachment[];
}

/** Modes in which more than one node may hold the volume at a time. */
export function isMultiNode(mode: AccessMode): boolean {
  return mode === 'MULTI_NODE_READER_ONLY' || mode === 'MULTI_NODE_MULTI_WRITER';
}

/** More than one node may write at a time: they need a way to agree. */
export function sharesWrites(mode: AccessMode): boolean {
  return mode === 'MULTI_NODE_MULTI_WRITER';
}

export function isReaderOnly(mode: AccessMode): boolean {
  return mode === 'SINGLE_NODE_READER_ONLY' || mode === 'MULTI_NODE_READER_ONLY';
}
