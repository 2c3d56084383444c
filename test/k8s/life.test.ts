/** What people come for: a claim, a pod that writes, and the same bytes on another node. */
import type { V1CSIStorageCapacity } from '@kubernetes/client-node';
import { expect } from 'chai';
import { bench, DRIVER, RELEASE, useCluster } from './support/bench.ts';
import { claim, DATA, DEVICE, pod, storageClass } from './support/manifests.ts';

const TOPOLOGY_KEY = `topology.${DRIVER}/access`;

describe('a volume in Kubernetes', () => {
  useCluster({ overlap: true });

  it('helm install makes everything that a cluster wants to know', async () => {
    const { kube, workers, storage } = bench();
    const csiDriver = await kube.storage.readCSIDriver({ name: DRIVER });
    expect(csiDriver.spec).to.include({
      attachRequired: true,
      fsGroupPolicy: 'File',
      storageCapacity: true,
      seLinuxMount: true,
    });
    for (const { name } of [storage, ...workers]) {
      const node = await kube.waitFor(`CSINode of ${name} with our driver`, async () => {
        const { spec } = await kube.storage.readCSINode({ name });
        return spec.drivers.find((each) => each.name === DRIVER);
      });
      expect(node.nodeID).to.contain(name);
      expect(node.allocatable?.count).to.be.greaterThan(0);
      expect(node.topologyKeys).to.deep.equal([TOPOLOGY_KEY]);
    }
    const made = await kube.waitFor('a CSIStorageCapacity of the class', async () => await capacityOf('lvm-iscsi'));
    expect(made.capacity).to.match(/^[1-9][0-9]*(Ki|Mi|Gi)?$/);
    expect(made.nodeTopology?.matchLabels).to.deep.equal({ [TOPOLOGY_KEY]: 'iscsi' });
    expect(made.metadata?.ownerReferences?.[0]).to.include({ kind: 'Deployment', name: `${RELEASE}-controller` });
  });

  for (const { fsType, bindingMode } of [
    { fsType: 'ext4', bindingMode: 'Immediate' },
    { fsType: 'xfs', bindingMode: 'WaitForFirstConsumer' },
  ] as const) {
    it(`${fsType}, ${bindingMode}: what a pod wrote is there on the other node`, async () => {
      const { kube, workers } = bench();
      const [one, two] = workers;
      const name = `${fsType}-life`;
      await kube.apply(storageClass(name, { bindingMode, parameters: { 'csi.storage.k8s.io/fstype': fsType } }));
      try {
        await kube.apply(
          claim('data', { storageClass: name, size: '400Mi' }),
          pod('writer', 'data', { node: one.name }),
        );
        await kube.podReady('writer');
        const written = await kube.exec(
          'writer',
          `dd if=/dev/urandom of=${DATA}/file bs=64k count=64 conv=fsync 2>/dev/null && sha256sum ${DATA}/file; grep ' ${DATA} ' /proc/mounts`,
        );
        expect(written).to.match(new RegExp(`^/dev/sd[a-z]+ ${DATA} ${fsType} rw`, 'm'));
        const capacity = await kube.waitFor(`the room for class ${name}`, async () => await capacityOf(name));
        await kube.deletePods(['writer']);
        await kube.apply(pod('reader', 'data', { node: two.name }));
        await kube.podReady('reader');
        expect(await kube.exec('reader', `sha256sum ${DATA}/file`)).to.equal(written.split('\n')[0]);
        // Kept up to date, not made anew: between the two the scheduler would find no room.
        expect((await capacityOf(name))?.metadata?.uid).to.equal(capacity.metadata?.uid);
        await kube.deletePods(['reader']);
      } finally {
        await kube.delete(storageClass(name));
      }
    });
  }

  async function capacityOf(className: string): Promise<V1CSIStorageCapacity | undefined> {
    const { storage, namespace } = bench().driver;
    const { items } = await storage.listNamespacedCSIStorageCapacity({ namespace });
    return items.find(({ storageClassName }) => storageClassName === className);
  }

  it('raw block: what a pod wrote is there on the other node', async () => {
    const { kube, workers } = bench();
    const [one, two] = workers;
    await kube.apply(claim('data', { block: true, size: '64Mi' }));
    await kube.apply(pod('writer', 'data', { node: one.name, block: true }));
    await kube.podReady('writer');
    // A new volume is blank.
    expect(await kube.exec('writer', `tr -d '\\000' <${DEVICE} | wc -c`)).to.equal('0');
    const written = await kube.exec(
      'writer',
      `dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null && dd if=/tmp/x of=${DEVICE} bs=64k seek=100 conv=fsync,notrunc 2>/dev/null && sha256sum </tmp/x`,
    );
    await kube.deletePods(['writer']);
    await kube.apply(pod('reader', 'data', { node: two.name, block: true }));
    await kube.podReady('reader');
    const read = await kube.exec('reader', `dd if=${DEVICE} bs=64k skip=100 count=64 2>/dev/null | sha256sum`);
    expect(read).to.equal(written);
    await kube.deletePods(['reader']);
  });
});
