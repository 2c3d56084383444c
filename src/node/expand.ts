/**
 * NodeExpandVolume: the disk is looked at again, and the file system grown while it is mounted. It comes without a
 * capability or a staging path (csi-sanity), so what the volume is comes from the record.
 */
import { stagedDisk } from './device.ts';
import type { NodeEnvironment } from './environment.ts';
import type { NodeExpandRequest } from './operations.ts';
import { growStaged } from './staging-mount.ts';
import { findVolume } from './volume-path.ts';

/**
 * Size of the device, in bytes. Not yet as large as required: UNAVAILABLE, since kubelet takes FAILED_PRECONDITION and
 * OUT_OF_RANGE for final here, and the storage host may merely be late.
 */
export async function expandVolume(env: NodeEnvironment, request: NodeExpandRequest): Promise<number> {
  const { volumeId } = request;
  env.outstanding.assertIdle(volumeId);
  const { record } = await findVolume(env, volumeId, request.volumePath);
  const disk = await stagedDisk(env, record, request.requiredBytes);
  // Staged for reading it stays as it is: the next staging for writing grows it.
  if (record.access === 'mount' && record.content.kind === 'filesystem') {
    const { stagingPath, content } = record;
    await growStaged(env, { volumeId, fsType: content.fsType, stagingPath, device: disk });
  }
  if (disk.sizeBytes !== record.device.sizeBytes) {
    await env.records.save({ ...record, device: { ...record.device, sizeBytes: disk.sizeBytes } });
  }
  return disk.sizeBytes;
}
