/**
 * A FAKE storage host, in memory: VG, gates, targets. It exists for what a real one can't be made to do in a unit test:
 * die between any two calls of an adapter. What LVM, device-mapper and LIO really do is shown in test/integration.
 */
import type { ControllerConfig } from '../../../src/config/types.ts';
import { GateError } from '../../../src/gate/errors.ts';
import type { Gate, Gates } from '../../../src/gate/types.ts';
import { TargetError } from '../../../src/iscsi/target/errors.ts';
import type { TargetSpec, TargetState, Targets } from '../../../src/iscsi/target/types.ts';
import { type LogicalVolume, type Lvm, LvmError, type TagChange, type VgReport } from '../../../src/lvm/types.ts';
import type { ChapKeys } from '../../../src/volumes/chap.ts';
import type { BackendDependencies } from '../../../src/volumes/dependencies.ts';
import { LvmBackend } from '../../../src/volumes/lvm-backend.ts';
import { sampleLv } from '../lvm/sample-lv.ts';

export const EXTENT = 4 * 1024 ** 2;
export const VG_UUID = 'vg-UUID';
export const GIB = 1024 ** 3;

export class Crash extends Error {}

interface FakeLv {
  name: string;
  sizeBytes: number;
  tags: Set<string>;
  active: boolean;
  /** First byte range that is not known to be zero, per range added. */
  dirty: { from: number; to: number }[];
  fileSystem: string | undefined;
  /** Seconds since the epoch. */
  createdAt: number | undefined;
}

/** `devicePath` is '' for one that has no LUN. */
export type FakeTarget = TargetSpec & { enabled: boolean; portals: boolean; sessions?: string[] };

export class FakeHost {
  readonly lvs = new Map<string, FakeLv>();
  readonly gates = new Map<string, { sizeBytes: number; lv: string; severed: boolean }>();
  readonly targets = new Map<string, FakeTarget>();
  /** What happened, or was tried, for tests of the order. */
  readonly calls: string[] = [];
  /** Volumes whose gate is over an LV of another VG. */
  readonly otherVgs = new Set<string>();
  /** LVs that cannot be activated. */
  readonly broken = new Set<string>();
  vgBytes = 64 * GIB;
  metadataFreeBytes = 1 << 19;
  /** Free extents are zeros, and known to be. */
  blank = false;
  /** Another one after another scrub. */
  mark = 'mark-1';
  /** Somebody else's work, just before a mutation of that name takes effect. */
  readonly meanwhile = new Map<string, () => void>();
  missingPvs = 0;
  /** As after vgexport: the VG is there and lists no LV. */
  exported = false;
  /** Dies at the n-th mutation from now on, before or after it takes effect. */
  crashAt: { call: number; when: 'before' | 'after' } | undefined;
  chapKeys: ChapKeys | undefined;
  /** Does it say that every attached volume is exported? In LIO: it outlives the controller, and not the host. */
  witness = false;
  readonly witnessed: boolean[] = [];
  wipeBacklog: { bytes: number; etaSeconds: number | undefined } = { bytes: 0, etaSeconds: undefined };
  /** What an adapter throws at the call of that name, every time. */
  readonly failures = new Map<string, Error>();
  #mutations = 0;

  config: ControllerConfig = {
    volumeGroup: 'cinder-volumes',
    clusterId: 'test',
    iqnPrefix: 'iqn.2010-10.org.openstack',
    portals: ['192.0.2.1:3260'],
    defaultFsType: 'ext4',
    defaultVolumeSizeBytes: GIB,
    maxVolumesPerNode: 0,
    chap: 'off',
    chapKeyFile: '/nonexistent',
    wipeBytesPerSecond: 0,
    diskWriteCache: 'keep',
    fenceTimeoutMs: 1000,
  };

  get mutations(): number {
    return this.#mutations;
  }

