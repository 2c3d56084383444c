/** Who may do what: no verb that a sidecar does not use, and no secret unless an administrator has said where. */
import { expect } from 'chai';
import { type Rendered, type Rule, render } from '../support/manifests.ts';

const READ = ['get', 'list', 'watch'];

/** group/resource → verbs. */
function granted(rules: readonly Rule[] | undefined): Record<string, string[]> {
  const all: Record<string, string[]> = {};
  for (const { apiGroups, resources, verbs } of rules ?? []) {
    for (const group of apiGroups) {
      for (const resource of resources) all[group === '' ? resource : `${group}/${resource}`] = [...verbs];
    }
  }
  return all;
}

describe('RBAC of the chart', () => {
  let defaults: Rendered;
  before(async () => {
    defaults = await render();
  });
  const ofRole = (rendered: Rendered, sidecar: string) =>
    granted(rendered.one('ClusterRole', `lvm-iscsi-csi-${sidecar}`).rules);

  it('gives the provisioner what it uses', () => {
    expect(ofRole(defaults, 'provisioner')).to.deep.equal({
      persistentvolumes: [...READ, 'create', 'patch', 'delete'],
      persistentvolumeclaims: [...READ, 'update'],
      events: ['create', 'patch'],
      nodes: READ,
      'storage.k8s.io/storageclasses': READ,
      'storage.k8s.io/volumeattachments': READ,
      'storage.k8s.io/csinodes': READ,
    });
    expect(granted(defaults.one('Role', 'lvm-iscsi-csi-provisioner').rules)).to.deep.equal({
      'storage.k8s.io/csistoragecapacities': [...READ, 'create', 'update', 'patch', 'delete'],
      pods: ['get'],
      'apps/replicasets': ['get'],
    });
  });

  it('gives the attacher what it uses', () => {
    expect(ofRole(defaults, 'attacher')).to.deep.equal({
      persistentvolumes: [...READ, 'patch'],
      'storage.k8s.io/csinodes': READ,
      'storage.k8s.io/volumeattachments': [...READ, 'patch'],
      'storage.k8s.io/volumeattachments/status': ['patch'],
    });
  });

  it('gives the resizer what it uses', () => {
    expect(ofRole(defaults, 'resizer')).to.deep.equal({
      persistentvolumes: [...READ, 'patch'],
      persistentvolumeclaims: READ,
      'persistentvolumeclaims/status': ['patch'],
      events: ['create', 'patch'],
    });
  });

  it('leaves out what is switched off', async () => {
    expect(defaults.manifests.filter((each) => each.metadata.name.includes('snapshotter'))).to.deep.equal([]);
    const rendered = await render({ storageCapacity: false, seLinuxMount: false });
    expect(rendered.ofKind('Role')).to.deep.equal([]);
    expect(rendered.one('CSIDriver', 'lvm-iscsi-csi.github.io').spec).to.include({
      storageCapacity: false,
      seLinuxMount: false,
    });
    expect(rendered.container('controller', 'provisioner').args).to.not.include('--enable-capacity');
  });

  it('has rules for the snapshotter when it is switched on', async () => {
    const rendered = await render({ sidecars: { snapshotter: { enabled: true } } });
    expect(ofRole(rendered, 'snapshotter')).to.deep.equal({
      events: ['create', 'patch'],
      'snapshot.storage.k8s.io/volumesnapshotclasses': READ,
      'snapshot.storage.k8s.io/volumesnapshotcontents': [...READ, 'update', 'patch'],
      'snapshot.storage.k8s.io/volumesnapshotcontents/status': ['update', 'patch'],
    });
    expect(ofRole(rendered, 'provisioner')).to.include.keys('snapshot.storage.k8s.io/volumesnapshots');
  });

  it('opens secrets to the attacher alone, where it is told to, and only to be read by name', async () => {
    const readsSecrets = (rendered: Rendered) => rendered.manifests.filter((each) => 'secrets' in granted(each.rules));
    expect(readsSecrets(defaults)).to.deep.equal([]);

    const some = readsSecrets(await render({ chapSecretNamespaces: ['a', 'b'] }));
    expect(some.map(({ kind, metadata }) => [kind, metadata.name, metadata.namespace])).to.deep.equal([
      ['Role', 'lvm-iscsi-csi-attacher', 'a'],
      ['Role', 'lvm-iscsi-csi-attacher', 'b'],
    ]);
    const all = readsSecrets(await render({ chapSecretNamespaces: ['*'] }));
    expect(all.map(({ kind, metadata }) => [kind, metadata.name])).to.deep.equal([
      ['ClusterRole', 'lvm-iscsi-csi-attacher'],
    ]);
    for (const { rules } of [...some, ...all]) expect(granted(rules)['secrets']).to.deep.equal(['get']);
  });

  it('binds each role to the controller; the node plugin has no permission and no token', () => {
    const bindings = [...defaults.ofKind('ClusterRoleBinding'), ...defaults.ofKind('RoleBinding')];
    expect(bindings).to.have.lengthOf(defaults.ofKind('ClusterRole').length + defaults.ofKind('Role').length);
    for (const binding of bindings) {
      expect(binding['roleRef']).to.include({ name: binding.metadata.name });
      expect(binding['subjects']).to.deep.equal([
        { kind: 'ServiceAccount', name: 'lvm-iscsi-csi-controller', namespace: 'lvm-iscsi-csi' },
      ]);
    }
    expect(defaults.pod('node')).to.include({
      serviceAccountName: 'lvm-iscsi-csi-node',
      automountServiceAccountToken: false,
    });
  });

  it('never uses a wildcard', async () => {
    const rendered = await render({ chapSecretNamespaces: ['*'], sidecars: { snapshotter: { enabled: true } } });
    for (const { rules } of rendered.manifests) {
      for (const rule of rules ?? []) expect(Object.values(rule).flat()).to.not.include('*');
    }
  });
});
