/**
 * Every option, once. Flags (`--volume-group`), environment variables (`LVM_ISCSI_CSI_VOLUME_GROUP`), keys of the
 * YAML file (`volumeGroup`), `--help` and docs/configuration.md all come from this table.
 */
import { hostname } from 'node:os';
import type { ValueKind } from './values.ts';
import * as values from './values.ts';

export type Section = 'common' | 'controller' | 'node';

export interface OptionSpec<T> {
  readonly section: Section;
  /** Stands for the value in the help, e.g. SIZE. */
  readonly placeholder: string;
  readonly kind: ValueKind<T>;
  /** As a user would write it; undefined: no value unless given. */
  readonly default: string | undefined;
  /** In place of the default's text, in help and docs, where it depends on the machine or on other options. */
  readonly defaultText?: string;
  /** No default, and the role cannot run without it: how to find the value. */
  readonly required?: string;
  /** Another variable that is read when our own is not set. */
  readonly alias?: string;
  readonly description: string;
}

/** An option that always has a value. */
function option<T>(spec: OptionSpec<T> & { readonly default: string }): OptionSpec<T> {
  return spec;
}

/** An option that has no value unless given; given but empty counts as not given. */
function optional<T>(spec: Omit<OptionSpec<T>, 'default'>): OptionSpec<T | undefined> {
  return { ...spec, default: undefined };
}

const ENDPOINT = /^unix:\/\/\/[^\0]+$/;
/** sun_path holds 108 bytes with its final NUL (unix(7)). */
const MAX_ENDPOINT_BYTES = 'unix://'.length + 107;
const DRIVER_NAME = /^[A-Za-z]([A-Za-z0-9.-]*[A-Za-z])?$/;
const VG_NAME = /^(?!\.\.?$)[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$/;
const IQN_PREFIX = /^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9.-]+(:[a-z0-9.:-]+)?$/;
const NODE_NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;

