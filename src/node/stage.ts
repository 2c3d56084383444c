/**
 * NodeStageVolume: from publish_context to a verified disk, and a mounted file system for a mount volume.
 *
 *   stale things ended → intent recorded → login → disk found, serial and size verified → probe, check, mount, grow →
 *   recorded as staged
 *
 * Each part finds what an earlier try has done and goes on from there. A failure takes back what this very call made.
 * No file system is ever made here: a disk that does not hold what the controller said is refused, untouched.
 */
import { DriverError } from '../errors.ts';
import { mountsOfDevice } from '../filesystem/mount-table.ts';
import type { IscsiSession, ScsiDisk } from '../iscsi/initiator/types.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';
import { isReaderOnly, type VolumeCapability } from '../volumes/model.ts';
import { verifiedDisk } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { assertNotHeld, isMounted } from './exclusive.ts';
import { mountOptions } from './mount-options.ts';
import type { StageRequest } from './operations.ts';
import { StillRunningError } from './outstanding.ts';
import { isSafeVolumeId, isStaged, type NodeRecord, type RecordedDevice } from './records.ts';
import { portalOf, requireLoggedIn, sessionsOf } from './sessions.ts';
import { mountStaging } from './staging-mount.ts';
import { assertNoSession, clearStale, deleteIscsiRecord, staleReason } from './stale.ts';
import { Undo } from './undo.ts';

export async function stageVolume(env: NodeEnvironment, request: StageRequest): Promise<void> {
  const { volumeId, publishContext: context } = request;
  env.outstanding.assertIdle(volumeId);
  checkRequest(request);
  const stagingPath = await env.resolve(request.stagingPath);
  const { record: usable, sessions } = await currentState(env, request, stagingPath);
  if (usable !== undefined) await checkCompatible(env, usable, request, stagingPath);
  const undo = new Undo(`volume ${volumeId} could not be staged`);
  try {
    const record = usable ?? newRecord(request, stagingPath, await env.bootId());
    // The last thing to be taken back; as all of an unfinished try is, also of an earlier one: nobody may come to unstage.
    if (!isStaged(record)) undo.pushMemory('node state record', () => env.records.remove(volumeId));
    // From here on a session to this target is explained.
    if (usable === undefined) await env.records.save(record);
    const { session, isFresh } = await openSession(env, request, record, sessions, undo);
    const disk = await verifiedDisk(env, {
      volumeId,
      session,
      lun: context.lun,
      serial: context.serial,
      minimumSizeBytes: context.sizeBytes,
      isFresh,
    });
    const device = checkDevice(request, record, session, disk);
    if (!isStaged(record)) await checkUnused(env, volumeId, disk, stagingPath);
    if (request.capability.access.kind === 'mount') {
      await mountStaging(env, { request, stagingPath, device, before: record.device, undo });
    }
    const { witnessIqn = record.witnessIqn } = context;
    const witness = witnessIqn === undefined ? {} : { witnessIqn };
    const staged: NodeRecord = { ...record, ...witness, stagingPath, phase: 'staged', device };
    if (JSON.stringify(staged) !== JSON.stringify(record)) await env.records.save(staged);
  } catch (error) {
    return await undo.run(error);
  }
}

/** @throws DriverError INVALID_ARGUMENT, FAILED_PRECONDITION */
function checkRequest({ volumeId, publishContext: context, capability }: StageRequest): void {
  if (!isSafeVolumeId(volumeId) || !context.targetIqn.endsWith(`:${volumeId}`)) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `volume ${JSON.stringify(volumeId)} cannot be staged with this publish_context`,
      found: `a target named ${context.targetIqn}`,
      action: 'pass volume id and publish_context of one and the same ControllerPublishVolume',
    });
  }
  const { access, mode } = capability;
  if (access.kind === 'block') return;
  mountOptions(access.mountFlags);
  if (mode === 'MULTI_NODE_MULTI_WRITER') {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: `volume ${volumeId} cannot be mounted on several nodes for writing`,
      found: 'a mount capability with access mode MULTI_NODE_MULTI_WRITER',
      action: 'use volumeMode Block, or another access mode',
    });
  }
  const { content } = context;
  if (content.kind === 'raw') {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be mounted`,
      found:
        'a volume that was created for raw block access; the driver made no file system on it and never will later',
      action: 'use it with volumeMode Block, or create a volume with a file system',
    });
  }
  if (access.fsType !== '' && access.fsType !== content.fsType) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be mounted as ${access.fsType}`,
      found: `the controller made ${content.fsType} on it`,
      action: `ask for ${content.fsType}, or leave the file system type out`,
    });
  }
}

