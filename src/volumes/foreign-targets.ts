/**
 * Targets with our names that are not ours. The default prefix and the volumes' names are Cinder's own, so that a storage
 * host that it serves, or has served, has live targets that are called as ours are. What makes a target ours is what it
 * exports: the gate, a device that nobody else makes, or a backstore that we made and somebody has put on another device
 * (then it is our target that has gone wrong, and it must still be fenced). Everything else is left alone, and told.
 */
import { DriverError } from '../errors.ts';
import type { TargetState } from '../iscsi/target/types.ts';
import { log } from '../system/context.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainExport, FOREIGN_TARGET_ACTION } from './export-errors.ts';
import { targetIqn } from './names.ts';

export type GatePath = (volumeId: string) => string;

/** A host of Cinder's may have hundreds. */
const NAMED_AT_MOST = 20;

/** What somebody else's target is backed by; [] when it is ours, or shows nothing (half built, half removed). */
export function foreignBackings(
  { volumeId, backings, hasOwnBackstore }: TargetState,
  gatePath: GatePath,
): readonly string[] {
  return hasOwnBackstore || (volumeId !== undefined && backings.includes(gatePath(volumeId))) ? [] : backings;
}

/** Why a target is not to be taken away, in words; undefined when it is ours, or nobody has anything of it. */
export function notOurs(target: TargetState, gatePath: GatePath): string | undefined {
  const backings = foreignBackings(target, gatePath);
  if (backings.length > 0) return `backed by ${backings.join(', ')}`;
  if (target.backings.length > 0 || target.sessions.length === 0) return undefined;
  return `without a LUN, but with sessions of ${target.sessions.map(({ initiatorIqn }) => initiatorIqn).join(', ')}`;
}

/** The target with the volume's name, whosever it is. */
export async function findTarget(
  { targets, config }: BackendDependencies,
  volumeId: string,
): Promise<TargetState | undefined> {
  return await targets.find(targetIqn(config.iqnPrefix, volumeId), { timeoutMs: config.fenceTimeoutMs });
}

/** @throws DriverError FAILED_PRECONDITION when somebody else exports something under the name of this volume's target. */
export async function refuseForeignTarget(deps: BackendDependencies, volumeId: string): Promise<void> {
  const target = await explainExport(`volume ${volumeId} could not be exported`, () => findTarget(deps, volumeId));
  const backings = target === undefined ? [] : foreignBackings(target, (id) => deps.gates.path(id));
  if (target === undefined || backings.length === 0) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} could not be exported`,
    found: `target ${target.targetIqn} is there already, backed by ${backings.join(', ')} instead of ${deps.gates.path(volumeId)}`,
    action: FOREIGN_TARGET_ACTION,
  });
}

/** Tells of each once, not with every comparison. */
export class ForeignTargets {
  #told = new Set<string>();

  tell(found: readonly ForeignTarget[]): void {
    const unknown = found.filter(({ targetIqn: iqn }) => !this.#told.has(iqn));
    this.#told = new Set(found.map(({ targetIqn: iqn }) => iqn));
    if (unknown.length === 0) return;
    log().warn(
      {
        count: found.length,
        targets: unknown.slice(0, NAMED_AT_MOST).map(({ targetIqn: iqn, what }) => `${iqn} (${what})`),
      },
      `targets with names like this driver's are not its own; to do: nothing while they are in use, for they are left alone; otherwise remove them with the software that made them, or give this driver an iqn-prefix of its own`,
    );
  }
}

export interface ForeignTarget {
  readonly targetIqn: string;
  /** Why it is not ours. */
  readonly what: string;
}
