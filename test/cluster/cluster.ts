/** A Kubernetes cluster in the lab: its control plane on this machine, the storage host and the nodes as its nodes. */
import { spawn } from 'node:child_process';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import PQueue from 'p-queue';
import { cacheFolder } from '../lab/cache.ts';
import { LabError } from '../lab/errors.ts';
import { Lab } from '../lab/lab.ts';
import type { Machine } from '../lab/machine.ts';
import { ensurePrograms } from '../lab/prerequisites.ts';
import { createProgress, type Progress } from '../lab/progress.ts';
import { labFolder } from '../lab/state.ts';
import { helm } from '../support/helm.ts';
import { ControlPlane } from './control-plane.ts';
import { baseName, ensureDriverLayers } from './driver-layers.ts';
import { Forwarder } from './forwarder.ts';
import { hostImage, hostPreparation, importImage, podNetwork, startKubelet } from './hosts.ts';
import { ensureClusterImages } from './images.ts';
import { API, createCredentials, kubeconfig } from './pki.ts';
import { ensureClusterPrograms, type Programs } from './programs.ts';

export interface ClusterOptions {
  /** Default: unique to this call. */
  readonly name?: string;
  /** Workers beside the storage host. Default 2. */
  readonly nodes?: number;
  /** true: outlives this process. Default false. */
  readonly detached?: boolean;
  readonly progress?: Progress;
}

export interface CommandResult {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

const MEMORY_MIB = 2048;
const NODES_READY_MS = 600_000;
const COMMAND_TIMEOUT_MS = 900_000;
const POLL_MS = 2_000;

export class Cluster implements AsyncDisposable {
  readonly lab: Lab;
  readonly #programs: Programs;
  #forwarder: Forwarder | undefined;

  private constructor(lab: Lab, programs: Programs) {
    this.lab = lab;
    this.#programs = programs;
  }

  /**
   * Starts a lab with a cluster on it, and returns when every node is ready. The first time everything is built, which
   * takes the better part of an hour; later a few minutes.
   * @throws LabError saying what is missing or what did not come up
   */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const progress = options.progress ?? createProgress('cluster');
    const needs = {
      who: 'the cluster',
      programs: { openssl: 'openssl', mmdebstrap: 'mmdebstrap', flock: 'util-linux' },
      files: {},
    };
    await ensurePrograms(path.join(cacheFolder(), 'install.lock'), progress, needs);
    const programs = await ensureClusterPrograms(progress);
    const images = await ensureClusterImages(programs, progress);
    const driver = await ensureDriverLayers(progress);
    await helm();
    const lab = await Lab.start({
      ...(options.name === undefined ? {} : { name: options.name }),
      nodes: options.nodes ?? 2,
      progress,
      image: hostImage(programs),
      storage: {
        // Controller, its sidecars, a node plugin and kubelet: on one emulated processor the probes run out of time.
        cpus: 2,
        memoryMib: MEMORY_MIB,
        // Direct: nobody cuts the power of this host here, and the zeros of each volume then take no time.
        disks: [{ name: 'vg', direct: true }],
        preparation: hostPreparation(images, driver, true),
      },
      node: { memoryMib: MEMORY_MIB, preparation: hostPreparation(images, driver, false) },
    });
    try {
      const cluster = new Cluster(lab, programs);
      await cluster.#start(progress);
      await cluster.loadDriver(progress);
      // Only now: until it is complete, Ctrl-C ends it.
      if (options.detached === true) await lab.keeper.stay();
      return cluster;
    } catch (error) {
      await lab.stop();
      throw error;
    }
  }

  /** Another process's cluster. @throws LabError when it is not up */
  static async attach(name: string, progress: Progress): Promise<Cluster> {
    const lab = await Lab.attach(name);
    const cluster = new Cluster(lab, await ensureClusterPrograms(progress));
    await readFile(cluster.kubeconfig).catch((cause: unknown) => {
      throw new LabError(`lab "${name}" has no cluster (npm run lab -- --name NAME cluster up)`, { cause });
    });
    return cluster;
  }

  /** Of a member of system:masters; its address is one of the lab's namespace. */
  get kubeconfig(): string {
    return path.join(this.#folder, 'admin.conf');
  }

  get #folder(): string {
    return path.join(labFolder(this.lab.name), 'cluster');
  }

