/**
 * ControllerPublish and ControllerUnpublish. Attachments are keyed by node name: unpublish cuts every initiator recorded
 * for that name, whatever IQN the node has by now (order of writes: tags.ts; fence: exports.ts).
 */
import { DriverError } from '../errors.ts';
import type { TargetState } from '../iscsi/target/types.ts';
import { log } from '../system/context.ts';
import type { PublishRequest } from './backend.ts';
import { capabilityProblemOf, isReadonlyAttachment, modeClass } from './capabilities.ts';
import { type ChapPair, userCredentials } from './chap.ts';
import type { BackendDependencies } from './dependencies.ts';
import { explainFence } from './export-errors.ts';
import { attachmentCredentials, ensureExport, removeExport, revokeInitiator } from './exports.ts';
import type { UnfinishedFences } from './fences.ts';
import { findTarget, notOurs, refuseForeignTarget } from './foreign-targets.ts';
import { explainLvm } from './lvm-errors.ts';
import { type Attachment, isMultiNode, type Volume } from './model.ts';
import { isVolumeId, newToken, targetIqn } from './names.ts';
import { type NodeIdentity, parseNodeId } from './node-id.ts';
import type { PublishContext } from './publish-context.ts';
import { attachmentTag } from './tags.ts';
import { type VolumeEntry, VolumeTable } from './volume-table.ts';

/** Attachments that are being made and not in the table yet: the limit and the IQN check must see them too. */
export class PendingAttachments {
  readonly #pending = new Map<string, NodeIdentity>();

  /** Runs `action` while the attachment counts as pending. */
  async during<T>(volumeId: string, node: NodeIdentity, action: () => Promise<T>): Promise<T> {
    const key = `${volumeId}\0${node.nodeName}`;
    this.#pending.set(key, node);
    try {
      return await action();
    } finally {
      this.#pending.delete(key);
    }
  }

  entries(): { volumeId: string; node: NodeIdentity }[] {
    return [...this.#pending].map(([key, node]) => ({ volumeId: key.slice(0, key.indexOf('\0')), node }));
  }
}

export async function publishVolume(
  deps: BackendDependencies,
  pending: PendingAttachments,
  fences: UnfinishedFences,
  request: PublishRequest,
): Promise<PublishContext> {
  const { config, lvm } = deps;
  const node = parseNodeId(request.nodeId);
  let table = await VolumeTable.read(lvm, config.clusterId);
  let entry = table.require(request.volumeId);
  if (node === undefined) {
    throw new DriverError('NOT_FOUND', {
      problem: `node "${request.nodeId.slice(0, 192)}" is not known`,
      found: 'its id is not "<node name>/<initiator IQN>" as this driver\'s node plugin tells it',
      action: 'check that the node plugin of this driver runs there (kubectl get csinode)',
    });
  }
  const problem = capabilityProblemOf(entry.volume, request.capability);
  if (problem !== undefined) throw new DriverError('INVALID_ARGUMENT', problem);
  if (await finishFences(deps, fences, entry)) {
    table = await VolumeTable.read(lvm, config.clusterId);
    entry = table.require(request.volumeId);
  }
  const given = userCredentials(request.secrets);
  const wanted = wantedAttachment(deps, node, request, given);

  const same = entry.volume.attachments.find((attachment) => attachment.nodeName === node.nodeName);
  if (same !== undefined && same.initiatorIqn !== node.initiatorIqn) {
    // The node was re-installed under its old name: the initiator of its former life must never write again.
    log().warn(
      { volumeId: entry.volume.id, node: node.nodeName, oldIqn: same.initiatorIqn, newIqn: node.initiatorIqn },
      'node has a new initiator name: cutting the old one off first',
    );
    await detach(deps, fences, entry, [same]);
    return await publishVolume(deps, pending, fences, request);
  }
  if (same !== undefined) {
    checkSameAttachment(entry.volume, same, wanted);
    await ensureExport(
      deps,
      entry,
      entry.volume,
      given === undefined ? {} : { given: { nodeName: node.nodeName, pair: given } },
    );
    return contextOf(deps, table, entry.volume, same);
  }

  checkOtherNodes(entry.volume, wanted);
  checkSameAuthentication(entry.volume, wanted);
  checkInitiatorUnique(table, pending, node);
  checkLimit(deps, table, pending, node, request.volumeId);
  return await pending.during(request.volumeId, node, async () => {
    // Before anything is written.
    await refuseForeignTarget(deps, request.volumeId);
    await explainLvm(
      `the attachment of volume ${request.volumeId} to node ${node.nodeName} could not be recorded`,
      lvm.vgName,
      () => lvm.changeTags(request.volumeId, { add: [attachmentTag(wanted)] }),
    );
    const volume: Volume = { ...entry.volume, attachments: [...entry.volume.attachments, wanted] };
    await ensureExport(
      deps,
      entry,
      volume,
      given === undefined ? {} : { given: { nodeName: node.nodeName, pair: given } },
    );
    return contextOf(deps, table, volume, wanted);
  });
}

function wantedAttachment(
  deps: BackendDependencies,
  node: NodeIdentity,
  request: PublishRequest,
  given: ChapPair | undefined,
): Attachment {
  let auth: Attachment['auth'] = { kind: 'none' };
  if (given !== undefined) auth = { kind: 'user' };
  else if (deps.config.chap !== 'off' && deps.chapKeys !== undefined) {
    auth = { kind: 'derived', keyId: deps.chapKeys.currentKeyId, mutual: deps.config.chap === 'mutual' };
  }
  return {
    nodeName: node.nodeName,
    nodeId: request.nodeId,
    initiatorIqn: node.initiatorIqn,
    nonce: newToken(),
    access: request.capability.access.kind,
    mode: request.capability.mode,
    readonly: isReadonlyAttachment(request.capability, request.readonly),
    auth,
  };
}

/** CSI: published to this node already, with another capability or readonly flag. */
function checkSameAttachment(volume: Volume, present: Attachment, wanted: Attachment): void {
  const differs: string[] = [];
  if (present.access !== wanted.access) differs.push(`${present.access} access instead of ${wanted.access}`);
  if (modeClass(present.mode) !== modeClass(wanted.mode))
    differs.push(`mode ${present.mode} instead of ${wanted.mode}`);
  if (present.readonly !== wanted.readonly) differs.push(present.readonly ? 'read-only' : 'writable');
  if (differs.length > 0) {
    throw new DriverError('ALREADY_EXISTS', {
      problem: `volume ${volume.id} is attached to node ${present.nodeName} in another way`,
      found: differs.join(', '),
      action: 'detach it there first',
    });
  }
}

function checkOtherNodes(volume: Volume, wanted: Attachment): void {
  const others = volume.attachments;
  if (others.length === 0) return;
  const blocking = others.filter(
    (other) =>
      !isMultiNode(other.mode) || !isMultiNode(wanted.mode) || modeClass(other.mode) !== modeClass(wanted.mode),
  );
  if (blocking.length === 0) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volume.id} cannot be attached to node ${wanted.nodeName} as ${wanted.mode}`,
    found: `attached to node ${blocking.map((other) => `${other.nodeName} (${other.mode})`).join(', ')}`,
    action: 'detach it there first; a node that is gone for good is detached with the out-of-service taint',
  });
}

/** A target asks all its initiators for credentials, or none (LIO: an attribute of the portal group). */
function checkSameAuthentication(volume: Volume, wanted: Attachment): void {
  const withChap = wanted.auth.kind !== 'none';
  const others = volume.attachments.filter((other) => (other.auth.kind !== 'none') !== withChap);
  if (others.length === 0) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volume.id} cannot be attached to node ${wanted.nodeName} ${withChap ? 'with' : 'without'} CHAP`,
    found: `attached ${withChap ? 'without' : 'with'} it to node ${others.map(({ nodeName }) => nodeName).join(', ')}, from before the controller's mode (--chap) was changed, or by another secret`,
    action: 'detach it there first: all nodes of a volume log in the same way',
  });
}

