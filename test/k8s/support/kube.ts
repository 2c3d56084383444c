/** The cluster's API as the scenarios use it: apply, wait with a reason when it takes too long, run things in pods. */
import { Writable } from 'node:stream';
import {
  ApiException,
  AppsV1Api,
  CoreV1Api,
  Exec,
  KubeConfig,
  type KubernetesObject,
  KubernetesObjectApi,
  PatchStrategy,
  StorageV1Api,
  type V1PersistentVolume,
  type V1PersistentVolumeClaim,
  type V1Pod,
  type V1Status,
} from '@kubernetes/client-node';
import { parseAllDocuments } from 'yaml';

/** Emulated hosts: what takes seconds elsewhere may take minutes. */
export const WAIT_MS = 600_000;
const POLL_MS = 1_000;
const EXEC_TIMEOUT_MS = 180_000;

export interface ExecOptions {
  readonly container?: string;
  readonly timeoutMs?: number;
}

export class Kube {
  readonly config: KubeConfig;
  readonly core: CoreV1Api;
  readonly apps: AppsV1Api;
  readonly storage: StorageV1Api;
  readonly objects: KubernetesObjectApi;
  /** where objects without a namespace go */
  readonly namespace: string;

  constructor(kubeconfig: string, namespace: string) {
    this.config = new KubeConfig();
    this.config.loadFromString(kubeconfig);
    this.core = this.config.makeApiClient(CoreV1Api);
    this.apps = this.config.makeApiClient(AppsV1Api);
    this.storage = this.config.makeApiClient(StorageV1Api);
    this.objects = KubernetesObjectApi.makeApiClient(this.config);
    this.namespace = namespace;
  }

  /** Server-side apply, of objects or of YAML with one or more of them. */
  async apply(...manifests: readonly (KubernetesObject | string)[]): Promise<void> {
    for (const object of this.#parse(manifests)) {
      await this.objects.patch(object, undefined, undefined, 'test', true, PatchStrategy.ServerSideApply);
    }
  }

  /** Asks for their deletion; what is not there any more is well. */
  async delete(...manifests: readonly (KubernetesObject | string)[]): Promise<void> {
    for (const object of this.#parse(manifests)) {
      await this.objects.delete(object).catch((error: unknown) => {
        if (!isNotFound(error)) throw error;
      });
    }
  }

