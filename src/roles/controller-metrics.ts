/** The controller's gauges, refreshed just before each scrape. */
import { type AwaitedZeroing, ZERO_REASONS, type ZeroReason } from '../lvm/awaited-zeroing.ts';
import { increments } from '../lvm/progress.ts';
import { scrubStatus } from '../lvm/scrub.ts';
import type { Wiper } from '../lvm/wiper.ts';
import type { Metrics } from '../observability/metrics.ts';
import type { LvmBackend } from '../volumes/lvm-backend.ts';
import type { StorageHost } from './storage.ts';

export function controllerMetrics(
  metrics: Metrics,
  volumeGroup: string,
  host: Pick<StorageHost, 'lvm' | 'diskCaches' | 'blankTrust' | 'gates' | 'targets' | 'zeroing'>,
  backend: Pick<LvmBackend, 'listVolumes' | 'failures'>,
  wiper: Pick<Wiper, 'status'>,
): void {
  metrics.onCollect(async () => {
    const report = await host.lvm.read();
    const { vg } = report;
    metrics.set('vgSize', { vg: volumeGroup }, vg.sizeBytes);
    metrics.set('vgFree', { vg: volumeGroup }, vg.freeBytes);
    metrics.set('vgMetadataSize', { vg: volumeGroup }, vg.metadataSizeBytes);
    metrics.set('vgMetadataFree', { vg: volumeGroup }, vg.metadataFreeBytes);
    metrics.set('vgBlank', { vg: volumeGroup }, host.blankTrust.isBlank(report) ? 1 : 0);
    metrics.set('volatileCaches', { vg: volumeGroup }, host.diskCaches.volatile.length);
    metrics.set('scrubBacklog', { vg: volumeGroup }, scrubStatus(report).leftBytes);
  });
  metrics.onCollect(async () => metrics.set('comparisonFailures', {}, backend.failures.length));
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
    metrics.set(
      'sessions',
      { role: 'controller', state: 'LOGGED_IN' },
      targets.reduce((sum, target) => sum + target.sessions.length, 0),
    );
  });
  const addWiped = increments((bytes) => metrics.add('wiped', {}, bytes));
  metrics.onCollect(async () => {
    const { waitingBytes, waitingVolumes, wipedBytes } = wiper.status();
    metrics.set('wipeBacklog', {}, waitingBytes);
    metrics.set('wipeBacklogVolumes', {}, waitingVolumes);
    addWiped(wipedBytes);
  });
  for (const reason of ZERO_REASONS) zeroingMetrics(metrics, host.zeroing, reason);
}

function zeroingMetrics(metrics: Metrics, zeroing: AwaitedZeroing, reason: ZeroReason): void {
  const addZeroed = increments((bytes) => metrics.add('zeroed', { reason }, bytes));
  metrics.onCollect(async () => {
    const { waitingBytes, zeroedBytes } = zeroing.status(reason);
    metrics.set('zeroBacklog', { reason }, waitingBytes);
    addZeroed(zeroedBytes);
  });
}
