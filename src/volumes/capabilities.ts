/** Which capabilities go with which volume: rules of the CSI specification and of file systems on shared disks. */
import { DriverError } from '../errors.ts';
import {
  type AccessMode,
  FS_TYPES,
  type FsType,
  isReaderOnly,
  type Volume,
  type VolumeCapability,
  type VolumeContent,
} from './model.ts';

/** Why this capability can't be served by any volume, or undefined. */
export function capabilityProblem(capability: VolumeCapability): string | undefined {
  const { access, mode } = capability;
  if (access.kind === 'mount') {
    if (access.fsType !== '' && !isFsType(access.fsType)) {
      return `file system type "${access.fsType}" is not supported; use one of ${FS_TYPES.join(', ')}, or volumeMode Block`;
    }
    if (mode === 'MULTI_NODE_MULTI_WRITER') {
      return 'access mode MULTI_NODE_MULTI_WRITER with a file system: ext4 and xfs are destroyed when two nodes mount them for writing; use volumeMode Block, or ReadWriteOnce';
    }
  }
  return undefined;
}

/** Why the volume can't be used so, or undefined. */
export function capabilityProblemOf(volume: Volume, capability: VolumeCapability): string | undefined {
  const problem = capabilityProblem(capability);
  if (problem !== undefined) return problem;
  const { access } = capability;
  if (access.kind === 'block') {
    if (volume.content.kind === 'filesystem') {
      return `volume ${volume.id} holds a file system (${volume.content.fsType}) made for mounting, and block access was asked for; create a volume with volumeMode Block`;
    }
    return undefined;
  }
  if (volume.content.kind === 'raw') {
    return `volume ${volume.id} was created for block access and has no file system of the driver's, and a mount was asked for; create a volume with volumeMode Filesystem`;
  }
  if (access.fsType !== '' && access.fsType !== volume.content.fsType) {
    return `volume ${volume.id} holds ${volume.content.fsType}, and ${access.fsType} was asked for; ask for ${volume.content.fsType} (fsType of the PersistentVolume), or create a volume with ${access.fsType} and copy the data`;
  }
  return undefined;
}

/**
 * What to put on a new volume.
 * @throws DriverError INVALID_ARGUMENT
 */
export function contentFor(capabilities: readonly VolumeCapability[], defaultFsType: FsType): VolumeContent {
  const problems = capabilities.map(capabilityProblem).filter((problem) => problem !== undefined);
  if (problems[0] !== undefined) throw new DriverError('INVALID_ARGUMENT', problems[0]);
  const kinds = new Set(
    capabilities.map(({ access }) =>
      access.kind === 'block' ? 'block' : access.fsType === '' ? defaultFsType : access.fsType,
    ),
  );
  const [kind, ...others] = kinds;
  if (kind === undefined || others.length > 0) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: 'volume_capabilities ask for different contents of one volume',
      found: [...kinds].join(' and '),
      action: 'ask for block access or for one file system type',
    });
  }
  return kind === 'block' ? { kind: 'raw' } : { kind: 'filesystem', fsType: kind as FsType };
}

/**
 * Modes that say the same to the controller: SINGLE_NODE_WRITER is the older name of SINGLE_NODE_MULTI_WRITER, and the
 * difference to SINGLE_NODE_SINGLE_WRITER is the node's and kubelet's business, not the target's.
 */
export function modeClass(mode: AccessMode): string {
  return mode === 'SINGLE_NODE_WRITER' ? 'SINGLE_NODE_MULTI_WRITER' : mode;
}

export function isReadonlyAttachment(capability: VolumeCapability, readonly: boolean): boolean {
  return readonly || isReaderOnly(capability.mode);
}

function isFsType(value: string): value is FsType {
  return (FS_TYPES as readonly string[]).includes(value);
}
