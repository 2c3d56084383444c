/** What every operation of the node plugin works with. */
import type { CommonConfig, NodeConfig } from '../config/types.ts';
import { BlockDevices } from '../filesystem/block-device.ts';
import { followHostPath, resolveHostPath } from '../filesystem/host-path.ts';
import { Mounts } from '../filesystem/mount.ts';
import type { Initiator } from '../iscsi/initiator/types.ts';
import type { Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { Outstanding } from './outstanding.ts';
import { NodeRecords } from './records.ts';
import { Refusals } from './refusals.ts';

export type NodePluginConfig = NodeConfig & Pick<CommonConfig, 'hostRoot' | 'stateDir'>;

export interface NodePluginOptions {
  readonly initiator: Initiator;
  readonly files: Files;
  readonly commands: Commands;
  readonly config: NodePluginConfig;
  /** For unit tests on made-up folders; the host's own when absent. */
  readonly sysRoot?: string;
  readonly mountInfoPath?: string;
  /** A volume was unstaged of which data is known to be lost. */
  readonly onLostData?: () => void;
}

export interface NodeEnvironment {
  readonly initiator: Initiator;
  readonly files: Files;
  readonly commands: Commands;
  readonly config: NodePluginConfig;
  readonly mounts: Mounts;
  readonly devices: BlockDevices;
  readonly records: NodeRecords;
  readonly outstanding: Outstanding;
  readonly refusals: Refusals;
  /** A path that the orchestrator gave, as the mount table names it. */
  resolve(path: string): Promise<string>;
  bootId(): Promise<string>;
  onLostData(): void;
}

/** No step is expected to take nearly as long; each bounds what a dead path can cost. Milliseconds. */
export const DEADLINES = {
  /** Beyond the login's own time limit: the initiator lets only a few in at a time. */
  loginMargin: 180_000,
  findDisk: 60_000,
  /** Of sysfs and of the disk's own answers. */
  device: 30_000,
  reach: 45_000,
  probe: 90_000,
  /** e2fsck -p of a large, damaged file system; kubelet gives up earlier, its retry finds the step running. */
  check: 600_000,
  /** Replays the journal. */
  mount: 180_000,
  grow: 300_000,
  unmount: 120_000,
  /** Of a mount whose device is gone, before the lazy one. */
  deadUnmount: 30_000,
  logout: 60_000,
  /** From an unmount to the moment when the kernel has let go of the disk. */
  release: 3_000,
  statfs: 10_000,
} as const;

export function createEnvironment(options: NodePluginOptions): NodeEnvironment {
  const { initiator, files, commands, config } = options;
  // Of the process in whose namespace the commands run: ourselves, or the host's PID 1.
  const mountInfoPath =
    options.mountInfoPath ?? (config.hostRoot === '' ? '/proc/self/mountinfo' : '/proc/1/mountinfo');
  let bootId: string | undefined;
  return {
    initiator,
    files,
    commands,
    config,
    mounts: new Mounts({ commands, files, mountInfoPath }),
    devices: new BlockDevices(files, options.sysRoot ?? `${config.hostRoot}/sys`),
    records: new NodeRecords(files, async () => {
      const { hostRoot, stateDir } = config;
      return `${hostRoot}${await followHostPath(files, hostRoot, `${stateDir}/node`)}`;
    }),
    outstanding: new Outstanding(),
    refusals: new Refusals(),
    onLostData: options.onLostData ?? (() => undefined),
    resolve: (path) => resolveHostPath(files, config.hostRoot, path),
    bootId: async () => {
      bootId ??= (await files.readText('/proc/sys/kernel/random/boot_id')).trim();
      return bootId;
    },
  };
}
