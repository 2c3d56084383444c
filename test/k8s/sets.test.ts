/** Many volumes: a StatefulSet's, each with its own data, and twenty at once. */
import type { KubernetesObject, V1StatefulSet } from '@kubernetes/client-node';
import { expect } from 'chai';
import { POD_IMAGE } from '../cluster/images.ts';
import { bench, useCluster } from './support/bench.ts';
import { CHART_CLASS, claim, DATA, pod } from './support/manifests.ts';

const MANY = 20;

describe('many volumes in Kubernetes', () => {
  useCluster({ overlap: true });

  it('a StatefulSet of three, scaled down and up: each pod finds its own data', async () => {
    const { kube } = bench();
    const scale = (replicas: number) => kube.apply(statefulSet(replicas));
    const names = ['set-0', 'set-1', 'set-2'];
    await scale(3);
    for (const name of names) {
      await kube.podReady(name);
      await kube.exec(name, `echo ${name} > ${DATA}/name && sync`);
    }
    await scale(1);
    await kube.waitFor('two pods are gone', async () => {
      const { items } = await kube.core.listNamespacedPod({ namespace: kube.namespace });
      return items.length === 1;
    });
    await scale(3);
    for (const name of names) {
      await kube.podReady(name);
      expect(await kube.exec(name, `cat ${DATA}/name`)).to.equal(name);
    }
    await scale(0);
  });

  it(`${MANY} claims and pods at once, each with its own bytes`, async () => {
    const { kube, workers } = bench();
    const names = Array.from({ length: MANY }, (_, index) => `many-${index}`);
    const script = (name: string) => `echo ${name} > ${DATA}/name; sync; while :; do sleep 3600 & wait $!; done`;
    await Promise.all(
      names.map((name, index) =>
        kube.apply(
          claim(name, { size: '64Mi' }),
          pod(name, name, { node: workers[index % 2 === 0 ? 0 : 1].name, script: script(name) }),
        ),
      ),
    );
    await Promise.all(names.map((name) => kube.podReady(name, 1_500_000)));
    for (const name of names) expect(await kube.exec(name, `cat ${DATA}/name`)).to.equal(name);
  });
});

function statefulSet(replicas: number): V1StatefulSet & KubernetesObject {
  const labels = { app: 'set' };
  const template = claim('data', { storageClass: CHART_CLASS, size: '64Mi', accessMode: 'ReadWriteOncePod' });
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: { name: 'set' },
    spec: {
      serviceName: 'set',
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          terminationGracePeriodSeconds: 5,
          containers: [
            {
              name: 'main',
              image: POD_IMAGE,
              command: ['sh', '-c', "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"],
              volumeMounts: [{ name: 'data', mountPath: DATA }],
            },
          ],
        },
      },
      volumeClaimTemplates: [template],
    },
  };
}
