/** The driver is upgraded, taken away and put back under volumes that are in use. */
import path from 'node:path';
import { expect } from 'chai';
import {
  bench,
  DRIVER_NAMESPACE,
  driverReady,
  HELM_INSTALL,
  helmRelease,
  installDriver,
  kubectl,
  RELEASE,
  useCluster,
} from './support/bench.ts';
import { CHART_CLASS, claim, DATA, pod } from './support/manifests.ts';
import { expectLines, expectNoRestart, writerPod, writesOn } from './support/writer.ts';

const MANIFESTS = path.join(import.meta.dirname, '../../deploy/kubernetes');

describe('upgrade, rollback, uninstall', () => {
  useCluster();

  after('the driver as it was', async function () {
    this.timeout(1_500_000);
    await installDriver();
  });

  it('helm upgrade to another image and back, with a pod that writes: nothing is lost, nothing restarted', async () => {
    const { kube, cluster, storage, workers } = bench();
    const [one] = workers;
    await kube.apply(claim('data', { size: '64Mi' }), writerPod('writer', 'data', { node: one.name }));
    await kube.podReady('writer');
    let line = await writesOn(kube, 'writer', 10);
    // Another name of the same content is another image to Kubernetes: every pod of the driver is replaced.
    const { stdout } = await storage.exec(
      "ctr --namespace k8s.io images ls --quiet | grep '^ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:'",
    );
    const image = stdout.split('\n')[0] ?? '';
    const next = image.replace(/:[^:]*$/, ':next');
    for (const machine of cluster.lab.machines) {
      await machine.exec(`ctr --namespace k8s.io images tag --force ${image} ${next}`);
    }
    await helmRelease(...HELM_INSTALL, '--set', 'image.tag=next');
    await driverReady();
    expect(await imagesOfDriver()).to.deep.equal([next]);
    line = await writesOn(kube, 'writer', line);
    await helmRelease('rollback', RELEASE, '--namespace', DRIVER_NAMESPACE);
    await driverReady();
    expect(await imagesOfDriver()).to.deep.equal([image]);
    line = await writesOn(kube, 'writer', line);
    await expectNoRestart(kube, 'writer');
    await expectLines(kube, 'writer', line);
    await kube.deletePods(['writer']);
  });

  it('helm uninstall with volumes left: volumes and data survive, and an install takes them up again', async () => {
    const { kube, storage } = bench();
    await kube.apply(claim('data', { size: '64Mi' }), pod('writer', 'data'));
    await kube.podReady('writer');
    await kube.exec('writer', `echo survives > ${DATA}/file && sync`);
    const volume = await kube.claimBound('data');
    await kube.deletePods(['writer']);
    await kube.waitFor('it is detached', async () => {
      const { items } = await kube.storage.listVolumeAttachment();
      return items.length === 0;
    });
    await helmRelease('uninstall', RELEASE, '--namespace', DRIVER_NAMESPACE, '--wait');
    const { stdout } = await storage.exec('lvs --noheadings -o lv_name cinder-volumes');
    expect(stdout.split('\n').filter((line) => line.trim() !== '')).to.have.lengthOf(1);
    expect((await kube.core.readPersistentVolume({ name: volume.metadata?.name ?? '' })).status?.phase).to.equal(
      'Bound',
    );
    await installDriver();
    await kube.apply(pod('reader', 'data'));
    await kube.podReady('reader');
    expect(await kube.exec('reader', `cat ${DATA}/file`)).to.equal('survives');
    expect((await kube.claim('data')).spec?.storageClassName).to.equal(CHART_CLASS);
  });

  it('the plain manifests, as they are, install what helm installs', async () => {
    const { kube } = bench();
    await helmRelease('uninstall', RELEASE, '--namespace', DRIVER_NAMESPACE, '--wait');
    await kubectl('apply', '--kustomize', MANIFESTS);
    try {
      await driverReady();
      await kube.apply(claim('data', { size: '64Mi' }), pod('user', 'data'));
      await kube.podReady('user');
      expect(await kube.exec('user', `echo there > ${DATA}/file && cat ${DATA}/file`)).to.equal('there');
      await kube.deletePods(['user']);
      await kube.delete(claim('data'));
      await kube.noVolumes();
    } finally {
      await kubectl('delete', '--ignore-not-found', '--kustomize', MANIFESTS);
      await installDriver();
    }
  });
});

async function imagesOfDriver(): Promise<string[]> {
  const { driver } = bench();
  const { items } = await driver.core.listNamespacedPod({ namespace: DRIVER_NAMESPACE });
  const images = items.map(({ spec }) => spec?.containers.find(({ name }) => name === 'driver')?.image ?? '');
  return [...new Set(images)];
}
