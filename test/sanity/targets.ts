/** What csi-sanity is pointed at: the driver in the lab, or the FAKE plugins on this machine. */
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type CsiServer, startCsiServer } from '../../src/csi/server.ts';
import { csiServices } from '../../src/csi/services.ts';
import { type Deployment, deploy, sockets } from '../integration/support/deployment.ts';
import { leftovers } from '../integration/support/leftovers.ts';
import { Lab } from '../lab/lab.ts';
import type { Combination } from './combinations.ts';
import type { Skips } from './expected.ts';
import { FakeBackend, fakeVolumeId } from './fake/fake-backend.ts';
import { FAKE_NODE_ID, FakeNode } from './fake/fake-node.ts';
import { type PathCommands, writePathCommands } from './path-commands.ts';

/** Room for the volumes of one run together with those that wait for wiping. */
const VG_DISK_BYTES = 8 * 1024 ** 3;

export interface Endpoints {
  /** Local paths. */
  readonly controllerSocket: string;
  readonly nodeSocket: string;
  /** On the node. */
  readonly mountFolder: string;
  readonly stagingFolder: string;
  /** undefined: the node is this machine. */
  readonly paths: PathCommands | undefined;
}

export interface Target {
  /** What is skipped here beside what each combination skips. */
  readonly skips: Skips;
  /** A fresh deployment with the combination's settings. */
  start(combination: Combination): Promise<Endpoints>;
  /** What the last run left on any host, one line each. */
  leftovers(): Promise<string[]>;
  keepLogs(title: string): Promise<void>;
  stop(): Promise<void>;
}

export async function labTarget(scratch: string, attachLimit: number): Promise<Target> {
  const lab = await Lab.start({ nodes: 1, storage: { disks: [{ name: 'vg', sizeBytes: VG_DISK_BYTES }] } });
  let deployment: Deployment | undefined;
  const close = () => {
    for (const unit of deployment === undefined ? [] : [deployment.controller, ...deployment.nodes]) unit.close();
  };
  return {
    skips: {},
    start: async (combination) => {
      const [node] = lab.nodes;
      if (node === undefined) throw new Error('the lab has no node');
      if (deployment !== undefined) {
        close();
        await lab.reset();
      }
      deployment = await deploy(lab, {
        controllerOptions: [`--max-volumes-per-node=${attachLimit}`, ...combination.controllerOptions],
        nodeOptions: [`--max-volumes=${attachLimit}`],
        scrub: false,
      });
      const { controllerSocket, nodeSockets } = await sockets(deployment);
      const paths = await writePathCommands(scratch, [...node.ssh.clientArguments, '-T', 'lab']);
      return {
        controllerSocket,
        nodeSocket: nodeSockets[0] ?? '',
        mountFolder: '/var/lib/kubelet/csi-sanity/mount',
        stagingFolder: '/var/lib/kubelet/csi-sanity/staging',
        paths,
      };
    },
    leftovers: async () => (deployment === undefined ? [] : await leftovers(deployment)),
    keepLogs: async (title) => {
      const folder = path.join(
        process.env['TEST_LOGS'] ?? path.join(tmpdir(), 'lvm-iscsi-csi-logs'),
        `csi-sanity-${title}`,
      );
      await lab.collectLogs(folder);
      console.log(`logs of all machines: ${folder}`);
    },
    stop: async () => {
      close();
      await lab.stop();
    },
  };
}

export async function fakeTarget(scratch: string): Promise<Target> {
  console.log('FAKE plugins: nothing is attached or mounted; this tests the wire alone');
  const servers: CsiServer[] = [];
  const stopServers = async () => {
    await Promise.all(servers.splice(0).map(async (server) => await server.stop(5000)));
  };
  return {
    // The fake node knows no limit.
    skips: { 'No MaxVolumesPerNode': 1 },
    start: async (combination) => {
      await stopServers();
      const folder = path.join(scratch, combination.name);
      await mkdir(folder);
      const common = { driverName: 'fake.lvm-iscsi-csi.github.io', version: '0.0.0-fake' };
      const transport = { tcpEndpoint: undefined, slowCallMs: 1000, observer: undefined };
      const serve = async (name: string, options: Partial<Parameters<typeof csiServices>[0]>): Promise<string> => {
        const socket = path.join(folder, `${name}.sock`);
        const { services } = csiServices({ ...common, ...options });
        servers.push(await startCsiServer({ ...transport, endpoint: `unix://${socket}`, services }));
        return socket;
      };
      const backend = new FakeBackend([FAKE_NODE_ID]);
      return {
        controllerSocket: await serve('controller', { controller: { backend, volumeIdForName: fakeVolumeId } }),
        nodeSocket: await serve('node', { node: new FakeNode() }),
        mountFolder: path.join(folder, 'mount'),
        stagingFolder: path.join(folder, 'staging'),
        paths: undefined,
      };
    },
    leftovers: async () => [],
    keepLogs: async () => {},
    stop: stopServers,
  };
}
