/** Which kinds of volumes and settings csi-sanity is run with. */

export interface Combination {
  readonly name: string;
  readonly accessType: 'mount' | 'block';
  readonly what: string;
  readonly controllerOptions: readonly string[];
  /** StorageClass parameters of the volumes. */
  readonly parameters: Readonly<Record<string, string>>;
}

const plain = { controllerOptions: [], parameters: {} } as const;

export const COMBINATIONS: readonly Combination[] = [
  { ...plain, name: 'mount', accessType: 'mount', what: 'ext4, CHAP' },
  { ...plain, name: 'block', accessType: 'block', what: 'raw block, CHAP' },
  {
    ...plain,
    name: 'mount-xfs',
    accessType: 'mount',
    what: 'xfs, mutual CHAP',
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
