/** Every metric's name, once: the code that sets them and docs/metrics.md both come from this table. */

export interface MetricSpec {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds of a histogram, in seconds. */
  readonly buckets?: readonly number[];
  /** Which role has it. */
  readonly role: 'both' | 'controller' | 'node';
}

const CALL_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

export const METRICS = {
  build: {
    name: 'lvm_iscsi_csi_build_info',
    type: 'gauge',
    help: 'Always 1; the labels tell version and role.',
    labels: ['version', 'role'],
    role: 'both',
  },
  rpcDuration: {
    name: 'lvm_iscsi_csi_rpc_duration_seconds',
    type: 'histogram',
    help: 'Duration of CSI calls by method and gRPC code.',
    labels: ['method', 'code'],
    buckets: CALL_BUCKETS,
    role: 'both',
  },
  rpcInFlight: {
    name: 'lvm_iscsi_csi_rpc_in_flight',
    type: 'gauge',
    help: 'CSI calls in progress by method.',
    labels: ['method'],
    role: 'both',
  },
  commandDuration: {
    name: 'lvm_iscsi_csi_command_duration_seconds',
    type: 'histogram',
    help: 'Duration of commands on the host (lvs, lvcreate, mkfs.ext4, blkdiscard, dmsetup, iscsiadm, mount…) by the program that does the work, kind (read, mutate) and outcome (ok, exit, signal, timeout, missing, failed).',
    labels: ['program', 'kind', 'outcome'],
    buckets: CALL_BUCKETS,
    role: 'both',
  },
  volumes: {
    name: 'lvm_iscsi_csi_volumes',
    type: 'gauge',
    help: 'Volumes of this cluster in the volume group.',
    labels: [],
    role: 'controller',
  },
  attachments: {
    name: 'lvm_iscsi_csi_attachments',
    type: 'gauge',
    help: 'Attachments of volumes to nodes.',
    labels: [],
    role: 'controller',
  },
  comparisonFailures: {
    name: 'lvm_iscsi_csi_comparison_failures',
    type: 'gauge',
    help: 'What the last comparison of volume group and target could not repair: volumes, and the portals; the log names each.',
    labels: [],
    role: 'controller',
  },
  sessions: {
    name: 'lvm_iscsi_csi_sessions',
    type: 'gauge',
    help: 'iSCSI sessions by role (controller: those at its targets, node: those that the driver made) and state.',
    labels: ['role', 'state'],
    role: 'both',
  },
  vgSize: {
    name: 'lvm_iscsi_csi_vg_size_bytes',
    type: 'gauge',
    help: 'Size of the volume group.',
    labels: ['vg'],
    role: 'controller',
  },
  vgFree: {
    name: 'lvm_iscsi_csi_vg_free_bytes',
    type: 'gauge',
    help: 'Free space of the volume group; what waits for wiping is not free.',
    labels: ['vg'],
    role: 'controller',
  },
  vgMetadataSize: {
    name: 'lvm_iscsi_csi_vg_metadata_size_bytes',
    type: 'gauge',
    help: 'Size of the volume group’s metadata area (vg_mda_size).',
    labels: ['vg'],
    role: 'controller',
  },
  vgMetadataFree: {
    name: 'lvm_iscsi_csi_vg_metadata_free_bytes',
    type: 'gauge',
    help: 'Free part of the metadata area (vg_mda_free); at 0 no volume can be created although there is space.',
    labels: ['vg'],
    role: 'controller',
  },
  wipeBacklog: {
    name: 'lvm_iscsi_csi_wipe_backlog_bytes',
    type: 'gauge',
    help: 'Bytes of deleted volumes that are still to be wiped before their space is free.',
    labels: [],
    role: 'controller',
  },
  wipeBacklogVolumes: {
    name: 'lvm_iscsi_csi_wipe_backlog_volumes',
    type: 'gauge',
    help: 'Deleted volumes that wait for wiping, the one in progress included.',
    labels: [],
    role: 'controller',
  },
  wiped: {
    name: 'lvm_iscsi_csi_wiped_bytes_total',
    type: 'counter',
    help: 'Bytes wiped since the start; its rate is the speed of wiping.',
    labels: [],
    role: 'controller',
  },
  volatileCaches: {
    name: 'lvm_iscsi_csi_disks_with_volatile_cache',
    type: 'gauge',
    help: 'Disks below the volume group whose write cache a power cut empties, as far as the kernel and the disk tell: above 0 an fsync that was under way then may be acknowledged and lost.',
    labels: ['vg'],
    role: 'controller',
  },
  vgBlank: {
    name: 'lvm_iscsi_csi_vg_free_blank',
    type: 'gauge',
    help: '1 while free extents are trusted to be blank, else 0: then each new volume is zeroed before CreateVolume answers, until scrub is run.',
    labels: ['vg'],
    role: 'controller',
  },
  scrubBacklog: {
    name: 'lvm_iscsi_csi_scrub_backlog_bytes',
    type: 'gauge',
    help: 'Bytes that a scrub still has to zero, as it last recorded in the volume group; if it stays the same for minutes, the scrub was interrupted and holds the free space until it is run again.',
    labels: ['vg'],
    role: 'controller',
  },
  zeroBacklog: {
    name: 'lvm_iscsi_csi_zero_backlog_bytes',
    type: 'gauge',
    help: 'Bytes that are still to be zeroed, by reason: create (a new volume, before CreateVolume answers), expand (what an expansion added, before anybody sees it).',
    labels: ['reason'],
    role: 'controller',
  },
  zeroed: {
    name: 'lvm_iscsi_csi_zeroed_bytes_total',
    type: 'counter',
    help: 'Bytes zeroed for such calls since the start, by reason; its rate is the speed of zeroing.',
    labels: ['reason'],
    role: 'controller',
  },
  lostData: {
    name: 'lvm_iscsi_csi_volumes_with_lost_data_total',
    type: 'counter',
    help: 'Volumes unstaged after a failed write or flush: data that pods had written is not all on them (the log names them).',
    labels: [],
    role: 'node',
  },
  gatesSuspended: {
    name: 'lvm_iscsi_csi_gates_suspended',
    type: 'gauge',
    help: 'Gates that hold I/O back; above 0 for longer than seconds means that volumes hang.',
    labels: [],
    role: 'controller',
  },
} as const satisfies Readonly<Record<string, MetricSpec>>;

export type MetricKey = keyof typeof METRICS;

/** For docs/metrics.md (`node build.ts --docs` writes it, a unit test compares). */
export function renderMetricsAsMarkdown(): string {
  const lines = ['| metric | type | labels | role | meaning |', '|---|---|---|---|---|'];
  for (const spec of Object.values<MetricSpec>(METRICS)) {
    const labels = spec.labels.map((label) => `\`${label}\``).join(', ');
    lines.push(`| \`${spec.name}\` | ${spec.type} | ${labels} | ${spec.role} | ${spec.help.replaceAll('|', '\\|')} |`);
  }
  return `${lines.join('\n')}\n`;
}