  #parse(manifests: readonly (KubernetesObject | string)[]): KubernetesObject[] {
    return manifests.flatMap((manifest) => {
      const objects =
        typeof manifest === 'string'
          ? parseAllDocuments(manifest).map((document) => document.toJS() as KubernetesObject)
          : [manifest];
      return objects.map((object) => {
        const namespaced = !CLUSTER_SCOPED.has(object.kind ?? '');
        const metadata = { ...object.metadata, ...(namespaced ? { namespace: this.namespace } : {}) };
        return { ...object, metadata };
      });
    });
  }

  /**
   * Polls until `poll` returns something.
   * @throws Error naming `what`, with what `explain` says, after `timeoutMs`
   */
  async waitFor<T>(
    what: string,
    poll: () => Promise<T | undefined | false>,
    options: { readonly timeoutMs?: number; readonly explain?: () => Promise<string> } = {},
  ): Promise<T> {
    const { timeoutMs = WAIT_MS, explain } = options;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      let failure: unknown;
      const found = await poll().catch((error: unknown) => {
        if (!isNotFound(error) && !isUnreachable(error)) throw error;
        failure = error;
        return undefined;
      });
      if (found !== undefined && found !== false) return found;
      if (performance.now() > deadline) {
        throw new Error(`not within ${timeoutMs} ms: ${what}\n${(await explain?.()) ?? ''}`, { cause: failure });
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async pod(name: string): Promise<V1Pod> {
    return this.core.readNamespacedPod({ name, namespace: this.namespace });
  }

  /** @throws Error with the pod's conditions and events when it is not ready after `timeoutMs` */
  async podReady(name: string, timeoutMs: number = WAIT_MS): Promise<V1Pod> {
    return this.waitFor(
      `pod ${name} is ready`,
      async () => {
        const pod = await this.pod(name);
        return pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') && pod;
      },
      { timeoutMs, explain: () => this.#explainPod(name) },
    );
  }

  async #explainPod(name: string): Promise<string> {
    const pod = await this.pod(name).catch(() => undefined);
    return [JSON.stringify(pod?.status, undefined, 1), ...(await this.events('Pod', name))].join('\n');
  }

  /** Deletes pods and returns when they are gone. @param gracePeriodSeconds of each; 0 is by force */
  async deletePods(names: readonly string[], gracePeriodSeconds?: number): Promise<void> {
    const { namespace } = this;
    for (const name of names) {
      const options = gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds };
      await this.core.deleteNamespacedPod({ name, namespace, ...options }).catch((error: unknown) => {
        if (!isNotFound(error)) throw error;
      });
    }
    await this.waitFor(
      `pods ${names.join(', ')} are gone`,
      async () => {
        const { items } = await this.core.listNamespacedPod({ namespace });
        return !items.some(({ metadata }) => names.includes(metadata?.name ?? ''));
      },
      { explain: () => this.#explainPod(names[0] ?? '') },
    );
  }

  async claim(name: string): Promise<V1PersistentVolumeClaim> {
    return this.core.readNamespacedPersistentVolumeClaim({ name, namespace: this.namespace });
  }

  /** @returns its volume */
  async claimBound(name: string, timeoutMs: number = WAIT_MS): Promise<V1PersistentVolume> {
    const claim = await this.waitFor(
      `claim ${name} is bound`,
      async () => {
        const found = await this.claim(name);
        return found.status?.phase === 'Bound' && found;
      },
      { timeoutMs, explain: async () => (await this.events('PersistentVolumeClaim', name)).join('\n') },
    );
    return this.core.readPersistentVolume({ name: claim.spec?.volumeName ?? '' });
  }

  /** Returns when no PersistentVolume is there, of any namespace. */
  async noVolumes(): Promise<void> {
    let names: string[] = [];
    await this.waitFor(
      'every volume is gone',
      async () => {
        const { items } = await this.core.listPersistentVolume();
        names = items.map(({ metadata, spec }) => `${metadata?.name} of ${spec?.claimRef?.namespace}`);
        return names.length === 0;
      },
      { explain: async () => names.join('\n') },
    );
  }

  /** "reason: message" of an object's events, oldest first */
  async events(kind: string, name: string): Promise<string[]> {
    const fieldSelector = `involvedObject.kind=${kind},involvedObject.name=${name}`;
    const { items } = await this.core.listNamespacedEvent({ namespace: this.namespace, fieldSelector });
    return items.map(({ reason, message }) => `${reason}: ${message}`);
  }

  /** Waits for an event whose "reason: message" matches. @returns it */
  async event(kind: string, name: string, pattern: RegExp, timeoutMs: number = WAIT_MS): Promise<string> {
    return this.waitFor(
      `an event of ${kind} ${name} like ${pattern}`,
      async () => (await this.events(kind, name)).find((text) => pattern.test(text)),
      { timeoutMs, explain: async () => (await this.events(kind, name)).join('\n') },
    );
  }

  /** Runs a line, or several, of sh in a pod. @returns what it printed @throws Error for another exit code than 0 */
  async exec(pod: string, script: string, options: ExecOptions = {}): Promise<string> {
    const { timeoutMs = EXEC_TIMEOUT_MS } = options;
    const container = options.container ?? (await this.pod(pod)).spec?.containers[0]?.name ?? '';
    const [stdout, stderr] = [new Collector(), new Collector()];
    const command = ['sh', '-c', script];
    const ended = Promise.withResolvers<V1Status>();
    const socket = await new Exec(this.config).exec(
      this.namespace,
      pod,
      container,
      command,
      stdout,
      stderr,
      null,
      false,
      ended.resolve,
    );
    // The API server may go away under it, and then nobody says how the command ended.
    socket.addEventListener('close', () => setTimeout(() => ended.reject(new Error('the connection ended')), 1_000));
    const timer = setTimeout(() => ended.reject(new Error(`not done within ${timeoutMs} ms`)), timeoutMs);
    try {
      const status = await ended.promise;
      if (status.status !== 'Success') throw new Error(status.message ?? 'failed');
      return stdout.text.trimEnd();
    } catch (error) {
      throw new Error(`${pod}: ${script}: ${(error as Error).message}\n${stdout.text}${stderr.text}`, { cause: error });
    } finally {
      clearTimeout(timer);
      socket.close();
    }
  }
}

export function isNotFound(error: unknown): boolean {
  return error instanceof ApiException && error.code === 404;
}

/** Did the API server not answer, or say that it cannot now? */
function isUnreachable(error: unknown): boolean {
  if (error instanceof ApiException) return error.code === 429 || error.code >= 500;
  // What fetch throws for every failure of a connection.
  return error instanceof TypeError && error.message === 'fetch failed';
}

const CLUSTER_SCOPED = new Set(['Namespace', 'PersistentVolume', 'StorageClass', 'Node', 'VolumeAttachment']);

class Collector extends Writable {
  #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}