/** Cloned hosts: two names with one initiator name would share sessions, and a fence of one would miss the other. */
function checkInitiatorUnique(table: VolumeTable, pending: PendingAttachments, node: NodeIdentity): void {
  const known = [
    ...table.attachments().map(({ attachment }) => attachment),
    ...pending.entries().map((entry) => entry.node),
  ];
  const other = known.find(
    (candidate) => candidate.initiatorIqn === node.initiatorIqn && candidate.nodeName !== node.nodeName,
  );
  if (other === undefined) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `nodes ${node.nodeName} and ${other.nodeName} have the same initiator name`,
    found: node.initiatorIqn,
    action:
      'give each host its own in /etc/iscsi/initiatorname.iscsi (iscsi-iname makes one), restart iscsid and the node plugin there',
  });
}

function checkLimit(
  deps: BackendDependencies,
  table: VolumeTable,
  pending: PendingAttachments,
  node: NodeIdentity,
  volumeId: string,
): void {
  const limit = deps.config.maxVolumesPerNode;
  if (limit === 0) return;
  const attached = new Set([
    ...table
      .attachments()
      .filter(({ attachment }) => attachment.nodeName === node.nodeName)
      .map((entry) => entry.volumeId),
    ...pending
      .entries()
      .filter((entry) => entry.node.nodeName === node.nodeName)
      .map((entry) => entry.volumeId),
  ]);
  attached.delete(volumeId);
  if (attached.size < limit) return;
  throw new DriverError('RESOURCE_EXHAUSTED', {
    problem: `node ${node.nodeName} has as many volumes attached as the controller allows`,
    found: `${attached.size} of ${limit}`,
    action: 'run the pod elsewhere, or raise max-volumes-per-node of the controller',
  });
}

