/** Who may use a volume, where and how; volumes that were there before their claims. */
import type { KubernetesObject, V1PersistentVolume } from '@kubernetes/client-node';
import { expect } from 'chai';
import { POD_IMAGE } from '../cluster/images.ts';
import { bench, DRIVER, useCluster } from './support/bench.ts';
import { claim, DATA, DEVICE, pod, storageClass } from './support/manifests.ts';

describe('access to volumes in Kubernetes', () => {
  useCluster({ overlap: true });

  it('ReadWriteOncePod: a second pod waits, with the reason', async () => {
    const { kube } = bench();
    await kube.apply(claim('data', { accessMode: 'ReadWriteOncePod', size: '64Mi' }), pod('first', 'data'));
    await kube.podReady('first');
    await kube.apply(pod('second', 'data'));
    await kube.event('Pod', 'second', /ReadWriteOncePod/);
    await kube.deletePods(['first']);
    await kube.podReady('second');
  });

  it('ReadWriteOnce on two nodes: the second waits, with an event that says where the volume is; then it runs', async () => {
    const { kube, workers } = bench();
    const [one, two] = workers;
    await kube.apply(claim('data', { size: '64Mi' }), pod('first', 'data', { node: one.name }));
    await kube.podReady('first');
    await kube.apply(pod('second', 'data', { node: two.name }));
    await kube.event('Pod', 'second', /FailedAttachVolume: .*(Multi-Attach|already)/);
    await kube.deletePods(['first']);
    await kube.podReady('second');
  });

  it('ReadOnlyMany: a volume that was filled before is read on both nodes at once, and written on neither', async () => {
    const { kube, workers } = bench();
    const [one, two] = workers;
    await kube.apply(storageClass('retained', { reclaimPolicy: 'Retain' }));
    try {
      await kube.apply(claim('filled', { storageClass: 'retained', size: '64Mi' }), pod('filler', 'filled'));
      await kube.podReady('filler');
      await kube.exec('filler', `echo for everyone > ${DATA}/file && sync`);
      await kube.deletePods(['filler']);
      const volume = await kube.claimBound('filled');
      const handle = volume.spec?.csi?.volumeHandle ?? '';
      await kube.delete(claim('filled'));
      await kube.waitFor('the volume is released', async () => {
        const { status } = await kube.core.readPersistentVolume({ name: volume.metadata?.name ?? '' });
        return status?.phase === 'Released';
      });
      // Before that Kubernetes takes the attachment for the new object's, which has the same handle.
      await kube.waitFor('it is detached', async () => (await kube.storage.listVolumeAttachment()).items.length === 0);
      // The object goes, the volume stays.
      await kube.core.deletePersistentVolume({ name: volume.metadata?.name ?? '' });
      await kube.apply(staticVolume('shared', handle, 'ReadOnlyMany', true));
      await kube.apply(
        claim('shared', { storageClass: '', accessMode: 'ReadOnlyMany', size: '64Mi', volumeName: 'shared' }),
      );
      for (const [name, { name: node }] of [
        ['reader-1', one],
        ['reader-2', two],
      ] as const) {
        await kube.apply(pod(name, 'shared', { node, readOnly: true }));
      }
      for (const name of ['reader-1', 'reader-2']) {
        await kube.podReady(name);
        expect(await kube.exec(name, `cat ${DATA}/file; touch ${DATA}/x 2>&1 || true`)).to.match(
          /^for everyone\n.*[Rr]ead-only file system/,
        );
      }
      await kube.deletePods(['reader-1', 'reader-2']);
    } finally {
      await kube.delete(storageClass('retained'));
    }
  });

  it('ReadWriteMany: raw block on both nodes at once; refused for a file system, with the reason', async () => {
    const { kube, workers } = bench();
    const [one, two] = workers;
    await kube.apply(claim('shared', { accessMode: 'ReadWriteMany', block: true, size: '64Mi' }));
    await kube.apply(pod('first', 'shared', { node: one.name, block: true }));
    await kube.apply(pod('second', 'shared', { node: two.name, block: true }));
    await kube.podReady('first');
    await kube.podReady('second');
    await kube.exec('first', `echo from the first | dd of=${DEVICE} bs=512 conv=sync,fsync,notrunc 2>/dev/null`);
    expect(await kube.exec('second', `dd if=${DEVICE} bs=512 count=1 iflag=direct 2>/dev/null | head -n 1`)).to.equal(
      'from the first',
    );
    await kube.apply(claim('refused', { accessMode: 'ReadWriteMany', size: '64Mi' }));
    await kube.event('PersistentVolumeClaim', 'refused', /ProvisioningFailed: .*volumeMode.*Block/);
  });

  it('Retain: the volume outlives its claim, and a new claim takes it up with its data', async () => {
    const { kube } = bench();
    await kube.apply(storageClass('kept', { reclaimPolicy: 'Retain' }));
    try {
      await kube.apply(claim('before', { storageClass: 'kept', size: '64Mi' }), pod('writer', 'before'));
      await kube.podReady('writer');
      await kube.exec('writer', `echo kept > ${DATA}/file && sync`);
      await kube.deletePods(['writer']);
      const { metadata } = await kube.claimBound('before');
      const name = metadata?.name ?? '';
      await kube.delete(claim('before'));
      await kube.waitFor(
        'the volume is released',
        async () => (await kube.core.readPersistentVolume({ name })).status?.phase === 'Released',
      );
      await kube.core.patchPersistentVolume({ name, body: [{ op: 'remove', path: '/spec/claimRef' }] });
      await kube.apply(
        claim('after', { storageClass: 'kept', size: '64Mi', volumeName: name }),
        pod('reader', 'after'),
      );
      await kube.podReady('reader');
      expect(await kube.exec('reader', `cat ${DATA}/file`)).to.equal('kept');
      await kube.deletePods(['reader']);
    } finally {
      await kube.delete(storageClass('kept'));
    }
  });

  it('a generic ephemeral volume comes and goes with its pod', async () => {
    const { kube } = bench();
    const { spec } = claim('ignored', { size: '64Mi' });
    const ephemeral = { volumeClaimTemplate: { spec: spec ?? {} } };
    await kube.apply(pod('short', '', { spec: { volumes: [{ name: 'data', ephemeral }] } }));
    await kube.podReady('short');
    await kube.exec('short', `echo x > ${DATA}/file`);
    await kube.claimBound('short-data');
    await kube.deletePods(['short']);
    await kube.waitFor('its claim is gone', async () => {
      const { items } = await kube.core.listNamespacedPersistentVolumeClaim({ namespace: kube.namespace });
      return items.length === 0;
    });
  });

  it('a key that no StorageClass has, a volume group that is not there, too large a claim: an event names each', async () => {
    const { kube } = bench();
    const classes = [
      storageClass('misspelt', { parameters: { provisionning: 'thick' } }),
      storageClass('elsewhere', { parameters: { volumeGroup: 'other-vg' } }),
    ];
    await kube.apply(...classes);
    try {
      await kube.apply(
        claim('misspelt', { storageClass: 'misspelt' }),
        claim('elsewhere', { storageClass: 'elsewhere' }),
        claim('too-large', { size: '5Ti' }),
      );
      await kube.event('PersistentVolumeClaim', 'misspelt', /ProvisioningFailed: .*"provisionning"/);
      await kube.event('PersistentVolumeClaim', 'elsewhere', /ProvisioningFailed: .*"other-vg".*cinder-volumes/s);
      await kube.event('PersistentVolumeClaim', 'too-large', /ProvisioningFailed: .*free.*vgextend/s);
    } finally {
      await kube.delete(...classes);
    }
  });
});