export const OPTIONS = {
  driverName: option({
    section: 'common',
    placeholder: 'NAME',
    kind: values.pattern('1 to 63 letters, digits, "-" and ".", beginning and ending with a letter', DRIVER_NAME, 63),
    default: 'lvm-iscsi-csi.github.io',
    description: 'CSI plugin name; stands in every PersistentVolume, so choose it once',
  }),
  endpoint: option({
    section: 'common',
    placeholder: 'URL',
    kind: values.pattern('unix:///absolute/path of at most 107 bytes', ENDPOINT, MAX_ENDPOINT_BYTES),
    default: 'unix:///run/lvm-iscsi-csi/csi/csi.sock',
    alias: 'CSI_ENDPOINT',
    description: 'socket that the CSI services listen on, in a folder that holds nothing else',
  }),
  tcpEndpoint: optional({
    section: 'common',
    placeholder: 'ADDRESS',
    kind: values.listenAddress,
    description: 'second listener for tests from another machine; unprotected, never use it in production',
  }),
  logLevel: option({
    section: 'common',
    placeholder: 'LEVEL',
    kind: values.oneOf('trace', 'debug', 'info', 'warn', 'error'),
    default: 'info',
    description: 'least severe level that is logged; debug shows each command that is run',
  }),
  metricsEndpoint: optional({
    section: 'common',
    placeholder: 'ADDRESS',
    kind: values.listenAddress,
    description: 'where /metrics, /healthz and /readyz are served over HTTP',
  }),
  hostCommands: option({
    section: 'common',
    placeholder: 'MODE',
    kind: values.oneOf('direct', 'nsenter'),
    default: 'direct',
    description:
      'direct: the program runs on the host; nsenter: in a privileged pod with hostPID, commands enter the host’s namespaces',
  }),
  hostRoot: optional({
    section: 'common',
    placeholder: 'PATH',
    kind: values.absolutePath,
    defaultText: '/proc/1/root with nsenter, none with direct',
    description: 'where the host’s root folder is seen by this program',
  }),
  stateDir: option({
    section: 'common',
    placeholder: 'PATH',
    kind: values.absolutePath,
    default: '/var/lib/lvm-iscsi-csi',
    description: 'folder on the host for what must survive a reboot',
  }),
  runDir: option({
    section: 'common',
    placeholder: 'PATH',
    kind: values.absolutePath,
    default: '/run/lvm-iscsi-csi',
    description:
      'folder on the host, on a tmpfs, for what must not survive a reboot; the same for all controllers of a host: in it is the lock that lets only one of them serve a volume group',
  }),
  slowCall: option({
    section: 'common',
    placeholder: 'DURATION',
    kind: values.duration('100ms', '1h'),
    default: '10s',
    description: 'a CSI call that takes longer is warned about',
  }),
  drainTimeout: option({
    section: 'common',
    placeholder: 'DURATION',
    kind: values.duration('0s', '1h'),
    default: '25s',
    description:
      'after SIGTERM, how long calls in progress may take to end; keep it below the pod’s termination grace period',
  }),
  volumeGroup: option({
    section: 'controller',
    placeholder: 'NAME',
    kind: values.pattern('an LVM volume group name (letters, digits, + _ . -, at most 127)', VG_NAME, 127),
    default: 'cinder-volumes',
    description: 'volume group that holds the volumes',
  }),
  clusterId: option({
    section: 'controller',
    placeholder: 'ID',
    kind: values.pattern(
      '1 to 64 letters, digits, "." "_" "-", beginning with a letter or digit',
      /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
      64,
    ),
    default: 'default',
    description: 'which cluster owns the volumes; those of another are left alone',
  }),
  iqnPrefix: option({
    section: 'controller',
    placeholder: 'IQN',
    kind: values.pattern('iqn.YYYY-MM.reversed.domain in lower case, at most 178 bytes', IQN_PREFIX, 178),
    default: 'iqn.2010-10.org.openstack',
    description: 'target names are PREFIX:volume-UUID; to be changed only while no volume is attached',
  }),
  portals: optional({
    section: 'controller',
    placeholder: 'ADDRESSES',
    kind: values.portals,
    required:
      'name the address of this storage host that the nodes can reach; "ip -brief address" on the storage host lists them, for example --portals 192.0.2.10',
    description:
      'addresses that targets listen on; a node makes one session, through the first of them that lets it in (no multipath yet)',
  }),
  defaultFsType: option({
    section: 'controller',
    placeholder: 'TYPE',
    kind: values.oneOf('ext4', 'xfs'),
    default: 'ext4',
    description: 'file system of volumes whose StorageClass names none',
  }),
  defaultVolumeSize: option({
    section: 'controller',
    placeholder: 'SIZE',
    kind: values.size(1024 * 1024, '1Mi'),
    default: '1Gi',
    description: 'size of a volume when the request names none',
  }),
  maxVolumesPerNode: option({
    section: 'controller',
    placeholder: 'NUMBER',
    kind: values.integer(0, 100_000, ' (0: no limit)'),
    default: '256',
    description: 'volumes that the controller attaches to one node at most; each is an iSCSI session of its own there',
  }),
  chap: option({
    section: 'controller',
    placeholder: 'MODE',
    kind: values.oneOf('on', 'mutual', 'off'),
    default: 'on',
    description: 'CHAP for each attachment; off also weakens the fence that keeps a detached node out',
  }),
  chapKeyFile: option({
    section: 'controller',
    placeholder: 'PATH',
    kind: values.absolutePath,
    default: '/etc/lvm-iscsi-csi/chap.key',
    description: 'file on the host with the key that CHAP secrets are derived from; made when absent',
  }),
  wipeRate: option({
    section: 'controller',
    placeholder: 'RATE',
    kind: values.rate,
    default: '200Mi/s',
    description:
      'how fast zeros are written in all, so that live volumes keep their share of the disks: over deleted volumes in the background and, where free space is not known to be blank, over new volumes and what an expansion adds, for which a call waits',
  }),
  diskWriteCache: option({
    section: 'controller',
    placeholder: 'MODE',
    kind: values.oneOf('off', 'keep'),
    default: 'off',
    description:
      'volatile write caches of the disks below the volume group; off: turned off, because a power cut of the storage host would take what nodes were told is written; keep: left as they are, for caches that outlast a power cut (battery, capacitors)',
  }),
  fenceTimeout: option({
    section: 'controller',
    placeholder: 'DURATION',
    kind: values.duration('1s', '1h'),
    default: '30s',
    description: 'how long cutting a node off may take before the call answers ABORTED and is tried again',
  }),
  nodeName: option({
    section: 'node',
    placeholder: 'NAME',
    kind: values.pattern('a node name: letters, digits, "." "_" "-", at most 190 bytes', NODE_NAME, 190),
    default: hostname(),
    defaultText: 'the host name',
    description: 'name of this node in the cluster; attachments are kept under it',
  }),
  initiatorNameFile: option({
    section: 'node',
    placeholder: 'PATH',
    kind: values.absolutePath,
    default: '/etc/iscsi/initiatorname.iscsi',
    description: 'open-iscsi’s file with this node’s IQN, on the host',
  }),
  maxVolumes: option({
    section: 'node',
    placeholder: 'NUMBER',
    kind: values.integer(0, 100_000, ' (0: no limit)'),
    default: '256',
    description: 'attach limit that the scheduler is told; keep it at or below the controller’s max-volumes-per-node',
  }),
  loginConcurrency: option({
    section: 'node',
    placeholder: 'NUMBER',
    kind: values.integer(1, 256),
    default: '8',
    description: 'iSCSI logins at a time to one portal, and as many logouts',
  }),
  loginTimeout: option({
    section: 'node',
    placeholder: 'DURATION',
    kind: values.duration('1s', '1h'),
    default: '30s',
    description: 'how long one login may take',
  }),
  replacementTimeout: option({
    section: 'node',
    placeholder: 'DURATION',
    kind: values.seconds('1s', '24h'),
    default: '900s',
    description: 'how long I/O waits for a storage host that is away before it fails (replacement_timeout)',
  }),
  flushTimeout: option({
    section: 'node',
    placeholder: 'DURATION',
    kind: values.duration('1s', '1h'),
    default: '60s',
    description:
      'how long writing a device’s last data may take before unstaging answers with an error that is tried again',
  }),
} as const;

export type OptionKey = keyof typeof OPTIONS;
export const OPTION_KEYS = Object.keys(OPTIONS) as OptionKey[];

/** The table's values after parsing. */
export type OptionValues = {
  readonly [K in OptionKey]: (typeof OPTIONS)[K] extends OptionSpec<infer T> ? T : never;
};

export const ENVIRONMENT_PREFIX = 'LVM_ISCSI_CSI_';

/** volumeGroup → volume-group. */
export function flagName(key: string): string {
  return key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** volumeGroup → LVM_ISCSI_CSI_VOLUME_GROUP. */
export function variableName(key: string): string {
  return ENVIRONMENT_PREFIX + flagName(key).replaceAll('-', '_').toUpperCase();
}

/** What help and docs say about the value when the user gives none. */
export function defaultText(key: OptionKey): string {
  const spec: OptionSpec<unknown> = OPTIONS[key];
  return spec.defaultText ?? spec.default ?? (spec.required === undefined ? 'none' : 'none, required');
}
