/** Contract of the LVM adapter: what the rest of the driver knows of a volume group. Knows nothing of CSI. */
import type { ExtentRange } from './extents.ts';

export interface VolumeGroup {
  readonly name: string;
  readonly uuid: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
  readonly extentSizeBytes: number;
  readonly metadataSizeBytes: number;
  readonly metadataFreeBytes: number;
  readonly tags: readonly string[];
  /** PVs that LVM cannot find; above 0 the VG is partial and nothing may be changed or torn down. */
  readonly missingPvCount: number;
  readonly exported: boolean;
  /**
   * 32 hex digits that stand for the VG's physical space: its PVs' UUIDs and number of extents. vgextend, vgreduce and
   * pvresize change it; nothing that is done to LVs does. undefined while it is not known (a PV is missing).
   */
  readonly spaceId?: string | undefined;
}

export interface LogicalVolume {
  readonly name: string;
  readonly uuid: string;
  /** `/dev/<vg>/<lv>`. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly tags: readonly string[];
  /** Seconds since the epoch, by the clock of the host that made it; undefined when LVM has not recorded it. */
  readonly createdAt: number | undefined;
  readonly active: boolean;
  /** Some process or device-mapper device holds it open. */
  readonly open: boolean;
  readonly suspended: boolean;
  /** First segment's type: linear, striped, thin, thin-pool, snapshot… */
  readonly segmentType: string;
  readonly poolName: string | undefined;
  readonly originName: string | undefined;
  /** Where it lies, merged; none of a thin volume. */
  readonly extents: readonly ExtentRange[];
  /** Percent, of thin pools, thin volumes and thick snapshots. */
  readonly dataPercent: number | undefined;
  readonly metadataPercent: number | undefined;
}

export interface VgReport {
  readonly vg: VolumeGroup;
  /** Visible LVs only. */
  readonly lvs: readonly LogicalVolume[];
}

export type LvmErrorKind =
  | 'vg-not-found'
  | 'vg-partial'
  /** Its disks were not those that were known. Nothing has been allocated; asked again, it will be. */
  | 'vg-changed'
  /** There, but not ours to use: exported, of another system ID, its lock refused, or two of that name. */
  | 'vg-inaccessible'
  | 'lv-not-found'
  | 'lv-exists'
  | 'no-space'
  | 'metadata-full'
  | 'in-use'
  | 'invalid'
  | 'lvm-missing'
  /** The device did not take what was written to it. */
  | 'write-failed'
  | 'other';

/** A failed LVM command, classified by its message in one place (exit code 5 alone says nothing). */
export class LvmError extends Error {
  override readonly name = 'LvmError';
  readonly kind: LvmErrorKind;
  /** The message has LVM's own words: for the log, not for the client. */
  constructor(kind: LvmErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
  }
}

export interface TagChange {
  readonly add?: readonly string[];
  readonly remove?: readonly string[];
}

/** One volume group. Mutations are queued one after another; reads are coalesced and cached until the next mutation. */
export interface Lvm {
  readonly vgName: string;
  /** The whole VG in one command. `fresh`: do not use the cache (something else may have changed the VG). */
  read(options?: { fresh?: boolean }): Promise<VgReport>;
  /** Active, not zeroed, no signature wiped: what is on the extents is the caller's concern. Size is rounded up to extents. */
  createLinear(spec: { name: string; sizeBytes: number; tags: readonly string[] }): Promise<void>;
  changeTags(lvName: string, change: TagChange): Promise<void>;
  changeVgTags(change: TagChange): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Grows to at least sizeBytes (rounded up to extents); nothing to do when it is that large already. */
  extend(lvName: string, sizeBytes: number): Promise<void>;
  /** Removes them in one command; those already gone are no error. */
  remove(lvNames: readonly string[]): Promise<void>;
  /** Activates with -K -ay and checks that the device node is there. */
  activate(lvNames: readonly string[]): Promise<void>;
  deactivate(lvNames: readonly string[]): Promise<void>;
}
