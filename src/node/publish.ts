/** NodePublishVolume: a bind mount of the staging path (mount) or of the disk's device node (block) at the target path. */
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import { boundDeviceName, isDeleted, type MountEntry } from '../filesystem/mount-table.ts';
import type { ScsiDisk } from '../iscsi/initiator/types.ts';
import { step } from '../system/step.ts';
import { modeClass } from '../volumes/capabilities.ts';
import { type AccessMode, isReaderOnly } from '../volumes/model.ts';
import { describeMount, isDeadMount, stagedDisk, stagedSession } from './device.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import { BIND_OPTIONS } from './mount-options.ts';
import type { NodePublishRequest } from './operations.ts';
import { isStaged, type StagedRecord } from './records.ts';
import { detachMounts } from './stale.ts';
import { Undo } from './undo.ts';

interface Publishing {
  readonly volumeId: string;
  readonly target: string;
  readonly record: StagedRecord;
  /** Asked for, or all that the attachment allows: kubelet asks for writing also where the volume's `readOnly` is set. */
  readonly readOnly: boolean;
  readonly undo: Undo;
}

export async function publishVolume(env: NodeEnvironment, request: NodePublishRequest): Promise<void> {
  const { volumeId, capability } = request;
  env.outstanding.assertIdle(volumeId);
  const target = await env.resolve(request.targetPath);
  const known = await publishedAs(env, volumeId, target);
  if (known !== undefined) checkSame(request, target, known);
  const record = await stagedRecord(env, request);
  if (known === undefined && capability.mode === 'SINGLE_NODE_SINGLE_WRITER')
    await checkOnlyTarget(env, record, target);
  const undo = new Undo(`volume ${volumeId} could not be published at ${target}`);
  const publishing: Publishing = {
    volumeId,
    target,
    record,
    readOnly: request.readonly || record.device.readOnly,
    undo,
  };
  // Before anything is tried: a session that is down would only make the pod hang.
  await stagedSession(env, record);
  const disk = record.access === 'block' ? await blockDisk(env, publishing, request.readonly) : undefined;
  try {
    if (known === undefined) {
      undo.pushMemory('target in the node state record', () => env.records.save(record));
      const others = record.targets.filter(({ path }) => path !== target);
      const targets = [...others, { path: target, readOnly: request.readonly, mode: capability.mode }];
      await env.records.save({ ...record, targets });
    }
    if (disk === undefined) await publishMount(env, publishing, known !== undefined);
    else await publishBlock(env, publishing, disk);
  } catch (error) {
    return await undo.run(error);
  }
}

interface Published {
  readonly access: 'mount' | 'block';
  readonly readOnly: boolean;
  readonly mode: AccessMode | undefined;
}

/** What the record knows of the target; undefined when nothing is mounted there: then it is only a try, or a memory. */
async function publishedAs(env: NodeEnvironment, volumeId: string, target: string): Promise<Published | undefined> {
  const record = await env.records.load(volumeId);
  const known = record?.targets.find(({ path }) => path === target);
  if (record === undefined || known === undefined || (await env.mounts.at(target)) === undefined) return undefined;
  return { access: record.access, readOnly: known.readOnly, mode: known.mode };
}

/** CSI: published at that target already, with other arguments. @throws DriverError ALREADY_EXISTS */
function checkSame({ volumeId, capability, readonly }: NodePublishRequest, target: string, known: Published): void {
  const { access, mode } = capability;
  const isOtherMode = known.mode !== undefined && modeClass(known.mode) !== modeClass(mode);
  if (known.access === access.kind && known.readOnly === readonly && !isOtherMode) return;
  const words = (kind: string, readOnly: boolean, as: string | undefined): string =>
    `${kind}, ${readOnly ? 'read-only' : 'for writing'}${isOtherMode ? `, ${as}` : ''}`;
  throw new DriverError('ALREADY_EXISTS', {
    problem: `volume ${volumeId} is published at ${target} with other arguments`,
    found: `${words(known.access, known.readOnly, known.mode)}; asked: ${words(access.kind, readonly, mode)}`,
    action: 'unpublish it first',
  });
}

