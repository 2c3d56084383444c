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
  /** From mountOptions. */
  readonly mountFlags: readonly string[];
  readonly readOnly: boolean;
}): string[] {
  const options = ['_netdev', ...(spec.fsType === 'xfs' ? ['nouuid'] : []), ...spec.mountFlags];
  if (!spec.readOnly) return options;
  return [...options.filter((option) => option !== 'rw'), 'ro', spec.fsType === 'xfs' ? 'norecovery' : 'noload'];
}

/** Binds keep the mark: a superblock lives as long as its last mount, and that one must not outlast the network either. */
export const BIND_OPTIONS: readonly string[] = ['_netdev'];

/**
 * One option each: a flag may hold several, as in mount(8)'s -o. A comma within quotes is a part of its option
 * (SELinux: context="system_u:object_r:container_file_t:s0:c1,c2").
 * @throws DriverError INVALID_ARGUMENT
 */
export function mountOptions(flags: readonly string[]): string[] {
  const options = flags.flatMap(splitOptions);
  for (const option of options) {
    const isWhole = (option.match(/"/g)?.length ?? 0) % 2 === 0;
    if (option === '' || !isWhole || /[\s\0]/.test(option) || REFUSED.test(option)) {
      throw new DriverError('INVALID_ARGUMENT', {
        problem: `mount flag ${JSON.stringify(option)} cannot be used for a volume`,
        action: 'remove it from the StorageClass or PersistentVolume (mountOptions)',
      });
    }
  }
  return options;
}

/** As libmount does it (mnt_optstr_next_option): any quote opens or closes. */
function splitOptions(flag: string): string[] {
  const options = [''];
  let isQuoted = false;
  for (const character of flag) {
    if (character === '"') isQuoted = !isQuoted;
    if (character === ',' && !isQuoted) options.push('');
    else options.push(`${options.pop() ?? ''}${character}`);
  }
  return options;
}
