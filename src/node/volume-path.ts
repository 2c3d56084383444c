/** NodeGetVolumeStats and NodeExpandVolume name a volume and a path: is that path one where the volume is? */
import { posix } from 'node:path';
import { DriverError } from '../errors.ts';
import { boundDeviceName, isDeleted, type MountEntry } from '../filesystem/mount-table.ts';
import type { NodeEnvironment } from './environment.ts';
import { isStaged, type StagedRecord } from './records.ts';

export interface VolumePlace {
  readonly record: StagedRecord;
  /** Resolved. */
  readonly path: string;
  /** undefined: the staging path of a block volume, where nothing is mounted. */
  readonly mount: MountEntry | undefined;
}

/**
 * Existence comes before shape: a relative path is one where the volume is not (csi-sanity asks for NOT_FOUND).
 * @throws DriverError NOT_FOUND
 */
export async function findVolume(env: NodeEnvironment, volumeId: string, volumePath: string): Promise<VolumePlace> {
  const record = await env.records.load(volumeId);
  if (!isStaged(record)) {
    throw new DriverError('NOT_FOUND', {
      problem: `volume ${JSON.stringify(volumeId)} is not staged on this node`,
      action: 'call NodeStageVolume first (Kubernetes: delete the pod, it is started anew)',
    });
  }
  const path = posix.isAbsolute(volumePath) ? await env.resolve(volumePath) : undefined;
  const mount = path === undefined ? undefined : await env.mounts.at(path);
  if (path !== undefined && isHere(record, path, mount)) return { record, path, mount };
  throw new DriverError('NOT_FOUND', {
    problem: `volume ${volumeId} is not at ${JSON.stringify(volumePath)}`,
    found: `it is staged at ${record.stagingPath}${record.targets.map((target) => `, published at ${target.path}`).join('')}`,
    action: 'name one of these paths, or publish the volume there first',
  });
}

function isHere(record: StagedRecord, path: string, mount: MountEntry | undefined): boolean {
  const { device } = record;
  if (record.access === 'mount') return mount?.majorMinor === device.majorMinor && boundDeviceName(mount) === undefined;
  if (mount === undefined) return path === record.stagingPath;
  return boundDeviceName(mount) === device.name && !isDeleted(mount);
}
