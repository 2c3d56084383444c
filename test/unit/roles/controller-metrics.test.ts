import { expect } from 'chai';
import type { IscsiSession } from '../../../src/iscsi/initiator/types.ts';
import type { Targets } from '../../../src/iscsi/target/types.ts';
import { AwaitedZeroing } from '../../../src/lvm/awaited-zeroing.ts';
import type { DiskCaches } from '../../../src/lvm/disk-caches.ts';
import { RateLimiter } from '../../../src/lvm/rate-limit.ts';
import { BlankTrust, scrub } from '../../../src/lvm/scrub.ts';
import type { WiperStatus } from '../../../src/lvm/wiper.ts';
import { Metrics } from '../../../src/observability/metrics.ts';
import { controllerMetrics } from '../../../src/roles/controller-metrics.ts';
import { sessionMetrics } from '../../../src/roles/node-plugin.ts';
import { FakeVg, FakeZeroing, GIB, MIB } from '../lvm/fake-vg.ts';
import { FakeHost } from '../volumes/fake-host.ts';

describe('metrics of the controller', () => {
  const diskCaches = { volatile: ['sda', 'sdb'] } as unknown as DiskCaches;
  let vg: FakeVg;
  let commands: FakeZeroing;
  let zeroing: AwaitedZeroing;
  let metrics: Metrics;
  let wipedBytes: number;
  let wiper: { status: () => WiperStatus };

  beforeEach(() => {
    vg = new FakeVg();
    commands = new FakeZeroing();
    zeroing = new AwaitedZeroing(commands, new RateLimiter(0));
    metrics = new Metrics('controller', '1');
    wipedBytes = 0;
    const { gates, targets } = new FakeHost().dependencies();
    wiper = {
      status: (): WiperStatus => ({
        waitingVolumes: 1,
        waitingBytes: 10,
        wipedBytes,
        removedVolumes: 0,
        bytesPerSecond: undefined,
        etaSeconds: undefined,
        current: undefined,
        lastError: undefined,
      }),
    };
    const blankTrust = new BlankTrust(vg, () => true);
    const host = { lvm: vg, diskCaches, blankTrust, gates, targets, zeroing };
    controllerMetrics(metrics, 'vg', host, { listVolumes: async () => [], failures: [] }, wiper);
  });

  async function value(name: string): Promise<number> {
    const line = (await metrics.render()).split('\n').find((each) => each.startsWith(`lvm_iscsi_csi_${name} `));
    return Number(line?.split(' ')[1]);
  }

  it('zeroing: 0 from the start, what is left while a call waits, what was done afterwards', async () => {
    for (const reason of ['create', 'expand']) {
      expect(await value(`zero_backlog_bytes{reason="${reason}"}`)).to.equal(0);
      expect(await value(`zeroed_bytes_total{reason="${reason}"}`)).to.equal(0);
    }
    const proceed = Promise.withResolvers<void>();
    const run = commands.run.bind(commands);
    commands.run = async (request) => {
      await proceed.promise;
      return await run(request);
    };
    const waiting = zeroing.zeroNew('/dev/vg/a', GIB);
    expect(await value('zero_backlog_bytes{reason="create"}')).to.equal(GIB);
    proceed.resolve();
    await waiting;
    await zeroing.zeroNew('/dev/vg/a', 64 * MIB);
    expect(await value('zero_backlog_bytes{reason="create"}')).to.equal(0);
    for (let scrape = 0; scrape < 2; scrape += 1)
      expect(await value('zeroed_bytes_total{reason="create"}')).to.equal(GIB + 64 * MIB);
    expect(await value('zeroed_bytes_total{reason="expand"}')).to.equal(0);
  });

  it('scrub: what it has left while it runs or is interrupted, and whether its result is trusted', async () => {
    const stop = new AbortController();
    const onProgress = ({ doneBytes }: { doneBytes: number }): void => {
      if (doneBytes > 5 * GIB) stop.abort(new Error('stopped'));
    };
    expect(await value('scrub_backlog_bytes{vg="vg"}')).to.equal(0);
    expect(await value('vg_free_blank{vg="vg"}')).to.equal(0);
    await scrub({ lvm: vg, commands, isOurs: () => true, onProgress, signal: stop.signal }).catch(() => undefined);
    expect(await value('scrub_backlog_bytes{vg="vg"}')).to.be.within(4 * GIB, 9 * GIB);
    expect(await value('vg_free_blank{vg="vg"}')).to.equal(0);
    await scrub({ lvm: vg, commands, isOurs: () => true });
    expect(await value('scrub_backlog_bytes{vg="vg"}')).to.equal(0);
    expect(await value('vg_free_blank{vg="vg"}')).to.equal(1);
  });

  it('disks whose cache is volatile', async () => {
    expect(await value('disks_with_volatile_cache{vg="vg"}')).to.equal(2);
  });

  it('sessions: those of both roles of one process, and no state that keeps an old number', async () => {
    const both = new Metrics('all', '1');
    const states: IscsiSession['state'][] = ['LOGGED_IN', 'FAILED', 'FAILED'];
    const targetIqn = 'iqn.2010-10.org.openstack:volume-00000000-0000-4000-8000-000000000001';
    sessionMetrics(both, {
      sessions: async () =>
        states.map((state, sid) => ({ sid, hostNumber: 1, targetIqn, portal: 'p', state, chapUser: undefined })),
    });
    const { gates } = new FakeHost().dependencies();
    const targets = { list: async () => [{ sessions: ['a', 'b'] }, { sessions: ['c'] }] } as unknown as Targets;
    const blankTrust = new BlankTrust(vg, () => true);
    const host = { lvm: vg, diskCaches, blankTrust, gates, targets, zeroing };
    controllerMetrics(both, 'vg', host, { listVolumes: async () => [], failures: [] }, wiper);
    const shown = async () =>
      (await both.render())
        .split('\n')
        .filter((line) => line.startsWith('lvm_iscsi_csi_sessions{'))
        .toSorted();
    const controller = 'lvm_iscsi_csi_sessions{role="controller",state="LOGGED_IN"} 3';
    const node = (state: string, number: number) => `lvm_iscsi_csi_sessions{role="node",state="${state}"} ${number}`;
    for (let scrape = 0; scrape < 2; scrape += 1)
      expect(await shown()).to.deep.equal([controller, node('FAILED', 2), node('LOGGED_IN', 1)]);
    states.splice(1);
    expect(await shown()).to.deep.equal([controller, node('FAILED', 0), node('LOGGED_IN', 1)]);
  });

  it('wiping: the counter follows the worker’s total', async () => {
    for (const total of [5, 5, 12]) {
      wipedBytes = total;
      expect(await value('wiped_bytes_total')).to.equal(total);
    }
  });
});
