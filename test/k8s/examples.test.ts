/** What a user finds to copy: each example is applied as it is, and its pods run. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { KubernetesObject } from '@kubernetes/client-node';
import { expect } from 'chai';
import { parseAllDocuments } from 'yaml';
import { bench, HELM_INSTALL, helmRelease, kubectl, useCluster } from './support/bench.ts';
import { Kube } from './support/kube.ts';
import { pod } from './support/manifests.ts';

const FOLDER = path.join(import.meta.dirname, '../../deploy/examples');

describe('deploy/examples', () => {
  useCluster({ overlap: true });

  const classes = read('storageclasses.yaml');

  before('its classes', async () => {
    await bench().kube.apply(...(await classes));
  });

  after(async () => {
    await bench().kube.delete(...(await classes));
  });

  for (const { file, pods } of [
    { file: 'pod.yaml', pods: ['lvm-iscsi-example'] },
    { file: 'block.yaml', pods: ['lvm-iscsi-block'] },
    { file: 'statefulset.yaml', pods: ['lvm-iscsi-set-0', 'lvm-iscsi-set-1', 'lvm-iscsi-set-2'] },
  ]) {
    it(file, async () => {
      const { kube } = bench();
      await kube.apply(...(await read(file)));
      for (const name of pods) await kube.podReady(name, 900_000);
    });
  }

  it('expansion.yaml, with the command that stands in it', async () => {
    const { kube } = bench();
    await kube.apply(...(await read('expansion.yaml')));
    await kube.podReady('lvm-iscsi-growing');
    const body = [{ op: 'replace', path: '/spec/resources/requests/storage', value: '2Gi' }];
    await kube.core.patchNamespacedPersistentVolumeClaim({
      name: 'lvm-iscsi-growing',
      namespace: kube.namespace,
      body,
    });
    await kube.waitFor(
      'the claim has its new size',
      async () => (await kube.claim('lvm-iscsi-growing')).status?.capacity?.['storage'] === '2Gi',
    );
  });

  describe('chap.yaml', () => {
    const file = path.join(FOLDER, 'chap.yaml');
    // The secret's namespace stands in the class: the file is for this one.
    const inDefault = async (): Promise<Kube> => new Kube(await bench().cluster.reachableKubeconfig(), 'default');

    afterEach('its objects are gone', async () => {
      const kube = await inDefault();
      await kube.deletePods(['user']);
      // The secret last: the attacher reads it for the detach too (docs/operations.md).
      await kubectl('delete', '--ignore-not-found', '--namespace=default', 'persistentvolumeclaim/lvm-iscsi-chap');
      await kube.noVolumes();
      await kubectl('delete', '--ignore-not-found', '--filename', file);
      await helmRelease(...HELM_INSTALL, '--reset-values');
    });

    it('the user that the secret names is the one that the target asks for', async () => {
      const kube = await inDefault();
      // Then the target that is looked at below is this one's.
      await kube.noVolumes();
      await helmRelease(...HELM_INSTALL, '--set', 'chapSecretNamespaces={default}');
      await kubectl('apply', '--filename', file);
      await kube.apply(pod('user', 'lvm-iscsi-chap'));
      await kube.podReady('user');
      const { stdout } = await bench().storage.exec(
        'cat /sys/kernel/config/target/iscsi/*:volume-*/tpgt_1/acls/*/auth/userid',
      );
      expect(stdout.trim()).to.equal('change-this-user');
    });
  });
});

async function read(file: string): Promise<KubernetesObject[]> {
  const text = await readFile(path.join(FOLDER, file), 'utf8');
  return parseAllDocuments(text).map((document) => document.toJS() as KubernetesObject);
}
