/** What an LVM failure means to the client. LVM's own words go to the log. */
import { DriverError } from '../errors.ts';
import { scrubStatus } from '../lvm/scrub.ts';
import { type Lvm, LvmError, type VgReport } from '../lvm/types.ts';
import type { WipeQueue } from './dependencies.ts';
import { formatBytes } from './sizes.ts';

/** Runs one LVM step of an operation; `problem` says what it was for. DriverErrors pass through. */
export async function explainLvm<T>(problem: string, vgName: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof LvmError) throw toDriverError(error, problem, vgName);
    throw error;
  }
}

export function metadataFull(problem: string, found: string, options?: ErrorOptions): DriverError {
  const action =
    'delete volumes, or add a physical volume with a larger area (pvcreate --metadatasize 64m, then vgextend); an existing area cannot grow';
  return new DriverError('RESOURCE_EXHAUSTED', { problem, found, action }, options);
}

function toDriverError(error: LvmError, problem: string, vgName: string): DriverError {
  const cause = { cause: error };
  switch (error.kind) {
    case 'no-space':
      return new DriverError(
        'RESOURCE_EXHAUSTED',
        {
          problem,
          found: `volume group "${vgName}" has not enough free extents`,
          action: 'delete volumes, or add a physical volume with vgextend',
        },
        cause,
      );
    case 'metadata-full':
      return metadataFull(
        problem,
        `the metadata area of volume group "${vgName}" is full (see vg_mda_free of vgs)`,
        cause,
      );
    case 'vg-changed':
      return new DriverError(
        'UNAVAILABLE',
        {
          problem,
          found: `a physical volume was added to volume group "${vgName}", or taken from it, just now; nothing was allocated`,
          action: 'the call is retried',
        },
        cause,
      );
    case 'vg-not-found':
    case 'vg-partial':
      return new DriverError(
        'UNAVAILABLE',
        {
          problem,
          found: `volume group "${vgName}" is ${error.kind === 'vg-partial' ? 'missing a physical volume' : 'not there'}`,
          action: 'bring its disks back (pvs, vgs); the call is retried',
        },
        cause,
      );
    case 'vg-inaccessible':
      return new DriverError(
        'UNAVAILABLE',
        {
          problem,
          found: `volume group "${vgName}" is not this host's to use (exported, or of another system)`,
          action: `see \`vgs -o +vg_systemid ${vgName}\`, vgimport it; the call is retried`,
        },
        cause,
      );
    case 'lvm-missing':
      return new DriverError(
        'UNAVAILABLE',
        { problem, found: 'the LVM tools are not installed on the storage host', action: 'install package lvm2' },
        cause,
      );
    case 'in-use':
      return new DriverError(
        'FAILED_PRECONDITION',
        {
          problem,
          found: 'the logical volume is in use on the storage host',
          action: 'see `dmsetup ls --tree` and `lsof` there for who holds it',
        },
        cause,
      );
    case 'write-failed':
      return new DriverError(
        'UNAVAILABLE',
        {
          problem,
          found: 'its disk did not take the zeros',
          action: 'look at the disks under the volume group (dmesg, pvs) and the controller log; the call is retried',
        },
        cause,
      );
    default:
      return new DriverError(
        'UNAVAILABLE',
        {
          problem,
          found: 'an LVM command failed',
          action: 'see the controller log for its words; the call is retried',
        },
        cause,
      );
  }
}

/**
 * A refusal may be final to who asked: it is not given for a report of a moment ago, from before a wiped volume was removed.
 * @throws DriverError RESOURCE_EXHAUSTED
 */
export async function requireRoom(
  { lvm, wipeQueue }: { readonly lvm: Pick<Lvm, 'read'>; readonly wipeQueue: WipeQueue },
  neededBytes: number,
  report: VgReport,
): Promise<void> {
  if (report.vg.freeBytes >= neededBytes) return;
  const now = await lvm.read({ fresh: true });
  if (now.vg.freeBytes < neededBytes) throw noRoom(neededBytes, now, wipeQueue);
}

function noRoom(neededBytes: number, report: VgReport, wipeQueue: WipeQueue): DriverError {
  const { vg } = report;
  const { bytes, etaSeconds } = wipeQueue.backlog();
  const { heldBytes } = scrubStatus(report);
  const waiting =
    bytes === 0
      ? ''
      : `; ${formatBytes(bytes)} of deleted volumes are being wiped${etaSeconds === undefined ? '' : `, which takes about ${Math.ceil(etaSeconds)} s more`}`;
  return new DriverError('RESOURCE_EXHAUSTED', {
    problem: `no room for ${formatBytes(neededBytes)} in volume group "${vg.name}"`,
    found: `${formatBytes(vg.freeBytes)} free${waiting}${heldBytes === 0 ? '' : `; ${formatBytes(heldBytes)} are held by a scrub`}`,
    action: roomAction(heldBytes, bytes),
  });
}

function roomAction(scrubBytes: number, wipeBytes: number): string {
  if (scrubBytes > 0) return 'wait for the scrub, or run it again if it was interrupted; the call is retried';
  const first = wipeBytes === 0 ? 'delete volumes' : 'wait for the wiping';
  return `${first}, ask for less, or add a physical volume with vgextend`;
}
