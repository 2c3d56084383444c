/** What an administrator sees: volume statistics in kubelet's metrics, the driver's own metrics. */
import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { bench, useCluster } from './support/bench.ts';
import { claim, DATA, pod } from './support/manifests.ts';

describe('what can be seen', () => {
  useCluster({ overlap: true });

  afterEach('kubelet as it was', async () => {
    await measuringDisks(bench().workers[0], false);
  });

  it("kubelet's metrics show size and use of a volume", async () => {
    const { kube, cluster, workers } = bench();
    const [one] = workers;
    await measuringDisks(one, true);
    await kube.apply(claim('data', { size: '400Mi' }), pod('user', 'data', { node: one.name }));
    await kube.podReady('user');
    await kube.exec('user', `dd if=/dev/zero of=${DATA}/file bs=1M count=50 conv=fsync 2>/dev/null`);
    const metric = async (name: string): Promise<number | undefined> => {
      const { stdout } = await cluster.kubectl(['get', '--raw', `/api/v1/nodes/${one.name}/proxy/metrics`]);
      const line = stdout
        .split('\n')
        .find(
          (each) => each.startsWith(`kubelet_volume_stats_${name}{`) && each.includes(`namespace="${kube.namespace}"`),
        );
      return line === undefined ? undefined : Number(line.split(' ').at(-1));
    };
    const used = await kube.waitFor('kubelet has seen the 50 MiB', async () => {
      const now = await metric('used_bytes');
      return now !== undefined && now >= 50 * 2 ** 20 && now;
    });
    const df = await kube.exec('user', `df -P -k ${DATA} | awk 'NR == 2 {print $2, $3}'`);
    const [size, dfUsed] = df.split(' ').map((kib) => Number(kib) * 1024);
    expect(await metric('capacity_bytes')).to.equal(size);
    expect(used).to.equal(dfUsed);
    expect(await metric('inodes')).to.be.greaterThan(0);
  });

  it("the driver's metrics tell calls, volumes and attachments", async () => {
    const { kube, storage, workers } = bench();
    const [one] = workers;
    // Those of the scenario before would be counted too.
    await kube.noVolumes();
    await kube.apply(claim('data', { size: '64Mi' }), pod('user', 'data', { node: one.name }));
    await kube.podReady('user');
    const scrape = (machine: typeof storage, port: number) =>
      machine
        .exec(`node -e 'require("node:http").get("http://127.0.0.1:${port}/metrics", (r) => r.pipe(process.stdout))'`)
        .then(({ stdout }) => stdout);
    const controller = await scrape(storage, 29800);
    expect(controller).to.match(/^lvm_iscsi_csi_volumes\S* 1$/m);
    expect(controller).to.match(/^lvm_iscsi_csi_attachments\S* 1$/m);
    expect(controller).to.match(/rpc_duration_seconds_count\{[^}]*method="ControllerPublishVolume"[^}]*code="OK"/);
    const node = await scrape(one, 29801);
    expect(node).to.match(/rpc_duration_seconds_count\{[^}]*method="NodeStageVolume"[^}]*code="OK"/);
  });
});

/**
 * The lab's kubelets do not measure their own disks, which spares the emulated processors much (test/cluster/hosts.ts); and
 * without that they have no statistics of any volume ("failed to get rootFs info"). So one does here, as every other kubelet.
 */
async function measuringDisks(worker: Machine, on: boolean): Promise<void> {
  const file = '/etc/kubernetes/kubelet.yaml';
  await worker.exec(
    `grep -q 'localStorageCapacityIsolation: ${on}' ${file} || { sed -i 's/localStorageCapacityIsolation: .*/localStorageCapacityIsolation: ${on}/' ${file} && systemctl restart kubelet.service; }`,
    { timeoutMs: 120_000 },
  );
}
