/** What a user may set: everything is described, nothing else is accepted, and a refusal names the value. */
import { expect } from 'chai';
import { execa } from 'execa';
import { resolve } from '../../deploy/readme.ts';
import { readSchema, readValues } from '../../deploy/render.ts';
import type { JsonSchema } from '../../deploy/schema.ts';
import { CHART, helm } from '../support/helm.ts';
import { refusal, render } from '../support/manifests.ts';

describe('values of the chart', () => {
  const schema = readSchema();

  it('are all described, with nothing else allowed beside them', () => {
    const visit = (path: string, property: JsonSchema): void => {
      const own = resolve(schema, property);
      if (path !== '') expect(own.description, path).to.be.a('string').and.not.equal('');
      if (own.properties === undefined) return;
      expect(own.additionalProperties, path).to.equal(false);
      for (const [key, each] of Object.entries(own.properties)) visit(`${path}.${key}`, each);
    };
    visit('', schema);
  });

  it('of values.yaml are all in the schema', () => {
    const visit = (path: string, property: JsonSchema, value: unknown): void => {
      const own = resolve(schema, property);
      if (own.properties === undefined || typeof value !== 'object' || value === null) return;
      for (const [key, each] of Object.entries(value)) {
        expect(own.properties, path).to.have.property(key);
        visit(`${path}.${key}`, own.properties[key] ?? {}, each);
      }
    };
    visit('', schema, { ...readValues(), global: {} });
  });

  it('pass helm lint', async () => {
    const { exitCode, stdout } = await execa(await helm(), ['lint', '--strict', CHART], { reject: false });
    expect(exitCode, stdout).to.equal(0);
  });

  for (const [values, name] of [
    [{ volumeGroup: 'vg0' }, 'volumeGroup'],
    [{ controller: { replicas: 2 } }, 'replicas'],
    [{ controller: { options: { volumegroup: 'vg0' } } }, 'volumegroup'],
    [{ node: { options: { nodeName: 'x' } } }, 'nodeName'],
    [{ sidecars: { attacher: { enabled: false } } }, 'enabled'],
    [{ storageClasses: [{ name: 'a', fstype: 'xfs' }] }, 'fstype'],
    [{ storageClasses: [{ default: true }] }, 'name'],
  ] as const) {
    it(`refuse what does not exist: ${JSON.stringify(values)}`, async () => {
      expect(await refusal(values)).to.include(`'${name}'`);
    });
  }

  for (const [values, path] of [
    [{ sidecars: { verbosity: 5 } }, '/sidecars/verbosity'],
    [{ sidecars: { attacher: { extraArgs: ['--v=5'] } } }, '/sidecars/attacher/extraArgs/0'],
    [{ sidecars: { attacher: { extraArgs: ['-v=5'] } } }, '/sidecars/attacher/extraArgs/0'],
    [{ sidecars: { resizer: { timeout: 60 } } }, '/sidecars/resizer/timeout'],
    [{ controller: { options: { chap: false } } }, '/controller/options/chap'],
    [{ controller: { options: { defaultFsType: 'btrfs' } } }, '/controller/options/defaultFsType'],
    [{ node: { options: { maxVolumes: 'many' } } }, '/node/options/maxVolumes'],
    [{ node: { maxUnavailable: 0 } }, '/node/maxUnavailable'],
    [{ ports: { node: 80 } }, '/ports/node'],
    [{ driverName: 'Not_A_Name' }, '/driverName'],
    [{ kubeletDir: 'var/lib/kubelet' }, '/kubeletDir'],
    [{ storageCapacity: 'yes' }, '/storageCapacity'],
    [{ seLinuxMount: 'yes' }, '/seLinuxMount'],
    [{ metrics: { address: '10.0.0.1' } }, '/metrics/address'],
    [{ developmentMode: { size: '10G' } }, '/developmentMode/size'],
    [{ chapSecretNamespaces: 'default' }, '/chapSecretNamespaces'],
    [{ storageClasses: [{ name: 'a', chapSecret: { name: 'b' } }] }, '/storageClasses/0/chapSecret'],
  ] as const) {
    it(`refuse what is not allowed: ${JSON.stringify(values)}`, async () => {
      expect(await refusal(values)).to.include(`'${path}'`);
    });
  }

  it('refuse a ServiceMonitor of metrics that nobody can reach', async () => {
    expect(await refusal({ metrics: { serviceMonitor: { enabled: true } } })).to.include('needs metrics.enabled');
  });

  it('make the StorageClasses that are asked for', async () => {
    const rendered = await render({
      storageClasses: [
        { name: 'plain' },
        {
          name: 'all',
          default: true,
          fsType: 'xfs',
          reclaimPolicy: 'Retain',
          volumeBindingMode: 'WaitForFirstConsumer',
          allowVolumeExpansion: false,
          mountOptions: ['noatime'],
          // biome-ignore lint/suspicious/noTemplateCurlyInString: Kubernetes' own placeholder
          chapSecret: { name: 'chap', namespace: '${pvc.namespace}' },
          parameters: { provisioning: 'thick' },
        },
      ],
    });
    expect(rendered.one('StorageClass', 'plain')).to.include({
      provisioner: 'lvm-iscsi-csi.github.io',
      reclaimPolicy: 'Delete',
      volumeBindingMode: 'Immediate',
      allowVolumeExpansion: true,
    });
    const all = rendered.one('StorageClass', 'all');
    expect(all).to.deep.include({
      reclaimPolicy: 'Retain',
      volumeBindingMode: 'WaitForFirstConsumer',
      allowVolumeExpansion: false,
      mountOptions: ['noatime'],
      parameters: {
        'csi.storage.k8s.io/fstype': 'xfs',
        'csi.storage.k8s.io/controller-publish-secret-name': 'chap',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: Kubernetes' own placeholder
        'csi.storage.k8s.io/controller-publish-secret-namespace': '${pvc.namespace}',
        'csi.storage.k8s.io/node-stage-secret-name': 'chap',
        // biome-ignore lint/suspicious/noTemplateCurlyInString: Kubernetes' own placeholder
        'csi.storage.k8s.io/node-stage-secret-namespace': '${pvc.namespace}',
        provisioning: 'thick',
      },
    });
    expect(all.metadata.annotations).to.deep.equal({ 'storageclass.kubernetes.io/is-default-class': 'true' });
    expect((await render({ storageClasses: [] })).ofKind('StorageClass')).to.deep.equal([]);
  });

  it('give the objects names that are short enough for what Kubernetes makes of them', async () => {
    const rendered = await render({ fullnameOverride: 'b'.repeat(70), metrics: { enabled: true } });
    for (const { kind, metadata } of rendered.manifests) {
      expect(metadata.name.length, `${kind} ${metadata.name}`).to.be.at.most(63);
    }
  });
});

