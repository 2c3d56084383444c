/**
 * What a comparison has to do, from what was read: the VG's table, LIO's targets, the gates. Pure: everything that is
 * done about it, and that it is still so when its turn has come, is reconcile.ts.
 */
import type { Gate } from '../gate/types.ts';
import type { TargetState } from '../iscsi/target/types.ts';
import { type ForeignTarget, type GatePath, notOurs } from './foreign-targets.ts';
import { isVolumeId } from './names.ts';
import type { VolumeEntry, VolumeTable } from './volume-table.ts';

/** The provisioner repeats a create after minutes at most; a day also covers a cluster that is down for the night. */
const UNFINISHED_KEPT_S = 86_400;

/**
 * Volume ids, in the order in which the parts are done. Of a partial VG only what builds; what takes away waits until it is
 * whole.
 */
export interface ReconcilePlan {
  /** No portal answers yet, as after a boot: they are opened when every target is there. */
  readonly cold: boolean;
  readonly inactive: readonly string[];
  /** Attached: gate and target have to be as the tags say. */
  readonly exports: readonly string[];
  /** With a gate of ours, or a target that is not known to be somebody else's, that no attachment asks for. Maybe another VG's. */
  readonly leftovers: readonly string[];
  /** Called as ours are, and not ours. */
  readonly foreign: readonly ForeignTarget[];
  readonly unfinished: readonly string[];
  /** With an expansion that is not finished. */
  readonly growing: readonly string[];
  /** Marked as deleted, and still under a volume's name. */
  readonly halfDeleted: readonly string[];
}

export function planReconcile(
  table: VolumeTable,
  listed: readonly TargetState[],
  gates: readonly Gate[],
  gatePath: GatePath,
): ReconcilePlan {
  const judged = listed.map((target) => ({ target, what: notOurs(target, gatePath) }));
  const serving = judged.filter(({ what }) => what === undefined).map(({ target }) => target);
  // Nothing is torn down on the word of a VG that may not show all that it has.
  const whole = table.report.vg.missingPvCount === 0;
  const attached = table.entries().filter(({ volume }) => volume.attachments.length > 0);
  // An initiator takes "no such target" hard.
  const cold = !serving.some((target) => target.portals.length > 0);
  return {
    cold,
    foreign: judged.flatMap(({ target: { targetIqn }, what }) => (what === undefined ? [] : { targetIqn, what })),
    inactive: ids(attached.filter(({ lv }) => !lv.active)),
    exports: ids(attached),
    growing: whole
      ? ids(table.entries().filter(({ made, growingFromBytes }) => made && growingFromBytes !== undefined))
      : [],
    leftovers: whole ? leftovers(table, serving, gates) : [],
    unfinished: whole ? ids(table.entries().filter(isForgotten)) : [],
    halfDeleted: whole
      ? table
          .waitingForWipe()
          .map((lv) => lv.name)
          .filter(isVolumeId)
      : [],
  };
}

function ids(entries: readonly VolumeEntry[]): string[] {
  return entries.map(({ volume }) => volume.id);
}

/**
 * A create that a crash cut short, and that nobody has repeated: its claim is gone. It was never handed out. Of unknown
 * age: kept.
 */
export function isForgotten({ lv, made }: VolumeEntry): boolean {
  return !made && lv.createdAt !== undefined && Date.now() / 1000 - lv.createdAt > UNFINISHED_KEPT_S;
}

function leftovers(table: VolumeTable, serving: readonly TargetState[], gates: readonly Gate[]): string[] {
  const wanted = new Set(table.attachments().map(({ volumeId }) => volumeId));
  const refused = new Set(table.refused().map(({ lvName }) => lvName));
  const found = new Set([
    ...serving.flatMap(({ volumeId }) => (volumeId === undefined ? [] : [volumeId])),
    ...gates.map(({ volumeId }) => volumeId),
  ]);
  return [...found].filter((volumeId) => !wanted.has(volumeId) && !refused.has(volumeId)).sort();
}