  async #start(progress: Progress): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const { machines, keeper } = this.lab;
    const names = machines.map(({ name }) => name);
    const credentials = await createCredentials(path.join(this.#folder, 'credentials'), names);
    const admin = { user: 'admin', token: credentials.tokens.admin };
    const controlPlane = new ControlPlane(keeper, this.#programs, this.#folder, credentials);
    await progress.step('starting etcd, API server, controller-manager, scheduler', () => controlPlane.start());
    // Where pods are, for what must be reached from here.
    for (const [index, machine] of machines.entries()) {
      await keeper.run('ip', ['route', 'replace', podNetwork(index), 'via', machine.address]);
    }
    await progress.step(`starting kubelet on ${names.join(', ')}`, async () => {
      await Promise.all(machines.map((machine, index) => startKubelet(machine, index, credentials)));
    });
    await writeFile(this.kubeconfig, kubeconfig(API.address, credentials.ca, admin), { mode: 0o600 });
    await progress.step(`waiting until ${names.length} nodes are ready`, () => this.#nodesReady(names));
  }

  async #nodesReady(names: readonly string[]): Promise<void> {
    const deadline = performance.now() + NODES_READY_MS;
    const path_ = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}';
    for (;;) {
      const { stdout, stderr } = await this.kubectl(['get', 'nodes', `--output=jsonpath=${path_}`]);
      const ready = new Set(stdout.split('\n').flatMap((line) => (line.endsWith(' True') ? [line.split(' ')[0]] : [])));
      if (names.every((name) => ready.has(name))) return;
      if (performance.now() > deadline) {
        const { stdout: described } = await this.kubectl(['describe', 'nodes']);
        throw new LabError(`not every node is ready after ${NODES_READY_MS} ms:\n${stdout}${stderr}\n${described}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** kubectl as an administrator, in the lab's namespace. Never throws for an exit code. */
  async kubectl(args: readonly string[], input?: string): Promise<CommandResult> {
    return this.#run(path.join(this.#programs.folders.kubernetes, 'kubectl'), args, input);
  }

  /** helm likewise. */
  async helm(args: readonly string[], input?: string): Promise<CommandResult> {
    return this.#run(await helm(), args, input);
  }

  async #run(program: string, args: readonly string[], input: string | undefined): Promise<CommandResult> {
    const [file, all] = this.lab.keeper.command(program, args);
    const result = await execa(file, all, {
      env: this.#environment(),
      reject: false,
      timeout: COMMAND_TIMEOUT_MS,
      ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    });
    const { exitCode, stdout, stderr } = result;
    return { exitCode, stdout, stderr: exitCode === undefined ? `${stderr}${result.message}` : stderr };
  }

  /** A program on our own terminal, in the lab's namespace, with kubectl and helm in its PATH. @returns its exit code */
  async terminal(program: string, args: readonly string[]): Promise<number> {
    const bin = path.join(this.#folder, 'bin');
    await mkdir(bin, { recursive: true });
    await rm(path.join(bin, 'helm'), { force: true });
    await symlink(await helm(), path.join(bin, 'helm'));
    const [file, all] = this.lab.keeper.command(program, args);
    const PATH = `${this.#programs.folders.kubernetes}:${bin}:${process.env['PATH']}`;
    const child = spawn(file, all, { stdio: 'inherit', env: { ...process.env, ...this.#environment(), PATH } });
    return new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve(code ?? 1));
    });
  }

  #environment(): Record<string, string> {
    // What helm keeps for the user is none of the lab's.
    const of = (name: string): string => path.join(this.#folder, 'helm', name);
    return {
      KUBECONFIG: this.kubeconfig,
      HELM_CACHE_HOME: of('cache'),
      HELM_CONFIG_HOME: of('config'),
      HELM_DATA_HOME: of('data'),
    };
  }

  /** A kubeconfig whose address this process can reach, outside of the lab's namespace; valid until `stop`. */
  async reachableKubeconfig(): Promise<string> {
    this.#forwarder ??= await Forwarder.start(this.lab.keeper, API.address, API.port);
    const text = await readFile(this.kubeconfig, 'utf8');
    return text.replace(`https://${API.address}:${API.port}`, `https://127.0.0.1:${this.#forwarder.port}`);
  }

  /** Builds the driver's image from this folder, and makes it known to every host under the chart's name. */
  async loadDriver(progress: Progress): Promise<void> {
    const { base, baseKey, driver, name } = await ensureDriverLayers(progress);
    // Unpacks on two real cores.
    const queue = new PQueue({ concurrency: 2 });
    const load = async (machine: Machine): Promise<void> => {
      // Not there when Debian's packages changed since the cluster came up.
      const { stdout } = await machine.exec('ctr --namespace k8s.io images ls --quiet');
      if (!stdout.split('\n').includes(baseName(baseKey))) await importImage(machine, base);
      await importImage(machine, driver);
    };
    await progress.step(`loading ${name}`, () => queue.addAll(this.lab.machines.map((machine) => () => load(machine))));
  }

  /** Machines' and control plane's logs, and what the API server knows. Never throws. */
  async collectLogs(folder: string): Promise<void> {
    await this.lab.collectLogs(folder);
    const target = path.join(folder, 'control-plane');
    await mkdir(target, { recursive: true }).catch(() => undefined);
    await execa('sh', ['-c', 'cp "$0"/*.log "$1"', this.#folder, target], { reject: false });
    const what = 'pods,pv,pvc,volumeattachments,csinodes,csidrivers,csistoragecapacities,nodes,sts,deploy,ds';
    for (const [name, args] of [
      ['objects.yaml', ['get', what, '--all-namespaces', '--output=yaml']],
      ['events.txt', ['get', 'events', '--all-namespaces', '--sort-by=.lastTimestamp']],
      ['pods.txt', ['describe', 'pods', '--all-namespaces']],
    ] as const) {
      const { stdout, stderr } = await this.kubectl(args).catch((error: Error) => ({
        stdout: '',
        stderr: error.message,
      }));
      await writeFile(path.join(target, name), stdout + stderr).catch(() => undefined);
    }
  }

  /** Lets go of it and leaves it up. */
  async release(): Promise<void> {
    await this.#forwarder?.close();
    this.#forwarder = undefined;
  }

  async stop(): Promise<void> {
    await this.release();
    await this.lab.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