/** The record and sessions of this attachment, with everything else ended. */
async function currentState(
  env: NodeEnvironment,
  { volumeId, publishContext: context, capability }: StageRequest,
  stagingPath: string,
): Promise<{ record: NodeRecord | undefined; sessions: readonly IscsiSession[] }> {
  const record = await env.records.load(volumeId);
  const sessions = await sessionsOf(env, volumeId);
  const staleness = staleReason(record, sessions, context, await env.bootId());
  const reason = staleness ?? otherAttempt(record, capability, stagingPath);
  const isOwnAttempt = staleness === undefined;
  if (reason === undefined) return { record, sessions };
  if (isOwnAttempt) await assertNothingRuns(env, volumeId, sessions);
  await clearStale(env, { volumeId, record, sessions, reason, stagingPath });
  return { record: undefined, sessions: [] };
}

/** A check or a mount of the earlier try may have outlived it. */
async function assertNothingRuns(
  env: NodeEnvironment,
  volumeId: string,
  sessions: readonly IscsiSession[],
): Promise<void> {
  for (const session of sessions) {
    for (const disk of await env.initiator.disks(session)) {
      if (!(await isMounted(env, disk))) await assertNotHeld(env, volumeId, disk);
    }
  }
}

/** An unfinished try at something else: nothing was handed out, so it need not be unstaged first. */
function otherAttempt(
  record: NodeRecord | undefined,
  capability: VolumeCapability,
  stagingPath: string,
): string | undefined {
  if (record === undefined || isStaged(record)) return undefined;
  const isSame =
    record.access === capability.access.kind &&
    record.readerOnly === isReaderOnly(capability.mode) &&
    record.stagingPath === stagingPath;
  return isSame ? undefined : 'an unfinished attempt with another capability or staging path';
}

