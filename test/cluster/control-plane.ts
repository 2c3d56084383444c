/**
 * etcd, API server, controller-manager and scheduler: on this machine itself, in the lab's namespaces, because emulated Go
 * is twenty times slower. They end with the lab.
 */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { LabError } from '../lab/errors.ts';
import type { Keeper } from '../lab/keeper.ts';
import { API, type Credentials, kubeconfig } from './pki.ts';
import type { Programs } from './programs.ts';

const READY_TIMEOUT_MS = 180_000;
const POLL_MS = 500;

export class ControlPlane {
  readonly #keeper: Keeper;
  readonly #programs: Programs;
  readonly #folder: string;
  readonly #credentials: Credentials;

  /** @param folder for etcd's data, configuration and one log of each program */
  constructor(keeper: Keeper, programs: Programs, folder: string, credentials: Credentials) {
    this.#keeper = keeper;
    this.#programs = programs;
    this.#folder = folder;
    this.#credentials = credentials;
  }

  /** Starts everything; returns when the API server is ready. @throws LabError with its last lines when it is not */
  async start(): Promise<void> {
    const { folders } = this.#programs;
    await mkdir(this.#folder, { recursive: true });
    await this.#keeper.run('ip', ['address', 'replace', `${API.serviceAddress}/32`, 'dev', 'lo']);
    this.#spawn('etcd', path.join(folders.etcd, 'server'), [
      `--data-dir=${this.#folder}/etcd`,
      '--listen-client-urls=http://127.0.0.1:2379',
      '--advertise-client-urls=http://127.0.0.1:2379',
      '--listen-peer-urls=http://127.0.0.1:2380',
      // What it holds ends with the lab.
      '--unsafe-no-fsync',
    ]);
    const keys = this.#credentials.folder;
    this.#spawn('kube-apiserver', path.join(folders.kubernetes, 'kube-apiserver'), [
      '--etcd-servers=http://127.0.0.1:2379',
      '--bind-address=0.0.0.0',
      `--secure-port=${API.port}`,
      `--advertise-address=${API.address}`,
      `--service-cluster-ip-range=${API.serviceNetwork}`,
      `--tls-cert-file=${keys}/server.crt`,
      `--tls-private-key-file=${keys}/server.key`,
      `--client-ca-file=${keys}/ca.crt`,
      `--token-auth-file=${keys}/tokens.csv`,
      `--kubelet-client-certificate=${keys}/kubelet-client.crt`,
      `--kubelet-client-key=${keys}/kubelet-client.key`,
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${keys}/accounts.pub`,
      `--service-account-signing-key-file=${keys}/accounts.key`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--allow-privileged=true',
      '--profiling=false',
      '--v=1',
    ]);
    await this.#ready();
    const { tokens } = this.#credentials;
    this.#spawn('kube-controller-manager', path.join(folders.kubernetes, 'kube-controller-manager'), [
      `--kubeconfig=${await this.#config('system:kube-controller-manager', tokens.controllerManager)}`,
      `--service-account-private-key-file=${keys}/accounts.key`,
      `--root-ca-file=${keys}/ca.crt`,
      '--use-service-account-credentials=true',
      '--leader-elect=false',
      '--bind-address=127.0.0.1',
      '--v=1',
    ]);
    this.#spawn('kube-scheduler', path.join(folders.kubernetes, 'kube-scheduler'), [
      `--kubeconfig=${await this.#config('system:kube-scheduler', tokens.scheduler)}`,
      '--leader-elect=false',
      '--bind-address=127.0.0.1',
      '--v=1',
    ]);
  }

  /** One file for each program, appended. */
  log(name: string): string {
    return path.join(this.#folder, `${name}.log`);
  }

  #spawn(name: string, program: string, args: readonly string[]): void {
    const child = this.#keeper.spawn(program, args, this.log(name));
    child.once('error', () => undefined);
  }

  async #config(user: string, token: string): Promise<string> {
    const file = path.join(this.#folder, `${user.replace('system:', '')}.conf`);
    await writeFile(file, kubeconfig(API.address, this.#credentials.ca, { user, token }), { mode: 0o600 });
    return file;
  }

  async #ready(): Promise<void> {
    const kubectl = path.join(this.#programs.folders.kubernetes, 'kubectl');
    const config = await this.#config('admin', this.#credentials.tokens.admin);
    const deadline = performance.now() + READY_TIMEOUT_MS;
    for (;;) {
      const answer = await this.#keeper
        .run(kubectl, [`--kubeconfig=${config}`, '--request-timeout=5s', 'get', '--raw=/readyz'])
        .catch((error: Error) => error.message);
      if (answer === 'ok') return;
      if (performance.now() > deadline) {
        const log = await readFile(this.log('kube-apiserver'), 'utf8').catch(() => '');
        const tail = log.split('\n').slice(-15).join('\n');
        throw new LabError(`the API server is not ready after ${READY_TIMEOUT_MS} ms: ${answer}\n${tail}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