/** @throws DriverError FAILED_PRECONDITION */
async function stagedRecord(env: NodeEnvironment, request: NodePublishRequest): Promise<StagedRecord> {
  const { volumeId, capability } = request;
  const record = await env.records.load(volumeId);
  const stagingPath = request.stagingPath === '' ? undefined : await env.resolve(request.stagingPath);
  let found: string | undefined;
  if (stagingPath === undefined) found = 'no staging path in the request';
  else if (!isStaged(record)) found = 'no staged volume of that id on this node';
  else if (record.stagingPath !== stagingPath) found = `it is staged at ${record.stagingPath}`;
  else if (record.access !== capability.access.kind) found = `it is staged for ${record.access} access`;
  else if (record.readerOnly !== isReaderOnly(capability.mode)) {
    found = `it is staged for ${record.readerOnly ? 'reading only' : 'writing'}, and asked with ${capability.mode}`;
  } else return record;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be published at ${request.targetPath} from ${request.stagingPath || '(none)'}`,
    found,
    action: 'call NodeStageVolume first, with the same staging path and capability',
  });
}

/** CSI, NodePublishVolume: SINGLE_NODE_SINGLE_WRITER allows one target path at a time. */
async function checkOnlyTarget(env: NodeEnvironment, record: StagedRecord, target: string): Promise<void> {
  const table = await env.mounts.list();
  const other = record.targets.find(({ path }) => table.some(({ mountPoint }) => mountPoint === path));
  if (other === undefined) return;
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${record.volumeId} cannot be published at ${target}: its access mode allows one target at a time`,
    found: `it is published at ${other.path}`,
    action: 'unpublish it there first',
  });
}

function alreadyPublished(volumeId: string, target: string, is: boolean, asked: boolean): DriverError {
  const words = (readOnly: boolean): string => (readOnly ? 'read-only' : 'for writing');
  return new DriverError('ALREADY_EXISTS', {
    problem: `volume ${volumeId} is published at ${target} with other arguments`,
    found: `${words(is)}; asked: ${words(asked)}`,
    action: 'unpublish it first',
  });
}