async function checkCompatible(
  env: NodeEnvironment,
  record: NodeRecord,
  { volumeId, capability }: StageRequest,
  stagingPath: string,
): Promise<void> {
  const readerOnly = isReaderOnly(capability.mode);
  if (record.access !== capability.access.kind || record.readerOnly !== readerOnly) {
    const words = (access: string, reads: boolean): string => `${access}, ${reads ? 'reading only' : 'writing'}`;
    throw new DriverError('ALREADY_EXISTS', {
      problem: `volume ${volumeId} is staged with another capability`,
      found: `${words(record.access, record.readerOnly)}; asked: ${words(capability.access.kind, readerOnly)}`,
      action: 'unstage it first',
    });
  }
  if (record.stagingPath === stagingPath) return;
  const isMounted = (await env.mounts.at(record.stagingPath)) !== undefined;
  if (!isMounted && record.targets.length === 0) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be staged at ${stagingPath}`,
    found: `it is staged at ${record.stagingPath}`,
    action: 'unstage it there first',
  });
}

function newRecord(request: StageRequest, stagingPath: string, bootId: string): NodeRecord {
  const { targetIqn, witnessIqn, portals, lun, serial, nonce, content } = request.publishContext;
  return {
    format: 1,
    volumeId: request.volumeId,
    bootId,
    nonce,
    targetIqn,
    ...(witnessIqn === undefined ? {} : { witnessIqn }),
    portals: [...portals],
    lun,
    serial,
    content,
    access: request.capability.access.kind,
    readerOnly: isReaderOnly(request.capability.mode),
    stagingPath,
    phase: 'attaching',
    targets: [],
  };
}

/** The session of an earlier try, or a new one through the first portal that answers. */
async function openSession(
  env: NodeEnvironment,
  { volumeId, publishContext: context }: StageRequest,
  record: NodeRecord,
  sessions: readonly IscsiSession[],
  undo: Undo,
): Promise<{ session: IscsiSession; isFresh: boolean }> {
  const { targetIqn, chap, mutualChap } = context;
  const existing = isStaged(record) ? sessions.find(({ sid }) => sid === record.device.sid) : sessions[0];
  if (!isStaged(record)) undo.push('iSCSI session', () => undoSession(env, volumeId, record));
  if (existing !== undefined) {
    await requireLoggedIn(env, volumeId, existing, record);
    return { session: existing, isFresh: false };
  }
  const failures: unknown[] = [];
  for (const portal of context.portals) {
    try {
      const session = await env.outstanding.run(
        volumeId,
        `logging in to ${targetIqn} at ${portal}`,
        env.config.loginTimeoutMs + DEADLINES.loginMargin,
        () => step('session-login', () => env.initiator.login({ targetIqn, portal, chap, mutualChap })),
      );
      return { session, isFresh: true };
    } catch (error) {
      if (error instanceof StillRunningError) throw error;
      log().warn({ volumeId, targetIqn, portal, err: error }, 'login failed');
      failures.push(error);
    }
  }
  throw failures[0];
}

async function undoSession(env: NodeEnvironment, volumeId: string, record: NodeRecord): Promise<void> {
  const { targetIqn } = record;
  const made = await sessionsOf(env, volumeId);
  for (const session of made) {
    for (const disk of await env.initiator.disks(session)) {
      await assertNotHeld(env, volumeId, disk, { patienceMs: DEADLINES.release });
    }
    await env.outstanding.run(volumeId, `logging out of ${targetIqn}`, DEADLINES.logout, () =>
      step('stage-undo-logout', () => env.initiator.logout(targetIqn, portalOf(session, record))),
    );
  }
  await assertNoSession(env, volumeId);
  await deleteIscsiRecord(env, volumeId, targetIqn);
}

/** What is recorded of the disk; refuses one that cannot be written where writing is asked. */
function checkDevice(
  { volumeId, capability }: StageRequest,
  record: NodeRecord,
  session: IscsiSession,
  disk: ScsiDisk,
): RecordedDevice {
  const readOnly = record.readerOnly || disk.readOnly;
  if (disk.readOnly && !record.readerOnly) {
    log().info({ volumeId, disk: disk.name, mode: capability.mode }, 'the attachment is read-only: staged for reading');
  }
  const { name, majorMinor, sizeBytes } = disk;
  return { name, majorMinor, sid: session.sid, sizeBytes, readOnly };
}

/** Nobody else on this host may have taken the disk: LVM with a guest's volume group, multipath, an automounter. */
async function checkUnused(env: NodeEnvironment, volumeId: string, disk: ScsiDisk, stagingPath: string): Promise<void> {
  const holders = await env.devices.holders(disk.name);
  if (holders.length > 0) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId}: its disk ${disk.name} is in use on this node`,
      found: `device ${holders.join(', ')} on top of it`,
      action:
        'keep LVM and multipath of this node away from iSCSI disks of the driver (lvm.conf global_filter, multipath blacklist), and remove that device',
    });
  }
  const elsewhere = mountsOfDevice(await env.mounts.list(), disk).find(({ mountPoint }) => mountPoint !== stagingPath);
  if (elsewhere !== undefined) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId}: its disk ${disk.name} is mounted already`,
      found: `at ${elsewhere.mountPoint}, by somebody else`,
      action: 'unmount it there; the call is retried',
    });
  }
}
