/** Which kinds of volumes and settings csi-sanity is run with, and what it may leave out there. */
import type { Skips } from './expected.ts';
import { PENDING } from './junit.ts';

export interface Combination {
  readonly name: string;
  readonly accessType: 'mount' | 'block';
  readonly what: string;
  readonly controllerOptions: readonly string[];
  /** Kept small: free extents are not scrubbed first, so that each new volume is zeroed whole, and wiped afterwards. */
  readonly volumeSizeBytes: number;
  readonly expandedSizeBytes: number;
  /** StorageClass parameters of the volumes. */
  readonly parameters: Readonly<Record<string, string>>;
  /** Exactly these specs are skipped. */
  readonly skips: Skips;
}

/** All specs of csi-sanity's VERSION (tool.ts), whatever the driver can do: `csi-sanity -ginkgo.dry-run` tells. */
export const SPECS = 96;

/**
 * What the driver cannot do yet. No reason in csi-sanity depends on the access type or on the driver's options, only on
 * the capabilities that the driver tells: one that gets lost, or a new one, shows as another number here.
 */
const NOT_YET: Skips = {
  'Snapshot not supported': 2,
  'CreateSnapshot not supported': 5,
  'DeleteSnapshot not supported': 3,
  'GetSnapshot not supported': 3,
  'ListSnapshots not supported': 7,
  'Volume Cloning not supported': 2,
  'GroupControllerService not supported': 6,
  'ControllerModifyVolume not supported': 6,
  // CreateVolume with a volume attribute class, spelt in two ways.
  'Modify volume not supported': 1,
  'Modify Volume not supported': 1,
  [PENDING]: 1,
};

const MIB = 1024 ** 2;
const plain = {
  controllerOptions: [],
  parameters: {},
  skips: NOT_YET,
  volumeSizeBytes: 32 * MIB,
  expandedSizeBytes: 48 * MIB,
} as const;

export const COMBINATIONS: readonly Combination[] = [
  { ...plain, name: 'mount', accessType: 'mount', what: 'ext4, CHAP' },
  { ...plain, name: 'block', accessType: 'block', what: 'raw block, CHAP' },
  {
    ...plain,
    name: 'mount-xfs',
    accessType: 'mount',
    what: 'xfs, mutual CHAP',
    // mkfs.xfs refuses less than 300 MiB.
    volumeSizeBytes: 320 * MIB,
    expandedSizeBytes: 384 * MIB,
    controllerOptions: ['--default-fs-type=xfs', '--chap=mutual'],
  },
  {
    ...plain,
    name: 'block-no-chap',
    accessType: 'block',
    what: 'raw block, no CHAP',
    controllerOptions: ['--chap=off'],
  },
];

/** Without flags: one for each way in which a pod can have a volume. */
export const DEFAULT_COMBINATIONS: readonly string[] = ['mount', 'block'];

/** So that the spec about the attach limit does not need hundreds of volumes. */
export const ATTACH_LIMIT = 3;
