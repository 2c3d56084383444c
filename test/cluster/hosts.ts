/** What makes a lab machine a host of the cluster: containerd, runc and kubelet in its image, pods' images in its saved state. */
import path from 'node:path';
import type { ImageOptions } from '../lab/image.ts';
import type { ImageFile } from '../lab/image-files.ts';
import type { Machine } from '../lab/machine.ts';
import type { Preparation } from '../lab/ready.ts';
import type { DriverLayers } from './driver-layers.ts';
import { type ClusterImages, PAUSE_IMAGE } from './images.ts';
import { API, type Credentials, kubeconfig } from './pki.ts';
import type { Programs } from './programs.ts';

/** Bump when what is done before a host's state is saved changes. */
const RECIPE = 1;
const CNI_BIN = '/opt/cni/bin';
const IMPORT_TIMEOUT_MS = 900_000;

const CONTAINERD_CONFIG = `version = 3
# What these are for is not in the image.
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp",
]
[plugins.'io.containerd.cri.v1.images']
stats_collect_period = 60
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '${PAUSE_IMAGE}'
# Samples of each container's processor time, which nobody looks at here. By default they are taken every second, and cost a
# third of an emulated processor.
[plugins.'io.containerd.cri.v1.runtime']
stats_collect_period = '60s'
stats_retention_period = '5m'
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['${CNI_BIN}']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
# Not crun: Debian 12's (1.8.1) refuses the specification's version that this containerd writes.
BinaryName = '/usr/sbin/runc'
SystemdCgroup = true
`;

const KUBELET_CONFIG = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: /etc/kubernetes/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: systemd
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: false
# Nobody answers there; without an address kubelet writes an event whenever it looks at a pod.
clusterDNS: [${API.nameServer}]
# Nothing here could be pulled again.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Nothing is evicted: otherwise every container is measured every ten seconds.
evictionHard: {memory.available: 0%}
localStorageCapacityIsolation: false
# Emulated processors: what takes seconds elsewhere takes minutes here.
runtimeRequestTimeout: 10m
serializeImagePulls: false
registerNode: true
`;

/** Of every Go program here: collecting less often costs memory, which there is, and saves processor time, which is short. */
const GO_COLLECTION = 'GOGC=400';

const FILES: Readonly<Record<string, ImageFile>> = {
  '/etc/containerd/config.toml': { content: CONTAINERD_CONFIG },
  '/etc/kubernetes/kubelet.yaml': { content: KUBELET_CONFIG },
  '/etc/crictl.yaml': { content: 'runtime-endpoint: unix:///run/containerd/containerd.sock\n' },
  '/etc/modules-load.d/cluster.conf': { content: 'overlay\nbridge\nveth\n' },
  '/etc/sysctl.d/cluster.conf': { content: 'net.ipv4.ip_forward=1\nvm.overcommit_memory=1\nkernel.panic_on_oops=1\n' },
  '/etc/systemd/system/containerd.service': {
    content: `[Unit]
Description=containerd
After=network.target lab-slot.service
[Service]
Type=notify
Environment=${GO_COLLECTION}
ExecStart=/usr/local/bin/containerd
Delegate=yes
KillMode=process
Restart=always
RestartSec=2
LimitNOFILE=infinity
TasksMax=infinity
OOMScoreAdjust=-999
TimeoutStartSec=300
[Install]
WantedBy=multi-user.target
`,
  },
  '/etc/systemd/system/kubelet.service': {
    content: `[Unit]
Description=kubelet
After=containerd.service iscsid.service open-iscsi.service
Wants=containerd.service
[Service]
ExecStart=/usr/local/bin/kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.conf \\
  --node-ip=\${NODE_IP} --housekeeping-interval=60s --v=2
Environment=${GO_COLLECTION}
EnvironmentFile=/etc/kubernetes/kubelet.env
Restart=always
RestartSec=2
KillMode=process
OOMScoreAdjust=-998
[Install]
WantedBy=multi-user.target
`,
  },
};

/** The machines' image. */
export function hostImage({ folders }: Programs): ImageOptions {
  const from = (module: 'kubernetes' | 'containerd', ...names: string[]) =>
    names.map((name) => ({ name, source: path.join(folders[module], name), identity: path.basename(folders[module]) }));
  const bin = [
    ...from('containerd', 'containerd', 'containerd-shim-runc-v2', 'ctr'),
    ...from('kubernetes', 'kubelet'),
  ].map((program) => [`/usr/local/bin/${program.name}`, program] as const);
  const cni = from('containerd', 'bridge', 'host-local', 'loopback').map(
    (program) => [`${CNI_BIN}/${program.name}`, program] as const,
  );
  return {
    extraPackages: ['runc'],
    extraPrograms: Object.fromEntries(
      [...bin, ...cni].map(([file, { source, identity }]) => [file, { source, identity }]),
    ),
    extraFiles: FILES,
  };
}

/** Before a host's state is saved: containerd runs, and has what pods will need. */
export function hostPreparation(images: ClusterImages, driver: DriverLayers, isController: boolean): Preparation {
  return {
    key: `${RECIPE} ${images.key} ${driver.baseKey} ${isController}`,
    async run(machine) {
      await machine.exec('systemctl enable --now containerd.service', { timeoutMs: IMPORT_TIMEOUT_MS });
      const archives = [...images.everywhere, ...(isController ? images.controller : []), driver.base];
      for (const archive of archives) await importImage(machine, archive);
      // So that the first start of each pays for its pages before the state is saved, not after.
      await machine.exec('kubelet --version; runc --version; ctr version; sync', { timeoutMs: IMPORT_TIMEOUT_MS });
    },
  };
}

/** Makes the images of an archive known to kubelet. */
export async function importImage(machine: Machine, archive: string): Promise<void> {
  const remote = `/var/tmp/${path.basename(archive)}`;
  await machine.copyTo(archive, remote, { timeoutMs: IMPORT_TIMEOUT_MS });
  await machine.exec(`ctr --namespace k8s.io images import --local ${remote} && rm ${remote}`, {
    timeoutMs: IMPORT_TIMEOUT_MS,
  });
}

/** Starts kubelet, which makes the machine a node of the cluster by its own name. @param index its pods' network */
export async function startKubelet(machine: Machine, index: number, credentials: Credentials): Promise<void> {
  const network = {
    cniVersion: '1.0.0',
    name: 'pods',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni0',
        isGateway: true,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: podNetwork(index) }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
    ],
  };
  await machine.writeFile('/etc/cni/net.d/10-pods.conflist', JSON.stringify(network));
  await machine.writeFile('/etc/kubernetes/ca.crt', credentials.ca);
  await machine.writeFile('/etc/kubernetes/kubelet.env', `NODE_IP=${machine.address}\n`);
  const identity = { user: `system:node:${machine.name}`, token: credentials.tokens.node(machine.name) };
  await machine.writeFile('/etc/kubernetes/kubelet.conf', kubeconfig(API.address, credentials.ca, identity), 0o600);
  // The way to the cluster's own service addresses: no kube-proxy, as there is but one server of one service.
  const route = `[Unit]
Description=Route to the cluster's services
After=lab-slot.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip route replace ${API.serviceNetwork} via ${API.address} dev data0
[Install]
WantedBy=multi-user.target
`;
  await machine.writeFile('/etc/systemd/system/cluster-route.service', route);
  await machine.exec(
    'systemctl daemon-reload && systemctl enable --now cluster-route.service && systemctl enable --now kubelet.service',
  );
}

/** Addresses of a host's pods. */
export const podNetwork = (index: number): string => `10.244.${index}.0/24`;
