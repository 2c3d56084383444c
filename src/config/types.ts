/** The one typed configuration: every option validated and filled in (`config.ts` makes it from flags, environment and file). */

export type Role = 'controller' | 'node' | 'all';

export interface CommonConfig {
  /** CSI plugin name: 1–63 characters, letters, digits, '-' and '.', beginning and ending in a letter. */
  readonly driverName: string;
  /** `unix:///path/csi.sock`; neither runDir nor stateDir is its folder. */
  readonly endpoint: string;
  /** A second listener "host:port" for tests from another machine; undefined (default): none. */
  readonly tcpEndpoint: string | undefined;
  readonly logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  /** "host:port" for /metrics and /healthz and /readyz; undefined: none. */
  readonly metricsEndpoint: string | undefined;
  /** direct: the process is in the host's namespaces; nsenter: it is in a pod with hostPID, commands enter PID 1's namespaces. */
  readonly hostCommands: 'direct' | 'nsenter';
  /** Prefix under which the host's root is seen: '' (direct) or '/proc/1/root' (nsenter). */
  readonly hostRoot: string;
  /** Durable state on the host, e.g. /var/lib/lvm-iscsi-csi. A path on the host (prefix hostRoot to open it). */
  readonly stateDir: string;
  /** Volatile state on the host, e.g. /run/lvm-iscsi-csi. */
  readonly runDir: string;
  /** A call that takes longer is warned about, in milliseconds. */
  readonly slowCallMs: number;
  /** After SIGTERM, how long calls in progress may take to end, in milliseconds. Mutating commands are never killed. */
  readonly drainTimeoutMs: number;
}

export interface ControllerConfig {
  readonly volumeGroup: string;
  /** Which cluster owns the volumes: 1–64 characters. */
  readonly clusterId: string;
  readonly iqnPrefix: string;
  /** "address:port" list that targets listen on and that publish_context names. */
  readonly portals: readonly string[];
  readonly defaultFsType: 'ext4' | 'xfs';
  readonly defaultVolumeSizeBytes: number;
  /** 0: no limit. */
  readonly maxVolumesPerNode: number;
  readonly chap: 'on' | 'mutual' | 'off';
  /** Path on the host; made by the controller when absent. */
  readonly chapKeyFile: string;
  /** Rate of wiping and zeroing in the background, bytes per second; 0: no limit. */
  readonly wipeBytesPerSecond: number;
  /** What becomes of volatile write caches of the disks below the VG. */
  readonly diskWriteCache: 'off' | 'keep';
  /** How long a fence may take before ABORTED, in milliseconds. */
  readonly fenceTimeoutMs: number;
}

export interface NodeConfig {
  readonly nodeName: string;
  /** Path on the host, /etc/iscsi/initiatorname.iscsi. */
  readonly initiatorNameFile: string;
  /** What NodeGetInfo tells the scheduler; 0: no limit. */
  readonly maxVolumes: number;
  readonly loginConcurrency: number;
  readonly loginTimeoutMs: number;
  /** node.session.timeo.replacement_timeout, seconds. */
  readonly replacementTimeoutSeconds: number;
  /** How long a flush before removal may take, in milliseconds. */
  readonly flushTimeoutMs: number;
}

export type Config = CommonConfig &
  (
    | { readonly role: 'controller'; readonly controller: ControllerConfig }
    | { readonly role: 'node'; readonly node: NodeConfig }
    | { readonly role: 'all'; readonly controller: ControllerConfig; readonly node: NodeConfig }
  );
