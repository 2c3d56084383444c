/** What the chart can render, as a real API server takes it: no unknown field, no value of the wrong kind. */
import { expect } from 'chai';
import { stringify } from 'yaml';
import { helmTemplate } from '../support/helm.ts';
import { bench, useCluster } from './support/bench.ts';

/** Beside these: a ServiceMonitor, of which the API server knows nothing without Prometheus' own definitions. */
const VALUES: Readonly<Record<string, object>> = {
  'the defaults': {},
  'everything that is off by default': {
    sidecars: { snapshotter: { enabled: true } },
    chapSecretNamespaces: ['default', 'kube-system'],
    podDisruptionBudget: { enabled: true },
    metrics: { enabled: true },
    developmentMode: { enabled: true },
  },
  'everything that is on by default taken away': {
    sidecars: { provisioner: null, attacher: null, resizer: null, registrar: null, livenessprobe: { enabled: false } },
    storageCapacity: false,
    seLinuxMount: false,
    storageClasses: [],
  },
  'a host by its name, labels, secrets of every namespace, an XFS class of its own': {
    controller: { nodeName: 'storage', podLabels: { team: 'storage' }, podAnnotations: { note: 'x' } },
    node: { nodeSelector: { storage: 'iscsi' }, maxUnavailable: 1 },
    imagePullSecrets: [{ name: 'pull' }],
    chapSecretNamespaces: ['*'],
    storageClasses: [{ name: 'dry-xfs', fsType: 'xfs', volumeBindingMode: 'WaitForFirstConsumer' }],
  },
};

describe('renderings of the chart', () => {
  useCluster({ install: false, overlap: true });

  for (const [what, values] of Object.entries(VALUES)) {
    it(`the API server takes ${what}`, async () => {
      const { cluster, kube } = bench();
      // Of other names than what is installed: some fields of that could not be changed.
      const names = { driverName: 'dry.example', fullnameOverride: 'dry', storageClasses: [{ name: 'dry' }] };
      const rendered = await helmTemplate(['--namespace', kube.namespace], stringify({ ...names, ...values }));
      expect(rendered.exitCode, rendered.stderr).to.equal(0);
      const { exitCode, stdout, stderr } = await cluster.kubectl(
        ['apply', '--dry-run=server', '--validate=strict', '--filename=-'],
        rendered.stdout,
      );
      expect(exitCode, stderr).to.equal(0);
      const taken = stdout.split('\n').filter((line) => line.includes('(server dry run)'));
      expect(taken).to.have.lengthOf(rendered.stdout.match(/^kind: /gm)?.length ?? 0);
      // A field that is unknown is an error: this check can fail.
      const wrong = rendered.stdout.replace(/^( +)revisionHistoryLimit: 3$/m, '$1revisionHistoryLimits: 3');
      const refused = await cluster.kubectl(['apply', '--dry-run=server', '--validate=strict', '--filename=-'], wrong);
      expect(refused.stderr).to.include('revisionHistoryLimits');
    });
  }
});
