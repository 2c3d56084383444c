/** A claim that grows while its pod writes. */
import { expect } from 'chai';
import { bench, useCluster } from './support/bench.ts';
import { claim, DATA, DEVICE, pod, storageClass } from './support/manifests.ts';

const MIB = 2 ** 20;
/** Appends numbered lines, each flushed, until it is told to stop. */
const WRITER = `n=0; while [ ! -e ${DATA}/stop ]; do n=$((n + 1)); echo $n >> ${DATA}/lines; sync ${DATA}/lines; done; touch ${DATA}/stopped; while :; do sleep 3600 & wait $!; done`;

describe('expansion in Kubernetes', () => {
  useCluster({ overlap: true });

  for (const fsType of ['ext4', 'xfs']) {
    it(`${fsType} grows under a pod that writes; df in the pod shows it`, async () => {
      const { kube } = bench();
      const name = `${fsType}-growth`;
      await kube.apply(storageClass(name, { parameters: { 'csi.storage.k8s.io/fstype': fsType } }));
      try {
        await kube.apply(
          claim('data', { storageClass: name, size: '400Mi' }),
          pod('writer', 'data', { script: WRITER }),
        );
        await kube.podReady('writer');
        const size = async (): Promise<number> =>
          Number(await kube.exec('writer', `df -P -k ${DATA} | awk 'NR == 2 {print $2 * 1024}'`));
        const before = await size();
        expect(before).to.be.within(300 * MIB, 400 * MIB);
        await kube.apply(claim('data', { storageClass: name, size: '800Mi' }));
        await kube.waitFor(
          'the claim has its new size',
          async () => (await kube.claim('data')).status?.capacity?.['storage'] === '800Mi',
          { explain: async () => (await kube.events('PersistentVolumeClaim', 'data')).join('\n') },
        );
        expect(await size()).to.be.within(700 * MIB, 800 * MIB);
        const lines = await kube.exec(
          'writer',
          `touch ${DATA}/stop; while [ ! -e ${DATA}/stopped ]; do sleep 1; done; wc -l < ${DATA}/lines; tail -n 1 ${DATA}/lines`,
        );
        const [count, last] = lines.split('\n').map(Number);
        expect(count).to.be.greaterThan(0);
        expect(last, 'no line is missing').to.equal(count);
        const pods = await kube.pod('writer');
        expect(pods.status?.containerStatuses?.[0]?.restartCount, 'the pod was not restarted').to.equal(0);
        await kube.deletePods(['writer']);
      } finally {
        await kube.delete(storageClass(name));
      }
    });
  }

  it('raw block grows under its pod', async () => {
    const { kube } = bench();
    await kube.apply(claim('data', { block: true, size: '64Mi' }), pod('reader', 'data', { block: true }));
    await kube.podReady('reader');
    const size = () => kube.exec('reader', `blockdev --getsize64 ${DEVICE}`);
    expect(await size()).to.equal(String(64 * MIB));
    await kube.apply(claim('data', { block: true, size: '128Mi' }));
    await kube.waitFor('the device has its new size', async () => (await size()) === String(128 * MIB));
    await kube.waitFor(
      'the claim says so',
      async () => (await kube.claim('data')).status?.capacity?.['storage'] === '128Mi',
    );
  });
});
