/** Which kinds of volumes and settings csi-sanity is run with. */

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
}

const MIB = 1024 ** 2;
const plain = {
  controllerOptions: [],
  parameters: {},
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
