/** From a volume and its attachments to a gate and a target, and back. The safe orders are in the adapters and in design.md. */
import { GateError } from '../gate/errors.ts';
import type { AclAuth, AclSpec, TargetSpec } from '../iscsi/target/types.ts';
import { log } from '../system/context.ts';
import type { ChapPair } from './chap.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainExport, explainFence } from './export-errors.ts';
import { findTarget, foreignBackings, refuseForeignTarget } from './foreign-targets.ts';
import { explainLvm } from './lvm-errors.ts';
import { type Attachment, sharesWrites, type Volume } from './model.ts';
import { targetIqn } from './names.ts';
import type { VolumeEntry } from './volume-table.ts';

/** Credentials that a user gave in this call; they can't be derived again later. */
export interface GivenCredentials {
  readonly nodeName: string;
  readonly pair: ChapPair;
}

export function attachmentCredentials(
  deps: BackendDependencies,
  volumeId: string,
  attachment: Attachment,
): ChapPair | undefined {
  const { auth, nodeName, nonce } = attachment;
  if (auth.kind !== 'derived') return undefined;
  return deps.chapKeys?.derive(auth.keyId, volumeId, nodeName, nonce, auth.mutual);
}

function aclAuth(
  deps: BackendDependencies,
  volumeId: string,
  attachment: Attachment,
  given: GivenCredentials | undefined,
): AclAuth {
  if (attachment.auth.kind === 'none') return { kind: 'none' };
  const pair =
    attachment.auth.kind === 'user'
      ? given?.nodeName === attachment.nodeName
        ? given.pair
        : undefined
      : attachmentCredentials(deps, volumeId, attachment);
  if (pair === undefined) {
    if (attachment.auth.kind === 'derived') {
      log().error(
        { volumeId, node: attachment.nodeName, keyId: attachment.auth.keyId },
        'CHAP key of an attachment is not in the key file: its access is left as it is; restore the key file',
      );
    }
    return { kind: 'keep' };
  }
  return { kind: 'chap', user: pair.chap.user, password: pair.chap.password, mutual: pair.mutual };
}

export function targetSpec(deps: BackendDependencies, volume: Volume, given?: GivenCredentials): TargetSpec {
  const acls: AclSpec[] = volume.attachments.map((attachment) => ({
    initiatorIqn: attachment.initiatorIqn,
    readonly: attachment.readonly,
    auth: aclAuth(deps, volume.id, attachment, given),
  }));
  return {
    volumeId: volume.id,
    targetIqn: targetIqn(deps.config.iqnPrefix, volume.id),
    serial: volume.serial,
    devicePath: deps.gates.path(volume.id),
    discard: volume.provisioning === 'thin',
    reservations: volume.attachments.some(({ mode }) => sharesWrites(mode)),
    acls,
  };
}

/** Makes or repairs LV activation, gate and target; what is right already is not touched. */
export async function ensureExport(
  deps: BackendDependencies,
  entry: VolumeEntry,
  volume: Volume,
  options: { given?: GivenCredentials; portals?: boolean } = {},
): Promise<void> {
  if (!entry.lv.active) {
    await explainLvm(`volume ${volume.id} could not be activated`, deps.lvm.vgName, () =>
      deps.lvm.activate([volume.id]),
    );
  }
  const problem = `volume ${volume.id} could not be exported`;
  await explainExport(problem, async () => {
    const gate = { volumeId: volume.id, lvPath: entry.lv.path, sizeBytes: volume.sizeBytes };
    try {
      await deps.gates.ensure(gate);
    } catch (error) {
      // Who exports the LV itself holds it: no gate can be made over it.
      if (error instanceof GateError && error.reason === 'backing') await refuseForeignTarget(deps, volume.id);
      if (!(error instanceof GateError && error.reason === 'severed')) throw error;
      // A crash in the middle of a fence. Nothing passes there any more, so nobody loses anything by the rest of it.
      log().warn(
        { volumeId: volume.id },
        'a fence that a crash cut short is completed before the export is built again',
      );
      await removeExport(deps, volume.id);
      await deps.gates.ensure(gate);
    }
    await deps.targets.ensure(targetSpec(deps, volume, options.given), { portals: options.portals ?? true });
  });
}

/**
 * Cuts every initiator off and removes target, backstore and gate. After it returned not one byte reaches the LV through
 * them. A target of that name that is somebody else's has no part in it, and stays (foreign-targets.ts).
 */
export async function removeExport(deps: BackendDependencies, volumeId: string): Promise<void> {
  const iqn = targetIqn(deps.config.iqnPrefix, volumeId);
  const options = { timeoutMs: deps.config.fenceTimeoutMs };
  await explainFence(volumeId, async () => {
    const isOurs = !(await isForeign(deps, volumeId));
    if (isOurs) await deps.targets.disable(iqn, options);
    await deps.gates.sever(volumeId, options);
    if (isOurs) await deps.targets.remove(volumeId, iqn, options);
    await deps.gates.remove(volumeId);
  });
}

/** Cuts one initiator of several off. */
export async function revokeInitiator(
  deps: BackendDependencies,
  volumeId: string,
  initiatorIqn: string,
): Promise<void> {
  await explainFence(volumeId, async () => {
    if (await isForeign(deps, volumeId)) return;
    await deps.targets.revoke(targetIqn(deps.config.iqnPrefix, volumeId), initiatorIqn, {
      timeoutMs: deps.config.fenceTimeoutMs,
    });
  });
}

async function isForeign(deps: BackendDependencies, volumeId: string): Promise<boolean> {
  const target = await findTarget(deps, volumeId);
  return target !== undefined && foreignBackings(target, (id) => deps.gates.path(id)).length > 0;
}
