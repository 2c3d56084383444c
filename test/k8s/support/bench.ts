/**
 * One cluster for all scenarios of a run, with the driver installed by helm as the README says, and each scenario in a
 * namespace of its own that is removed afterwards: then nothing of it may be left on any host.
 *
 * `LAB_CLUSTER=NAME` uses the cluster of `npm run lab -- --name NAME cluster up`, and leaves it up.
 */
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Cluster, type CommandResult } from '../../cluster/cluster.ts';
import { leftovers } from '../../integration/support/leftovers.ts';
import type { Machine } from '../../lab/machine.ts';
import { createProgress } from '../../lab/progress.ts';
import { CHART } from '../../support/helm.ts';
import { Kube } from './kube.ts';

export const DRIVER = 'lvm-iscsi-csi.github.io';
export const RELEASE = 'lvm-iscsi-csi';
/** the driver's own */
export const DRIVER_NAMESPACE = 'lvm-iscsi-csi';
/** The driver's own pods have mounts under kubelet's folder too. */
const OWN_MOUNTS = /mount: \/var\/lib\/kubelet\/pods\/.*\/kubernetes\.io~(projected|empty-dir)\//;
const START_TIMEOUT_MS = 7_200_000;
const CLEAN_TIMEOUT_MS = 600_000;

export interface Bench {
  readonly cluster: Cluster;
  /** in the namespace of the running scenario */
  readonly kube: Kube;
  /** in the driver's own namespace */
  readonly driver: Kube;
  readonly storage: Machine;
  readonly workers: readonly [Machine, Machine];
}

let shared: Bench | undefined;
/** Begun so far. */
let scenarios = 0;
/** Namespaces of scenarios that have ended, on their way out. */
const leaving = new Set<string>();

/** Of the running scenario. */
export function bench(): Bench {
  if (shared === undefined) throw new Error('the cluster is there only inside tests');
  return shared;
}

/** helm, told what to do with our chart. @throws Error with its words when it fails */
export async function helmRelease(...args: readonly string[]): Promise<CommandResult> {
  const result = await bench().cluster.helm(args);
  if (result.exitCode !== 0) throw new Error(`helm ${args.join(' ')}: ${result.stderr}\n${result.stdout}`);
  return result;
}