function contextOf(
  deps: BackendDependencies,
  { report }: VolumeTable,
  volume: Volume,
  attachment: Attachment,
): PublishContext {
  const pair = attachmentCredentials(deps, volume.id, attachment);
  if (attachment.auth.kind === 'derived' && pair === undefined) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `CHAP credentials of volume ${volume.id} on node ${attachment.nodeName} cannot be derived`,
      found: `key "${attachment.auth.keyId}" is not in ${deps.config.chapKeyFile}`,
      action: 'restore the key file, or detach the volume and attach it again',
    });
  }
  return {
    targetIqn: targetIqn(deps.config.iqnPrefix, volume.id),
    witnessIqn: deps.targets.witnessIqn(report.vg.uuid),
    portals: deps.config.portals,
    lun: 0,
    serial: volume.serial,
    nonce: attachment.nonce,
    content: volume.content,
    sizeBytes: volume.sizeBytes,
    // A user's own credentials reach the node through its stage secret, not through the VolumeAttachment's status.
    chap: pair?.chap,
    mutualChap: pair?.mutual,
    authentication: attachment.auth.kind,
  };
}

/**
 * Empty nodeId: from all nodes. OK when the volume or the attachment is not there, and no access of that node either: an
 * LV that was renamed or restored from an archive, or has lost a tag, may still be exported, and the node go on writing.
 */
export async function unpublishVolume(
  deps: BackendDependencies,
  fences: UnfinishedFences,
  volumeId: string,
  nodeId: string,
): Promise<void> {
  const table = await VolumeTable.read(deps.lvm, deps.config.clusterId);
  const entry = table.find(volumeId);
  const node = parseNodeId(nodeId);
  if (nodeId !== '' && node === undefined) return;
  const attachments = entry?.volume.attachments ?? [];
  const leaving = attachments.filter((attachment) => node === undefined || attachment.nodeName === node.nodeName);
  if (entry !== undefined && leaving.length > 0) await detach(deps, fences, entry, leaving);
  else await cutUnrecorded(deps, table, volumeId, node);
}

/** What the tags do not tell, and LIO still lets in. */
async function cutUnrecorded(
  deps: BackendDependencies,
  table: VolumeTable,
  volumeId: string,
  node: NodeIdentity | undefined,
): Promise<void> {
  if (!isVolumeId(volumeId)) return;
  const target = await explainFence(volumeId, () => ownTarget(deps, table, volumeId));
  if (target === undefined) return;
  const entry = table.find(volumeId);
  const recorded = new Set(entry?.volume.attachments.map(({ initiatorIqn }) => initiatorIqn));
  const unrecorded = [...target.aclInitiators, ...target.sessions.map(({ initiatorIqn }) => initiatorIqn)].filter(
    (initiatorIqn) => !recorded.has(initiatorIqn.toLowerCase()),
  );
  const leaving = [...new Set(unrecorded)].filter(
    (initiatorIqn) => node === undefined || initiatorIqn.toLowerCase() === node.initiatorIqn,
  );
  if (entry !== undefined && leaving.length === 0) return;
  log().warn(
    { volumeId, target: target.targetIqn, initiators: leaving },
    entry === undefined
      ? 'a volume that is not there (any more) is still exported: its export is removed'
      : 'access that no attachment asks for is cut off',
  );
  if (recorded.size === 0) await removeExport(deps, volumeId);
  else for (const initiatorIqn of leaving) await revokeInitiator(deps, volumeId, initiatorIqn);
}

/** The target of the volume, if it is ours and of this VG. */
async function ownTarget(
  deps: BackendDependencies,
  table: VolumeTable,
  volumeId: string,
): Promise<TargetState | undefined> {
  const target = await findTarget(deps, volumeId);
  if (target === undefined || notOurs(target, (id) => deps.gates.path(id)) !== undefined) return undefined;
  return (await deps.gates.servesOtherVg(volumeId, table.report.vg.uuid)) ? undefined : target;
}

/** Goes on with the fences of this volume that have not ended. @returns whether there were any: then the entry is outdated. */
export async function finishFences(
  deps: BackendDependencies,
  fences: UnfinishedFences,
  entry: VolumeEntry,
): Promise<boolean> {
  const leaving = fences.among(entry.volume.id, entry.volume.attachments);
  if (leaving.length === 0) return false;
  log().warn(
    { volumeId: entry.volume.id, nodes: leaving.map(({ nodeName }) => nodeName) },
    'a fence that has not ended goes on',
  );
  await detach(deps, fences, entry, leaving);
  return true;
}

/** Fences the attachments, and only then forgets them. */
async function detach(
  deps: BackendDependencies,
  fences: UnfinishedFences,
  entry: VolumeEntry,
  leaving: readonly Attachment[],
): Promise<void> {
  const { volume } = entry;
  const staying = volume.attachments.filter((attachment) => !leaving.includes(attachment));
  await fences.during(volume.id, leaving, async () => {
    if (staying.length === 0) {
      await removeExport(deps, volume.id);
    } else {
      for (const attachment of leaving) await revokeInitiator(deps, volume.id, attachment.initiatorIqn);
    }
    await explainLvm(`the detachment of volume ${volume.id} could not be recorded`, deps.lvm.vgName, () =>
      deps.lvm.changeTags(volume.id, { remove: leaving.map(attachmentTag) }),
    );
  });
}