describe('pods and their volumes', () => {
  useCluster({ overlap: true });

  it('fsGroup and runAsNonRoot: a user who is not root writes', async () => {
    const { kube } = bench();
    const spec = { securityContext: { runAsNonRoot: true, runAsUser: 1000, fsGroup: 2000 } };
    await kube.apply(claim('data', { size: '64Mi' }), pod('user', 'data', { spec }));
    await kube.podReady('user');
    const said = await kube.exec('user', `echo mine > ${DATA}/file && ls -ln ${DATA}/file && id -u`);
    expect(said).to.match(/ 1000 +2000 .*\n1000$/);
  });

  it('subPath: two containers see different folders of one volume', async () => {
    const { kube } = bench();
    const container = (name: string) => ({
      name,
      image: POD_IMAGE,
      command: ['sh', '-c', `echo ${name} > ${DATA}/file; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done`],
      volumeMounts: [{ name: 'data', mountPath: DATA, subPath: `folders/${name}` }],
    });
    const inspector = {
      ...container('all'),
      command: ['sh', '-c', "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"],
      volumeMounts: [{ name: 'data', mountPath: DATA }],
    };
    const containers = [container('one'), container('two'), inspector];
    await kube.apply(claim('data', { size: '64Mi' }), pod('three', 'data', { spec: { containers } }));
    await kube.podReady('three');
    const all = await kube.exec('three', `cd ${DATA}/folders && cat one/file two/file`, { container: 'all' });
    expect(all).to.equal('one\ntwo');
  });

  it('mountOptions of the class are those of the mount; one that is not allowed names itself in an event', async () => {
    const { kube } = bench();
    const classes = [
      storageClass('noatime', { mountOptions: ['noatime', 'nodev'] }),
      storageClass('nonsense', { mountOptions: ['nonsense'] }),
    ];
    await kube.apply(...classes);
    try {
      await kube.apply(claim('good', { storageClass: 'noatime', size: '64Mi' }), pod('good', 'good'));
      await kube.apply(claim('bad', { storageClass: 'nonsense', size: '64Mi' }), pod('bad', 'bad'));
      await kube.podReady('good');
      expect(await kube.exec('good', `grep ' ${DATA} ' /proc/mounts`)).to.match(/nodev.*noatime/);
      await kube.event('Pod', 'bad', /FailedMount: .*nonsense/);
      await kube.deletePods(['good', 'bad']);
    } finally {
      await kube.delete(...classes);
    }
  });
});

function staticVolume(
  name: string,
  volumeHandle: string,
  accessMode: string,
  readOnly: boolean,
): V1PersistentVolume & KubernetesObject {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    // So that the provisioner takes it for one of its own when it is to be deleted.
    metadata: { name, annotations: { 'pv.kubernetes.io/provisioned-by': DRIVER } },
    spec: {
      capacity: { storage: '64Mi' },
      accessModes: [accessMode],
      storageClassName: '',
      persistentVolumeReclaimPolicy: 'Retain',
      csi: { driver: DRIVER, volumeHandle, fsType: 'ext4', readOnly },
    },
  };
}