/** kubectl as an administrator. @returns what it printed @throws Error with its words when it fails */
export async function kubectl(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await bench().cluster.kubectl(args);
  if (exitCode !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Arguments of helm that install the chart, or bring an installed one to its state. */
export const HELM_INSTALL: readonly string[] = [
  'upgrade',
  '--install',
  RELEASE,
  CHART,
  '--namespace',
  DRIVER_NAMESPACE,
];

/** Namespace, label and `helm install`, as the README has it; returns when every pod of the driver is ready. */
export async function installDriver(): Promise<void> {
  const { cluster, storage } = bench();
  const { exitCode } = await cluster.kubectl(['get', 'namespace', DRIVER_NAMESPACE]);
  if (exitCode !== 0) await kubectl('create', 'namespace', DRIVER_NAMESPACE);
  await kubectl('label', '--overwrite', 'namespace', DRIVER_NAMESPACE, 'pod-security.kubernetes.io/enforce=privileged');
  await kubectl('label', '--overwrite', 'node', storage.name, `${DRIVER}/storage-host=true`);
  await helmRelease(...HELM_INSTALL);
  await driverReady();
}

/** @throws Error with the events of what is not ready */
export async function driverReady(timeoutMs = 1_200_000): Promise<void> {
  const { driver, cluster } = bench();
  const explain = async (): Promise<string> => {
    const of = async (...args: string[]) => (await cluster.kubectl([...args, '--namespace', DRIVER_NAMESPACE])).stdout;
    const logs = ['logs', '--container=driver', '--tail=50', '--prefix', '--ignore-errors'];
    return [
      await of('describe', 'pods'),
      await of(...logs, '--selector=app.kubernetes.io/component=controller'),
      await of(...logs, '--selector=app.kubernetes.io/component=node'),
    ].join('\n');
  };
  const namespace = DRIVER_NAMESPACE;
  await driver.waitFor(
    'the controller is ready',
    async () => {
      const { metadata, status, spec } = await driver.apps.readNamespacedDeployment({
        name: `${RELEASE}-controller`,
        namespace,
      });
      const current = status?.observedGeneration === metadata?.generation && status?.updatedReplicas === spec?.replicas;
      return current && status?.readyReplicas === spec?.replicas && status?.replicas === spec?.replicas;
    },
    { timeoutMs, explain },
  );
  await driver.waitFor(
    'the node plugin is ready on every node',
    async () => {
      const { metadata, status } = await driver.apps.readNamespacedDaemonSet({ name: `${RELEASE}-node`, namespace });
      const wanted = cluster.lab.machines.length;
      const current = status?.observedGeneration === metadata?.generation && status?.updatedNumberScheduled === wanted;
      return current && status?.numberReady === wanted;
    },
    { timeoutMs, explain },
  );
}

async function start(): Promise<Bench> {
  const progress = createProgress('k8s');
  const attached = process.env['LAB_CLUSTER'];
  let cluster: Cluster;
  if (attached === undefined) {
    cluster = await Cluster.start({ progress });
  } else {
    cluster = await Cluster.attach(attached, progress);
  }
  const { storage, nodes } = cluster.lab;
  const [first, second] = nodes;
  if (first === undefined || second === undefined) throw new Error('the scenarios need two workers');
  const kubeconfig = await cluster.reachableKubeconfig();
  const { exitCode } = await storage.exec('vgs cinder-volumes', { check: false });
  if (exitCode !== 0) await cluster.lab.createVolumeGroup('cinder-volumes', '--metadatasize 64m');
  return {
    cluster,
    kube: new Kube(kubeconfig, 'default'),
    driver: new Kube(kubeconfig, DRIVER_NAMESPACE),
    storage,
    workers: [first, second],
  };
}

export interface ClusterOptions {
  /** Whether the driver is to be there. Default: true. */
  readonly install?: boolean;
  /**
   * Whether a scenario begins while the one before is still being cleaned up, which is most of the time kubelet's and the
   * sidecars' waiting; what is left is then looked for at the end of the file. Default: false.
   */
  readonly overlap?: boolean;
}

/** Registers the hooks that every scenario needs in the enclosing `describe`. */
export function useCluster(options: ClusterOptions = {}): void {
  before('start the cluster, install the driver', async function () {
    this.timeout(START_TIMEOUT_MS);
    shared ??= await start();
    if (options.install === false) return;
    try {
      const { exitCode } = await shared.cluster.helm(['status', RELEASE, '--namespace', DRIVER_NAMESPACE]);
      if (exitCode !== 0) await installDriver();
      else await driverReady();
    } catch (error) {
      await keepLogs('install the driver');
      throw error;
    }
  });

  beforeEach('a namespace', async function () {
    this.timeout(60_000);
    const title = this.currentTest?.title ?? '';
    scenarios += 1;
    // The number: titles that begin alike are in the cluster at the same time when scenarios overlap.
    const name = `t${scenarios}-${title.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}`.slice(0, 40).replace(/-+$/, '');
    const { cluster, driver, storage, workers } = bench();
    shared = { cluster, driver, storage, workers, kube: new Kube(await cluster.reachableKubeconfig(), name) };
    await shared.kube.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
    // The account of its pods comes a moment later.
    await shared.kube.waitFor('the default service account', () =>
      bench().kube.core.readNamespacedServiceAccount({ name: 'default', namespace: name }),
    );
  });

  afterEach('nothing is left', async function () {
    this.timeout(CLEAN_TIMEOUT_MS + 120_000);
    const title = this.currentTest?.fullTitle() ?? '';
    if (this.currentTest?.state === 'failed') await keepLogs(title);
    await removeNamespace();
    if (options.overlap !== true) await nothingIsLeft(title);
  });

  after('nothing is left', async function () {
    this.timeout(CLEAN_TIMEOUT_MS + 120_000);
    if (shared !== undefined) await nothingIsLeft(this.test?.parent?.fullTitle() ?? '');
  });
}

/** The scenario's namespace with all in it, and its volumes whatever their reclaim policy. */
async function removeNamespace(): Promise<void> {
  const { kube } = bench();
  const { namespace: name } = kube;
  const { items } = await kube.core.listPersistentVolume();
  for (const { metadata, spec } of items) {
    if (spec?.claimRef?.namespace !== name || spec.persistentVolumeReclaimPolicy === 'Delete') continue;
    const patch = [{ op: 'replace', path: '/spec/persistentVolumeReclaimPolicy', value: 'Delete' }];
    await kube.core.patchPersistentVolume({ name: metadata?.name ?? '', body: patch });
  }
  await kube.core.deleteNamespace({ name });
  leaving.add(name);
}

/** @throws Error that names what is, once the namespaces of all scenarios so far have gone */
async function nothingIsLeft(title: string): Promise<void> {
  if (leaving.size === 0) return;
  const names = [...leaving];
  leaving.clear();
  await gone(names);
  const left = await leftovers(bench().cluster, OWN_MOUNTS);
  if (left.length === 0) return;
  await keepLogs(`left ${title}`);
  throw new Error(`left behind:\n${left.join('\n')}`);
}

async function gone(names: readonly string[]): Promise<void> {
  const { kube } = bench();
  await kube.waitFor(
    `namespace ${names.join(', ')} and its volumes are gone`,
    async () => {
      const { items: namespaces } = await kube.core.listNamespace();
      if (namespaces.some(({ metadata }) => names.includes(metadata?.name ?? ''))) return false;
      const { items: volumes } = await kube.core.listPersistentVolume();
      return !volumes.some(({ spec }) => names.includes(spec?.claimRef?.namespace ?? ''));
    },
    {
      timeoutMs: CLEAN_TIMEOUT_MS,
      explain: async () => (await bench().cluster.kubectl(['get', 'pods,pvc,pv,volumeattachments', '-A'])).stdout,
    },
  );
}

export async function keepLogs(title: string): Promise<void> {
  const folder = path.join(
    process.env['TEST_LOGS'] ?? path.join(tmpdir(), 'lvm-iscsi-csi-logs'),
    title.replaceAll(/[^A-Za-z0-9]+/g, '-').slice(0, 120),
  );
  await bench().cluster.collectLogs(folder);
  console.log(`      logs of machines and control plane: ${folder}`);
}

/** Of mocha, once for all files. */
export const mochaHooks = {
  async afterAll(): Promise<void> {
    if (shared === undefined) return;
    if (process.env['LAB_CLUSTER'] === undefined) await shared.cluster.stop();
    else await shared.cluster.release();
  },
};
