/** The controller's gauges, refreshed just before each scrape. */

import type { Wiper } from '../lvm/wiper.ts';
import type { Metrics } from '../observability/metrics.ts';
import type { Backend } from '../volumes/backend.ts';
import type { StorageHost } from './storage.ts';

export function controllerMetrics(
  metrics: Metrics,
  volumeGroup: string,
  host: StorageHost,
  backend: Backend,
  wiper: Wiper,
): void {
  let reportedBytes = 0;
  metrics.onCollect(async () => {
    const { vg } = await host.lvm.read();
    metrics.set('vgSize', { vg: volumeGroup }, vg.sizeBytes);
    metrics.set('vgFree', { vg: volumeGroup }, vg.freeBytes);
    metrics.set('vgMetadataSize', { vg: volumeGroup }, vg.metadataSizeBytes);
    metrics.set('vgMetadataFree', { vg: volumeGroup }, vg.metadataFreeBytes);
  });
  metrics.onCollect(async () => {
    const volumes = await backend.listVolumes();
    metrics.set('volumes', {}, volumes.length);
    metrics.set(
      'attachments',
      {},
      volumes.reduce((sum, volume) => sum + volume.attachments.length, 0),
    );
  });
  metrics.onCollect(async () => {
    const [gates, targets] = await Promise.all([host.gates.list(), host.targets.list()]);
    metrics.set('gatesSuspended', {}, gates.filter((gate) => gate.suspended).length);
    metrics.reset('sessions');
    metrics.set(
      'sessions',
      { state: 'LOGGED_IN' },
      targets.reduce((sum, target) => sum + target.sessions.length, 0),
    );
  });
  metrics.onCollect(async () => {
    const { waitingBytes, waitingVolumes, wipedBytes } = wiper.status();
    metrics.set('wipeBacklog', {}, waitingBytes);
    metrics.set('wipeBacklogVolumes', {}, waitingVolumes);
    metrics.add('wiped', {}, wipedBytes - reportedBytes);
    reportedBytes = wipedBytes;
  });
}