async function publishMount(env: NodeEnvironment, publishing: Publishing, isKnown: boolean): Promise<void> {
  const { volumeId, target, record, readOnly, undo } = publishing;
  const { stagingPath, device } = record;
  const staging = await env.mounts.at(stagingPath);
  if (staging?.majorMinor !== device.majorMinor) {
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be published: its staging mount is not there`,
      found: staging === undefined ? `nothing mounted at ${stagingPath}` : describeMount(staging),
      action: 'call NodeStageVolume again',
    });
  }
  const isOurs = (mount: MountEntry): boolean => mount.majorMinor === device.majorMinor && mount.root === staging.root;
  const existing = await existingMount(env, publishing, isOurs);
  if (existing === undefined) {
    await makeFolder(env, publishing);
    undo.push('bind mount', () => unmountTarget(env, volumeId, target));
    const options = readOnly ? [...BIND_OPTIONS, 'ro'] : BIND_OPTIONS;
    await env.outstanding.run(volumeId, `bind-mounting ${target}`, DEADLINES.mount, () =>
      step('publish-bind', () => env.mounts.bind(stagingPath, target, options)),
    );
  } else {
    const isReadOnlyBind = existing.options.includes('ro');
    // Only where the record says that it was begun as read-only is it an unfinished publish.
    if (readOnly && !isReadOnlyBind && !isKnown) throw alreadyPublished(volumeId, target, false, true);
    if (!readOnly && isReadOnlyBind && !staging.options.includes('ro')) {
      throw alreadyPublished(volumeId, target, true, false);
    }
  }
  if (readOnly) await makeReadOnly(env, publishing);
  const made = await env.mounts.at(target);
  if (made === undefined || !isOurs(made)) throw notAsAsked(volumeId, target, made);
}

async function makeReadOnly(env: NodeEnvironment, { volumeId, target }: Publishing): Promise<void> {
  if ((await env.mounts.at(target))?.options.includes('ro') === true) return;
  await env.outstanding.run(volumeId, `making ${target} read-only`, DEADLINES.mount, () =>
    step('publish-remount-readonly', () => env.mounts.remountReadOnly(target)),
  );
  const mount = await env.mounts.at(target);
  if (mount?.options.includes('ro') !== true) throw notAsAsked(volumeId, target, mount);
}

/** The disk as it is now: a rescan lets every node of a shared raw volume see growth. */
async function blockDisk(
  env: NodeEnvironment,
  { record, volumeId, target }: Publishing,
  readOnly: boolean,
): Promise<ScsiDisk> {
  const disk = await stagedDisk(env, record);
  if (readOnly && !disk.readOnly) {
    // A read-only bind mount of a device node does not keep anyone from writing to the device.
    throw new DriverError('FAILED_PRECONDITION', {
      problem: `volume ${volumeId} cannot be published read-only at ${target} as raw block`,
      found: `disk ${disk.name} is attached for writing, and a bind mount cannot make it read-only`,
      action: "attach it read-only (a reader-only access mode, or readOnly in the PersistentVolume's csi section)",
    });
  }
  return disk;
}

async function publishBlock(env: NodeEnvironment, publishing: Publishing, disk: ScsiDisk): Promise<void> {
  const { volumeId, target, undo } = publishing;
  const isOurs = (mount: MountEntry): boolean => boundDeviceName(mount) === disk.name && !isDeleted(mount);
  if ((await existingMount(env, publishing, isOurs)) === undefined) {
    await makeFile(env, publishing);
    undo.push('bind mount', () => unmountTarget(env, volumeId, target));
    await env.outstanding.run(volumeId, `bind-mounting ${target}`, DEADLINES.mount, () =>
      step('publish-bind-device', () => env.mounts.bind(disk.path, target, BIND_OPTIONS)),
    );
  }
  const made = await env.mounts.at(target);
  const stat = await env.files.stat(`${env.config.hostRoot}${target}`);
  if (made === undefined || !isOurs(made) || stat?.kind !== 'block' || stat.rdev !== disk.majorMinor) {
    throw notAsAsked(volumeId, target, made);
  }
}

/** The right mount at the target; undefined when nothing is there, a dead one having been taken away. */
async function existingMount(
  env: NodeEnvironment,
  { volumeId, target }: Publishing,
  isOurs: (mount: MountEntry) => boolean,
): Promise<MountEntry | undefined> {
  for (;;) {
    const mount = await env.mounts.at(target);
    if (mount === undefined || isOurs(mount)) return mount;
    if (!(await isDeadMount(env, mount))) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `volume ${volumeId} cannot be published at ${target}: something else is mounted there`,
        found: describeMount(mount),
        action: 'unmount it there; the call is retried',
      });
    }
    await detachMounts(env, [mount]);
  }
}

async function makeFolder(env: NodeEnvironment, { volumeId, target, undo }: Publishing): Promise<void> {
  const path = `${env.config.hostRoot}${target}`;
  const stat = await env.files.lstat(path);
  if (stat?.kind === 'directory') return;
  if (stat !== undefined) throw wrongTarget(volumeId, target, stat.kind, 'folder');
  undo.push('target folder', async () => {
    await assertUnmounted(env, target);
    await env.files.rmdir(path);
  });
  await step('publish-target-folder', () => env.files.mkdir(path, { recursive: true, mode: 0o750 }));
}

async function makeFile(env: NodeEnvironment, { volumeId, target, undo }: Publishing): Promise<void> {
  const path = `${env.config.hostRoot}${target}`;
  const stat = await env.files.lstat(path);
  if (stat?.kind === 'file' && stat.sizeBytes === 0) return;
  if (stat !== undefined) throw wrongTarget(volumeId, target, stat.kind, 'empty file');
  undo.push('target file', async () => {
    await assertUnmounted(env, target);
    await env.files.unlink(path);
  });
  await step('publish-target-file', async () => {
    try {
      await env.files.createExclusive(path, { mode: 0o640 });
    } catch (error) {
      if (!isCode(error, 'ENOENT')) throw error;
      await env.files.mkdir(path.slice(0, path.lastIndexOf('/')), { recursive: true, mode: 0o750 });
      await env.files.createExclusive(path, { mode: 0o640 });
    }
  });
}

function wrongTarget(volumeId: string, target: string, kind: string, wanted: string): DriverError {
  return new DriverError('FAILED_PRECONDITION', {
    problem: `volume ${volumeId} cannot be published at ${target}`,
    found: `a ${kind} in the place of a ${wanted}`,
    action: 'move it away; the call is retried',
  });
}

function notAsAsked(volumeId: string, target: string, mount: MountEntry | undefined): DriverError {
  return new DriverError('INTERNAL', {
    problem: `volume ${volumeId}: the mount at ${target} is not as asked`,
    found: mount === undefined ? 'no mount' : `${describeMount(mount)} with options ${mount.options.join(',')}`,
    action: 'the call is retried; see dmesg on this node',
  });
}

/**
 * The kernel keeps a mount point from removal only where the process that removes it sees the mount: from a namespace of
 * its own it would take the host's mount away with it (vfs_rmdir, detach_mounts).
 */
async function assertUnmounted(env: NodeEnvironment, target: string): Promise<void> {
  const mount = await env.mounts.at(target);
  if (mount === undefined) return;
  throw new DriverError('ABORTED', {
    problem: `${target} is not removed: it is a mount point`,
    found: describeMount(mount),
    action: `the call is retried; if that does not help, see what uses it (fuser -vm ${target}) and unmount it`,
  });
}

async function unmountTarget(env: NodeEnvironment, volumeId: string, target: string): Promise<void> {
  if ((await env.mounts.at(target)) === undefined) return;
  await env.outstanding.run(volumeId, `unmounting ${target}`, DEADLINES.unmount, () =>
    step('publish-undo-unmount', () => env.mounts.unmount(target)),
  );
}