  async #mutate(name: string, effect: () => void): Promise<void> {
    await Promise.resolve();
    this.#mutations += 1;
    this.calls.push(name);
    const dies = this.crashAt?.call === this.#mutations ? this.crashAt.when : undefined;
    // Dead processes do nothing more: every later call of this life fails as well.
    if (dies === 'before' || (this.crashAt !== undefined && this.#mutations > this.crashAt.call)) throw new Crash(name);
    const failure = this.failures.get(name);
    if (failure !== undefined) throw failure;
    this.meanwhile.get(name)?.();
    effect();
    if (dies === 'after') throw new Crash(name);
  }

  /** What a report says that is not fresh, when it is older than the last change. */
  cachedFreeBytes: number | undefined;

  freeBytes(): number {
    return this.vgBytes - [...this.lvs.values()].reduce((sum, lv) => sum + lv.sizeBytes, 0);
  }

  #lv(name: string): FakeLv {
    const lv = this.lvs.get(name);
    if (lv === undefined) throw new LvmError('lv-not-found', name);
    return lv;
  }

  readonly lvm: Lvm = {
    vgName: 'cinder-volumes',
    read: async ({ fresh = false } = {}): Promise<VgReport> => {
      await Promise.resolve();
      return {
        vg: {
          name: 'cinder-volumes',
          uuid: VG_UUID,
          sizeBytes: this.vgBytes,
          freeBytes: fresh ? this.freeBytes() : (this.cachedFreeBytes ?? this.freeBytes()),
          extentSizeBytes: EXTENT,
          metadataSizeBytes: 1 << 20,
          metadataFreeBytes: this.metadataFreeBytes,
          tags: [],
          missingPvCount: this.missingPvs,
          exported: this.exported,
        },
        lvs: (this.exported ? [] : [...this.lvs.values()]).map(
          (lv): LogicalVolume =>
            sampleLv({
              name: lv.name,
              uuid: lv.name,
              path: `/dev/cinder-volumes/${lv.name}`,
              sizeBytes: lv.sizeBytes,
              tags: [...lv.tags],
              createdAt: lv.createdAt,
              active: lv.active,
              open: this.gates.has(lv.name),
            }),
        ),
      };
    },
    createLinear: ({ name, sizeBytes, tags }) =>
      this.#mutate('lv-create', () => {
        if (this.lvs.has(name)) throw new LvmError('lv-exists', name);
        if (sizeBytes > this.freeBytes()) throw new LvmError('no-space', name);
        this.lvs.set(name, {
          name,
          sizeBytes,
          tags: new Set(tags),
          active: true,
          dirty: this.blank ? [] : [{ from: 0, to: sizeBytes }],
          fileSystem: undefined,
          createdAt: Date.now() / 1000,
        });
      }),
    changeTags: (name: string, change: TagChange) =>
      this.#mutate('lv-tags', () => {
        const lv = this.#lv(name);
        for (const tag of change.remove ?? []) lv.tags.delete(tag);
        for (const tag of change.add ?? []) lv.tags.add(tag);
      }),
    changeVgTags: () => this.#mutate('vg-tags', () => undefined),
    rename: (from, to) =>
      this.#mutate('lv-rename', () => {
        const lv = this.#lv(from);
        this.lvs.delete(from);
        this.lvs.set(to, { ...lv, name: to });
      }),
    extend: (name, sizeBytes) =>
      this.#mutate('lv-extend', () => {
        const lv = this.#lv(name);
        if (!this.blank) lv.dirty.push({ from: lv.sizeBytes, to: sizeBytes });
        lv.sizeBytes = sizeBytes;
      }),
    remove: (names) => this.#mutate('lv-remove', () => names.forEach((name) => void this.lvs.delete(name))),
    activate: (names) =>
      this.#mutate('lv-activate', () => {
        // As lvchange: it goes on after one that it cannot activate, and then fails.
        for (const name of names) this.#lv(name).active = !this.broken.has(name);
        if (names.some((name) => this.broken.has(name))) throw new LvmError('other', 'device-mapper: table failed');
      }),
    deactivate: (names) =>
      this.#mutate('lv-deactivate', () => {
        for (const name of names) this.#lv(name).active = false;
      }),
  };

  /** The backstore, which comes and goes with the target here, opens the gate. */
  #openCount(volumeId: string): number {
    return this.targets.get(volumeId)?.devicePath === this.#gates.path(volumeId) ? 1 : 0;
  }

  readonly #gates: Gates = {
    path: (id) => `/dev/mapper/gate-${id}`,
    list: async (): Promise<Gate[]> =>
      [...this.gates].map(([volumeId, gate]) => ({
        volumeId,
        path: `/dev/mapper/gate-${volumeId}`,
        suspended: false,
        table: gate.severed ? 'error' : 'linear',
        sizeBytes: gate.sizeBytes,
        backing: undefined,
        openCount: this.#openCount(volumeId),
      })),
    ensure: ({ volumeId, sizeBytes }) =>
      this.#mutate('gate-ensure', () => {
        if (!this.#lv(volumeId).active) throw new Error('LV is not active');
        if (this.gates.get(volumeId)?.severed === true && this.#openCount(volumeId) > 0)
          throw new GateError('severed', 'an error table, and held open');
        this.gates.set(volumeId, { sizeBytes, lv: volumeId, severed: false });
      }),
    sever: (id) =>
      this.#mutate('gate-sever', () => {
        const gate = this.gates.get(id);
        if (gate !== undefined) gate.severed = true;
      }),
    remove: (id) =>
      this.#mutate('gate-remove', () => {
        if (this.#openCount(id) > 0) throw new GateError('in-use', 'gate is held open');
        this.gates.delete(id);
      }),
    servesOtherVg: async (id) => this.otherVgs.has(id),
    resumeAll: async () => [],
    withSuspended: async (_ids, action) => await action(),
  };

  #targetState(target: FakeTarget): TargetState {
    return {
      volumeId: target.volumeId,
      targetIqn: target.targetIqn,
      enabled: target.enabled,
      portals: target.portals ? this.config.portals : [],
      aclInitiators: target.acls.map((acl) => acl.initiatorIqn),
      admittedInitiators: target.acls.map((acl) => acl.initiatorIqn),
      backstoreDevice: target.devicePath === '' ? undefined : target.devicePath,
      backings: target.devicePath === '' ? [] : [target.devicePath],
      hasOwnBackstore: target.devicePath === this.#gates.path(target.volumeId),
      sessions: (target.sessions ?? []).map((initiatorIqn) => ({ initiatorIqn })),
    };
  }

  readonly #targets: Targets = {
    problems: async () => [],
    list: async (): Promise<TargetState[]> => [...this.targets.values()].map((target) => this.#targetState(target)),
    find: async (iqn) => {
      const target = [...this.targets.values()].find(({ targetIqn }) => targetIqn === iqn);
      return target === undefined ? undefined : this.#targetState(target);
    },
    ensure: (spec, options) =>
      this.#mutate('target-ensure', () => {
        if (!this.gates.has(spec.volumeId)) throw new Error('no gate');
        const before = this.targets.get(spec.volumeId);
        if (before !== undefined && !['', spec.devicePath].includes(before.devicePath))
          throw new TargetError('foreign', `target ${spec.targetIqn} is backed by ${before.devicePath}`);
        const portals = (options?.portals ?? true) || (before?.portals ?? false);
        // Credentials that are not known: an ACL that is there keeps its own, a new one is not made.
        const acls = spec.acls.flatMap((acl) =>
          acl.auth.kind === 'keep'
            ? (before?.acls.find(({ initiatorIqn }) => initiatorIqn === acl.initiatorIqn) ?? [])
            : [acl],
        );
        this.targets.set(spec.volumeId, { ...spec, acls, enabled: true, portals });
      }),
    listForeign: async () =>
      [...this.targets.values()]
        .filter(({ targetIqn }) => !targetIqn.startsWith(`${this.config.iqnPrefix}:`))
        .map(({ targetIqn, volumeId }) => ({ targetIqn, volumeId })),
    openPortals: (iqn) =>
      this.#mutate('target-portals', () => {
        for (const target of this.targets.values()) if (target.targetIqn === iqn) target.portals = true;
      }),
    holdPortals: () => this.#mutate('target-hold', () => {}),
    witnessIqn: (vgUuid) => `iqn.2010-10.org.openstack:portal-${vgUuid.toLowerCase()}`,
    setWitness: async (vgUuid) => {
      this.witness = vgUuid === VG_UUID;
      this.witnessed.push(this.witness);
    },
    revoke: (iqn, initiatorIqn) =>
      this.#mutate('target-revoke', () => {
        for (const [id, target] of this.targets) {
          if (target.targetIqn !== iqn) continue;
          this.targets.set(id, { ...target, acls: target.acls.filter((acl) => acl.initiatorIqn !== initiatorIqn) });
        }
      }),
    disable: (iqn) =>
      this.#mutate('target-disable', () => {
        for (const [id, target] of this.targets)
          if (target.targetIqn === iqn) this.targets.set(id, { ...target, enabled: false, acls: [] });
      }),
    remove: (volumeId) => this.#mutate('target-remove', () => void this.targets.delete(volumeId)),
  };

  dependencies(): BackendDependencies {
    return {
      config: this.config,
      lvm: this.lvm,
      gates: this.#gates,
      targets: this.#targets,
      chapKeys: this.chapKeys,
      wipeQueue: { wake: () => undefined, backlog: () => this.wipeBacklog },
      blankMark: () => (this.blank ? this.mark : undefined),
      zeroNew: (path, length) => this.#mutate('zero', () => this.#zero(path, 0, length)),
      // In two segments.
      zeroGrowth: async ({ path, fromBytes, toBytes, record, signal }) => {
        const middle = fromBytes + Math.ceil((toBytes - fromBytes) / 2 / EXTENT) * EXTENT;
        for (const [from, to] of [
          [fromBytes, middle],
          [middle, toBytes],
        ] as const) {
          signal.throwIfAborted();
          if (from === to) continue;
          await this.#mutate('zero', () => this.#zero(path, from, to));
          if (to < toBytes) await record(to);
        }
      },
      makeFileSystem: (path, fsType) =>
        this.#mutate('mkfs', () => {
          const lv = this.#lv(path.slice(path.lastIndexOf('/') + 1));
          if ([...lv.tags].some((tag) => tag.startsWith('lic:att='))) throw new Error('mkfs on an attached volume');
          if (lv.tags.has('lic:made')) throw new Error('mkfs on a volume that was handed out');
          lv.fileSystem = fsType;
        }),
    };
  }

  #zero(path: string, from: number, to: number): void {
    const lv = this.#lv(path.slice(path.lastIndexOf('/') + 1));
    const shown = this.gates.get(lv.name)?.sizeBytes ?? 0;
    if (from < shown) throw new Error('zeros over what a node has been shown');
    lv.dirty = lv.dirty
      .flatMap((range) => [
        { from: range.from, to: Math.min(range.to, from) },
        { from: Math.max(range.from, to), to: range.to },
      ])
      .filter((range) => range.from < range.to);
  }

  /** A new life of the controller on the same host. */
  async boot(): Promise<LvmBackend> {
    this.crashAt = undefined;
    const backend = new LvmBackend(this.dependencies());
    await backend.reconcile();
    return backend;
  }

  /** The host's power: what is not on a disk is gone. */
  powerCycle(): void {
    this.gates.clear();
    this.targets.clear();
    this.witness = false;
    for (const lv of this.lvs.values()) lv.active = false;
  }

  armCrash(call: number, when: 'before' | 'after'): void {
    this.#mutations = 0;
    this.crashAt = { call, when };
  }
}
