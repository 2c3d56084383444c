/** Options of the staging mount. */
import { DriverError } from '../errors.ts';
import type { FsType } from '../volumes/model.ts';

/** Flags with which mount(8) does something else than to mount this device as asked. */
const REFUSED =
  /^(bind|rbind|move|remount|(make-)?r?(shared|slave|private|unbindable)|loop|offset|sizelimit|u?helper|nofail|x-.*|X-.*)(=.*)?$/;

/**
 * `_netdev`: systemd unmounts it before the network and iscsid stop, so that a shutdown cannot hang in it.
 * XFS refuses a second file system with the same UUID (a clone on the same node) without `nouuid`.
 * Reading alone never writes, not even a journal's replay: another node may be reading the same blocks.
 */
export function stagingOptions(spec: {
  readonly fsType: FsType;
  readonly mountFlags: readonly string[];
  readonly readOnly: boolean;
}): string[] {
  const options = ['_netdev', ...(spec.fsType === 'xfs' ? ['nouuid'] : []), ...spec.mountFlags];
  if (!spec.readOnly) return options;
  return [...options.filter((option) => option !== 'rw'), 'ro', spec.fsType === 'xfs' ? 'norecovery' : 'noload'];
}

/** Binds keep the mark: a superblock lives as long as its last mount, and that one must not outlast the network either. */
export const BIND_OPTIONS: readonly string[] = ['_netdev'];

/** @throws DriverError INVALID_ARGUMENT */
export function checkMountFlags(flags: readonly string[]): void {
  for (const flag of flags.flatMap((item) => item.split(','))) {
    if (flag === '' || /[\s\0]/.test(flag) || REFUSED.test(flag)) {
      throw new DriverError('INVALID_ARGUMENT', {
        problem: `mount flag ${JSON.stringify(flag)} cannot be used for a volume`,
        action: 'remove it from the StorageClass or PersistentVolume (mountOptions)',
      });
    }
  }
}
