/**
 * The programs of a Kubernetes cluster, each built once from its Go module into the user's cache folder: there is no
 * registry to pull them from. The modules in `go/` pin every version with its sum; the built ones are told apart by them.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { buildOnce, cacheFolder, contentHash, exists, touchAndPrune } from '../lab/cache.ts';
import { LabError } from '../lab/errors.ts';
import type { Progress } from '../lab/progress.ts';

interface Module {
  /** name of its folder in `go/` */
  readonly name: string;
  /** Packages, each of one program; a leading "./" is a program of our own. */
  readonly packages: readonly string[];
  readonly tags?: string;
  readonly ldflags?: string;
  /** on two slow cores, for whoever waits */
  readonly duration: string;
}

export const KUBERNETES_VERSION = 'v1.36.3';

const VERSION_PACKAGE = 'k8s.io/component-base/version';

const MODULES = {
  kubernetes: {
    name: 'kubernetes',
    packages: ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubelet', 'kubectl'].map(
      (name) => `k8s.io/kubernetes/cmd/${name}`,
    ),
    tags: 'providerless',
    // Without it the API server calls itself v0.0.0, and clients and helm go by what it says.
    ldflags: ['gitVersion=v1.36.3', 'gitMajor=1', 'gitMinor=36'].map((it) => `-X ${VERSION_PACKAGE}.${it}`).join(' '),
    duration: '20 minutes',
  },
  etcd: { name: 'etcd', packages: ['go.etcd.io/etcd/server/v3'], duration: 'two minutes' },
  containerd: {
    name: 'containerd',
    packages: [
      'github.com/containerd/containerd/v2/cmd/containerd',
      'github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2',
      'github.com/containerd/containerd/v2/cmd/ctr',
      'github.com/containernetworking/plugins/plugins/ipam/host-local',
      'github.com/containernetworking/plugins/plugins/main/bridge',
      'github.com/containernetworking/plugins/plugins/main/loopback',
    ],
    // Snapshotters whose libraries and kernel modules are not there.
    tags: 'no_btrfs no_devmapper no_zfs',
    duration: 'five minutes',
  },
  sidecars: {
    name: 'sidecars',
    packages: [
      './livenessprobe',
      './pause',
      './registrar',
      'github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher',
      'github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner',
      'github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer',
    ],
    duration: 'five minutes',
  },
} as const satisfies Record<string, Module>;

export interface Programs {
  /** folders of the modules' programs, by the module's name */
  readonly folders: Readonly<Record<keyof typeof MODULES, string>>;
}

/** Everything that a cluster is made of, from the cache or built now (half an hour, and a Go module proxy). */
export async function ensureClusterPrograms(progress: Progress): Promise<Programs> {
  const go = await goVersion();
  const folders: Record<string, string> = {};
  // One after the other: each build uses every core by itself.
  for (const module of Object.values(MODULES)) folders[module.name] = await ensureModule(module, go, progress);
  return { folders: folders as Programs['folders'] };
}

/** @returns names of the modules that `ensureClusterPrograms` would have to build */
export async function missingPrograms(): Promise<string[]> {
  const go = await goVersion();
  const missing: string[] = [];
  for (const module of Object.values(MODULES)) {
    if (!(await exists(await moduleFolder(module, go)))) missing.push(module.name);
  }
  return missing;
}

async function goVersion(): Promise<string> {
  const result = await execa('go', ['env', 'GOVERSION'], { reject: false });
  if (result.exitCode !== 0) throw new LabError('the cluster needs Go 1.26 or newer in PATH: https://go.dev/dl');
  return result.stdout;
}

const sourceFolder = (module: Module): string => path.join(import.meta.dirname, 'go', module.name);

/** where its programs are, once they are built */
async function moduleFolder(module: Module, go: string): Promise<string> {
  const hash = contentHash({ module: { ...module, duration: '' }, go, files: await sources(sourceFolder(module)) });
  return path.join(cacheFolder(), 'programs', `${module.name}-${hash}`);
}

async function ensureModule(module: Module, go: string, progress: Progress): Promise<string> {
  const folder = await buildOnce(
    await moduleFolder(module, go),
    (temporary) =>
      progress.step(`building ${module.name} (once, about ${module.duration})`, () =>
        build(module, sourceFolder(module), temporary),
      ),
    () => progress.line(`waiting for another process that builds ${module.name}`),
  );
  await touchAndPrune(folder);
  return folder;
}

async function build(module: Module, source: string, folder: string): Promise<void> {
  const args = ['build', '-trimpath', '-mod=readonly', '-o', `${folder}/`];
  if (module.tags !== undefined) args.push('-tags', module.tags);
  args.push('-ldflags', `-s -w ${module.ldflags ?? ''}`, ...module.packages);
  const result = await execa('go', args, {
    cwd: source,
    all: true,
    reject: false,
    env: { GOFLAGS: '', CGO_ENABLED: '0', GOWORK: 'off' },
  });
  if (result.exitCode === 0) return;
  const tail = (result.all ?? '').split('\n').slice(-30).join('\n');
  throw new LabError(
    `${module.name} cannot be built (go ${args.join(' ')}):\n${tail}\n` +
      'needed: Go 1.26 or newer in PATH, and a Go module proxy (go env GOPROXY)',
  );
}

async function sources(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    files[path.relative(folder, file)] = await readFile(file, 'utf8');
  }
  return files;
}
