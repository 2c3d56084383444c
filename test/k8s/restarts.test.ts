/** Whatever is restarted or deleted around it, a pod goes on writing; and everything is cleaned up in the end. */
import { expect } from 'chai';
import { bench, DRIVER_NAMESPACE, driverReady, kubectl, RELEASE, useCluster } from './support/bench.ts';
import { claim, DATA, pod } from './support/manifests.ts';
import { acknowledged, expectLines, expectNoRestart, writerPod, writesOn } from './support/writer.ts';

describe('restarts and deletions around a pod that writes', () => {
  useCluster();

  it('kubelet, node plugin and controller plugin are restarted one after another', async () => {
    const { kube, driver, workers } = bench();
    const [one, two] = workers;
    await kube.apply(claim('data', { size: '64Mi' }), writerPod('writer', 'data', { node: one.name }));
    await kube.podReady('writer');
    const session = () => one.exec('ls -d /sys/class/iscsi_session/session* | sort').then(({ stdout }) => stdout);
    const before = await session();
    let line = await writesOn(kube, 'writer', 0);

    await one.exec('systemctl restart kubelet.service');
    line = await writesOn(kube, 'writer', line);

    const plugin = async (component: string, node: string): Promise<string> => {
      const { items } = await driver.core.listNamespacedPod({
        namespace: DRIVER_NAMESPACE,
        labelSelector: `app.kubernetes.io/component=${component}`,
        fieldSelector: `spec.nodeName=${node}`,
      });
      return items[0]?.metadata?.name ?? '';
    };
    await driver.deletePods([await plugin('node', one.name)]);
    line = await writesOn(kube, 'writer', line);
    await driverReady();
    line = await writesOn(kube, 'writer', line);

    await kubectl('--namespace', DRIVER_NAMESPACE, 'rollout', 'restart', `deployment/${RELEASE}-controller`);
    line = await writesOn(kube, 'writer', line);
    await driverReady();
    line = await writesOn(kube, 'writer', line);

    expect(await session(), 'the same session').to.equal(before);
    await expectNoRestart(kube, 'writer');
    await kube.deletePods(['writer']);
    await kube.apply(pod('reader', 'data', { node: two.name }));
    await kube.podReady('reader');
    await expectLines(kube, 'reader', line);
  });

  it('a claim that is deleted under its pod stays until the pod is gone, then the volume goes', async () => {
    const { kube } = bench();
    await kube.apply(claim('data', { size: '64Mi' }), writerPod('writer', 'data'));
    await kube.podReady('writer');
    const { metadata } = await kube.claimBound('data');
    await kube.delete(claim('data'));
    const line = await writesOn(kube, 'writer', 0);
    expect((await kube.claim('data')).metadata?.deletionTimestamp).to.not.equal(undefined);
    await writesOn(kube, 'writer', line);
    await expectNoRestart(kube, 'writer');
    await kube.deletePods(['writer']);
    await kube.waitFor('the volume is gone', async () => {
      const { items } = await kube.core.listPersistentVolume();
      return items.every((volume) => volume.metadata?.name !== metadata?.name);
    });
  });

  it('a pod that is deleted by force: its volume comes to the other node with everything that was flushed', async () => {
    const { kube, workers } = bench();
    const [one, two] = workers;
    await kube.apply(claim('data', { size: '64Mi' }), writerPod('writer', 'data', { node: one.name }));
    await kube.podReady('writer');
    await writesOn(kube, 'writer', 0);
    const line = await acknowledged(kube, 'writer');
    await kube.deletePods(['writer'], 0);
    await kube.apply(pod('reader', 'data', { node: two.name }));
    await kube.podReady('reader');
    await expectLines(kube, 'reader', line);
    expect(await kube.exec('reader', `touch ${DATA}/writable && echo yes`)).to.equal('yes');
  });
});
