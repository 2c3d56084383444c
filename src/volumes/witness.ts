/**
 * When the witness speaks. On a node "the target refuses me" decides whether unwritten data may be given up, and a target
 * refuses live attachments too: after a boot while another program has opened the portal, when one volume's export
 * cannot be built, when an attachment's credentials are not known. So a node asks for proof: the witness at the same
 * portal, which this controller lets speak only while the last comparison has found every attached volume exported, each
 * with the access of its initiators. When in doubt it is silent, and nodes wait.
 */

import type { TargetState } from '../iscsi/target/types.ts';
import { log } from '../system/context.ts';
import type { KeyedMutex } from '../system/keyed-mutex.ts';
import type { BackendDependencies } from './dependencies.ts';
import type { UnfinishedFences } from './fences.ts';
import type { Attachment } from './model.ts';
import type { ReconcileResult } from './reconcile.ts';
import { isAttachmentTag } from './tags.ts';
import { VolumeTable } from './volume-table.ts';

interface Parts {
  readonly deps: BackendDependencies;
  readonly mutex: KeyedMutex;
  readonly fences: UnfinishedFences;
}

interface Judgement {
  readonly vgUuid: string;
  /** Attached volumes whose export is not complete. */
  readonly incomplete: readonly string[];
  /** Those that looked so while a call was at work on them (a publish, a fence). */
  readonly unsure: readonly string[];
}

/** Runs a comparison. Silent from before it begins to repair something, speaking after it has left nothing to repair. */
export async function witnessed(parts: Parts, compare: () => Promise<ReconcileResult>): Promise<ReconcileResult> {
  const before = await judge(parts);
  if (before === undefined || before.incomplete.length > 0) await speak(parts, undefined);
  let result: ReconcileResult | undefined;
  try {
    result = await compare();
    return result;
  } finally {
    await settle(parts, result !== undefined && result.portalProblem === undefined ? await judge(parts) : undefined);
  }
}

async function settle(parts: Parts, judgement: Judgement | undefined): Promise<void> {
  if (judgement === undefined) {
    await speak(parts, undefined);
  } else if (judgement.incomplete.length > 0) {
    log().warn(
      { volumes: judgement.incomplete },
      'attached volumes whose export is not complete: the witness is silent',
    );
    await speak(parts, undefined);
  } else if (judgement.unsure.length === 0) {
    await speak(parts, judgement.vgUuid);
  }
}

/** @param completeVgUuid undefined: be silent */
async function speak({ deps }: Parts, completeVgUuid: string | undefined): Promise<void> {
  try {
    await deps.targets.setWitness(completeVgUuid);
  } catch (error) {
    log().error({ err: error, completeVgUuid }, 'the witness could not be set');
  }
}

/** undefined when it cannot be told. */
async function judge(parts: Parts): Promise<Judgement | undefined> {
  const { deps, mutex } = parts;
  try {
    const table = await readTable(parts);
    // A partial VG may not show all that it has; and what this version does not understand it does not export.
    if (table.report.vg.missingPvCount > 0 || hasUnreadableAttachment(table)) return undefined;
    const targets = await deps.targets.list();
    const incomplete: string[] = [];
    const unsure: string[] = [];
    for (const volumeId of suspects(parts, table, targets)) {
      const isFree = await mutex.runIfFree(volumeId, async () => {
        if (await isIncomplete(parts, volumeId)) incomplete.push(volumeId);
      });
      if (!isFree) unsure.push(volumeId);
    }
    return { vgUuid: table.report.vg.uuid, incomplete, unsure };
  } catch (error) {
    log().warn({ err: error }, 'whether every attached volume is exported cannot be told');
    return undefined;
  }
}

function hasUnreadableAttachment(table: VolumeTable): boolean {
  const refused = new Set(table.refused().map(({ lvName }) => lvName));
  return table.report.lvs.some(({ name, tags }) => refused.has(name) && tags.some(isAttachmentTag));
}

function suspects({ deps }: Parts, table: VolumeTable, targets: readonly TargetState[]): string[] {
  return table
    .entries()
    .filter(({ volume }) => !admitsAll(deps, targets, volume.id, volume.attachments))
    .map(({ volume }) => volume.id);
}

/** Alone on the volume, so that what is read belongs together. Attachments whose fence was begun are to end, not to work. */
async function isIncomplete(parts: Parts, volumeId: string): Promise<boolean> {
  const { deps, fences } = parts;
  const attachments = (await readTable(parts)).find(volumeId)?.volume.attachments ?? [];
  const leaving = fences.among(volumeId, attachments);
  const staying = attachments.filter((attachment) => !leaving.includes(attachment));
  return !admitsAll(deps, await deps.targets.list(), volumeId, staying);
}

function admitsAll(
  { config, gates }: BackendDependencies,
  targets: readonly TargetState[],
  volumeId: string,
  attachments: readonly Attachment[],
): boolean {
  if (attachments.length === 0) return true;
  const target = targets.find((one) => one.volumeId === volumeId);
  if (target === undefined || !target.enabled || target.backstoreDevice !== gates.path(volumeId)) return false;
  if (!config.portals.every((portal) => target.portals.includes(portal))) return false;
  const admitted = new Set(target.admittedInitiators.map((initiator) => initiator.toLowerCase()));
  return attachments.every(({ initiatorIqn }) => admitted.has(initiatorIqn.toLowerCase()));
}

async function readTable({ deps }: Parts): Promise<VolumeTable> {
  return await VolumeTable.read(deps.lvm, deps.config.clusterId);
}
