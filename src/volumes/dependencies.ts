/** What the LVM backend is built from: adapters, and the few things that it needs of the rest of the driver. */
import type { ControllerConfig } from '../config/types.ts';
import type { Gates } from '../gate/types.ts';
import type { Targets } from '../iscsi/target/types.ts';
import type { GrowthRange } from '../lvm/awaited-zeroing.ts';
import type { Lvm, VgReport } from '../lvm/types.ts';
import type { ChapKeys } from './chap.ts';
import type { FsType } from './model.ts';

/** Deleted volumes on their way out. */
export interface WipeQueue {
  /** There may be new work. */
  wake(): void;
  /** What still waits, in bytes, and an estimate in seconds (undefined: not known yet). */
  backlog(): { readonly bytes: number; readonly etaSeconds: number | undefined };
}

export interface BackendDependencies {
  readonly config: ControllerConfig;
  readonly lvm: Lvm;
  readonly gates: Gates;
  readonly targets: Targets;
  /** undefined: there are none, and CHAP is off. With CHAP off there may be some, for attachments made before. */
  readonly chapKeys: ChapKeys | undefined;
  readonly wipeQueue: WipeQueue;
  /** What this VG's free extents are all zeros by; undefined when they are not known to be (blankness.ts). */
  readonly blankMark: (report: VgReport) => string | undefined;
  /** Writes zeros to the whole device of a new volume and flushes it; bytes. */
  readonly zeroNew: (devicePath: string, lengthBytes: number) => Promise<void>;
  /** Writes zeros to what an expansion has added, in segments that are recorded. */
  readonly zeroGrowth: (range: GrowthRange) => Promise<void>;
  /** Makes the file system on an LV that was never handed out, and flushes it. */
  readonly makeFileSystem: (devicePath: string, fsType: FsType) => Promise<void>;
}
