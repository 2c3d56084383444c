/** NodeGetVolumeStats. */
import { DriverError } from '../errors.ts';
import { DEADLINES, type NodeEnvironment } from './environment.ts';
import type { VolumeStats } from './operations.ts';
import { findVolume } from './volume-path.ts';

export async function volumeStats(env: NodeEnvironment, volumeId: string, volumePath: string): Promise<VolumeStats> {
  const { record, path } = await findVolume(env, volumeId, volumePath);
  if (record.access === 'block') {
    const totalBytes = await env.devices.sizeBytes(record.device.majorMinor);
    if (totalBytes !== undefined) return { kind: 'block', totalBytes };
    throw new DriverError('UNAVAILABLE', {
      problem: `volume ${volumeId}: its disk ${record.device.name} has gone`,
      found: 'its iSCSI session has ended',
      action: 'stage the volume again (Kubernetes: delete the pod)',
    });
  }
  const stat = await env.files.statfs(`${env.config.hostRoot}${path}`, { timeoutMs: DEADLINES.statfs });
  return { kind: 'mount', ...stat };
}