describe('NOTES of the chart', () => {
  const notes = async (...flags: string[]): Promise<string> => {
    const { stdout } = await execa(await helm(), ['install', 'demo', CHART, '--dry-run=client', ...flags]);
    return stdout.slice(stdout.indexOf('NOTES:'));
  };

  it('say what to do next and how to check', async () => {
    const text = await notes('--namespace', 'storage', '--set', 'controller.options.volumeGroup=vg7');
    expect(text).to.include('kubectl label node NODE lvm-iscsi-csi.github.io/storage-host=true');
    expect(text).to.include('vgcreate --metadatasize 64m --setautoactivation n vg7');
    expect(text).to.match(/scrub --host-commands=nsenter --portals=\S+ \\\n +.*--volume-group=vg7/);
    expect(text).to.include('kubectl rollout status -n storage deploy/demo-lvm-iscsi-csi-controller');
    expect(text).to.not.match(/DEVELOPMENT|WARNING/);
  });

  it('warn of what weakens the installation', async () => {
    const text = await notes('--set', 'controller.options.chap=off,metrics.enabled=true');
    expect(text).to.include('CHAP is off').and.include('metrics are served without a login');
  });

  it('warn of the development mode, and do not ask for what was said', async () => {
    const text = await notes('--set', 'developmentMode.enabled=true,controller.nodeName=storage-1');
    expect(text).to.include('DEVELOPMENT MODE').and.include('/var/lib/lvm-iscsi-csi/development.img');
    expect(text).to.include('node storage-1').and.not.include('kubectl label node');
  });
});
