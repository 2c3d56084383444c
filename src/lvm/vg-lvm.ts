/**
 * The VG adapter. Mutations run one after another (LVM's own VG lock would serialise them anyway, at the price of a
 * waiting process each); reads are shared (coalesced.ts).
 *
 * A partial VG is never written to. LVM itself refuses lvcreate, lvextend and lvrename then, but not lvchange, vgchange
 * and lvremove: with a filter that does not yet know a PV which the administrator has just added, a mere tag change
 * writes metadata without that PV, which then counts as outdated (measured, 2.03.16). So these carry
 * `--select vg_missing_pv_count=0`, which LVM decides on under its lock. What is not selected is left alone with exit
 * code 0, so success is read from what LVM says it did, and otherwise looked up.
 */
import PQueue from 'p-queue';
import type { CommandResult } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import { Coalesced, type ReadOptions } from './coalesced.ts';
import { LvmEnvironment, type LvmEnvironmentOptions } from './environment.ts';
import { isUnknownOption } from './errors.ts';
import { LvmCommands } from './lvm-commands.ts';
import { lvReportArguments, parseLvReport, parseVgReport, vgReport, vgReportArguments } from './report.ts';
import { checkedTags } from './tags.ts';
import { type LogicalVolume, type Lvm, LvmError, type TagChange, type VgReport } from './types.ts';

export interface VgLvmOptions extends LvmEnvironmentOptions {
  /**
   * How long a report may serve as cache when we ourselves changed nothing; 5,000 ms when absent. It bounds how long
   * changes made by others (an administrator, a gate that opens an LV) go unseen by reads that are not `fresh`.
   */
  readonly cacheMs?: number;
  /** Asked after each mutation: must the disks be flushed for it to outlast a power cut? Never, when absent. */
  readonly mustFlush?: () => boolean;
  /** Told of each report that `read` makes, in order (BlankTrust). */
  readonly onReport?: (report: VgReport) => void;
}

/** Extents are multiples of it; LVM takes sizes in bytes only as multiples of a sector. */
const SECTOR_BYTES = 512;
/** Keeps a command line far below the kernel's limit. */
const NAMES_PER_COMMAND = 500;
const REPORT_ATTEMPTS = 5;
const WHOLE = 'vg_missing_pv_count=0';
/** lvremove --force takes an origin's snapshots and a pool's volumes with it: those are left alone. */
const REMOVABLE = `${WHOLE} && lv_role!=thickorigin && lv_layout!=pool`;

export class VgLvm implements Lvm {
  readonly vgName: string;
  readonly #files: Files;
  readonly #hostRoot: string;
  readonly #lvm: LvmCommands;
  readonly #mutations = new PQueue({ concurrency: 1 });
  readonly #reader: Coalesced<VgReport>;
  /**
   * Volumes are for the driver alone to activate: an initrd that does it at boot shows what tenants wrote to the host's
   * search for its root file system. LVM knows the option since 2.03.12, and refuses it before without doing anything.
   */
  #knowsAutoactivation = true;

  constructor(options: VgLvmOptions) {
    this.vgName = options.vgName;
    this.#files = options.files;
    this.#hostRoot = options.hostRoot;
    this.#lvm = new LvmCommands(options.commands, new LvmEnvironment(options), options.mustFlush);
    this.#reader = new Coalesced(async () => {
      const report = await this.#readVg();
      options.onReport?.(report);
      return report;
    }, options.cacheMs ?? 5_000);
  }

  async read(options?: ReadOptions): Promise<VgReport> {
    return await this.#reader.read(options);
  }

  async createLinear(spec: { name: string; sizeBytes: number; tags: readonly string[] }): Promise<void> {
    const tags = checkedTags(spec.tags).flatMap((tag) => ['--addtag', tag]);
    const blank = ['--wipesignatures', 'n', '--zero', 'n'];
    const args = ['--yes', '--type', 'linear', ...blank, '--size', bytes(spec.sizeBytes), '--name', spec.name, ...tags];
    const create = (...more: string[]) =>
      step('lv-create', () => this.#lvm.allocate(['lvcreate', ...args, ...more, this.vgName]));
    await this.#change(async () => {
      try {
        await create(...(this.#knowsAutoactivation ? ['--setautoactivation', 'n'] : []));
      } catch (error) {
        if (!isUnknownOption(error, '--setautoactivation')) throw error;
        this.#knowsAutoactivation = false;
        await create();
      }
    });
    await this.#checkNodes([spec.name]);
  }

  async changeTags(lvName: string, change: TagChange): Promise<void> {
    const tags = tagArguments(change);
    if (tags.length === 0) return;
    const args = ['lvchange', ...tags, '--select', WHOLE, this.#path(lvName)];
    await this.#change(() =>
      step('lv-tags', () => this.#mutateGuarded(args, (result) => result.stdout.includes(' changed.'))),
    );
  }

  async changeVgTags(change: TagChange): Promise<void> {
    const tags = tagArguments(change);
    if (tags.length === 0) return;
    const args = ['vgchange', ...tags, '--select', WHOLE, this.vgName];
    await this.#change(() =>
      step('vg-tags', () => this.#mutateGuarded(args, (result) => result.stdout.includes('successfully changed'))),
    );
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#change(() => step('lv-rename', () => this.#lvm.mutate(['lvrename', this.vgName, from, to])));
  }

  async extend(lvName: string, sizeBytes: number): Promise<void> {
    const args = ['lvextend', '--yes', '--size', bytes(sizeBytes), this.#path(lvName)];
    await this.#change(async () => {
      try {
        await step('lv-extend', () => this.#lvm.allocate(args));
      } catch (error) {
        // "New size matches existing size" is a failure to some versions and not to others.
        if (!(error instanceof LvmError && error.kind === 'other')) throw error;
        const lv = (await this.#readVg()).lvs.find(({ name }) => name === lvName);
        if (lv === undefined || lv.sizeBytes < sizeBytes) throw error;
      }
    });
  }

  async remove(lvNames: readonly string[]): Promise<void> {
    for (const names of batches(lvNames)) await this.#change(() => this.#removeBatch(names));
  }

  async activate(lvNames: readonly string[]): Promise<void> {
    for (const names of batches(lvNames)) {
      const args = ['lvchange', '--activate', 'y', '--ignoreactivationskip', ...names.map((name) => this.#path(name))];
      await this.#change(() => step('lv-activate', () => this.#lvm.mutate(args)));
      await this.#checkNodes(names);
    }
  }

  async deactivate(lvNames: readonly string[]): Promise<void> {
    for (const names of batches(lvNames)) {
      const args = ['lvchange', '--activate', 'n', ...names.map((name) => this.#path(name))];
      await this.#change(async () => {
        try {
          await step('lv-deactivate', () => this.#lvm.mutate(args));
        } catch (error) {
          if (!(error instanceof LvmError && error.kind === 'lv-not-found')) throw error;
          // What is gone is not active; the others have been dealt with all the same.
          const left = (await this.#readUsable()).lvs.filter((lv) => names.includes(lv.name) && lv.active);
          if (left.length > 0) throw error;
        }
      });
    }
  }

  async #removeBatch(names: readonly string[]): Promise<void> {
    const args = ['lvremove', '--force', '--yes', '--select', REMOVABLE];
    let remaining = names;
    for (let attempt = 1; ; attempt += 1) {
      let failure: LvmError | undefined;
      try {
        const paths = remaining.map((name) => this.#path(name));
        const { stdout } = await step('lv-remove', () => this.#lvm.mutate([...args, ...paths]));
        if (remaining.every((name) => stdout.includes(`ogical volume "${name}" successfully removed`))) return;
      } catch (error) {
        if (!(error instanceof LvmError)) throw error;
        // One that is gone makes the command fail, and one that is in use ends it early.
        failure = error;
      }
      // Reading refreshes the environment when the VG only looked partial: then the second attempt succeeds.
      const { vg, lvs } = await this.#readUsable();
      const left = lvs.filter((lv) => names.includes(lv.name));
      if (left.length === 0) return;
      if (failure !== undefined && failure.kind !== 'lv-not-found') throw failure;
      if (vg.missingPvCount > 0) throw this.#partial(vg.missingPvCount);
      if (attempt === 2) throw whyLeft(left, lvs);
      remaining = left.map((lv) => lv.name);
    }
  }

  /** A command that does nothing on a partial VG. The VG may only look partial: its PVs are searched for once more. */
  async #mutateGuarded(args: readonly string[], isDone: (result: CommandResult) => boolean): Promise<CommandResult> {
    let result = await this.#lvm.mutate(args);
    if (isDone(result)) return result;
    // Reading refreshes the environment when a PV is missing.
    const { vg } = await this.#readVg();
    if (vg.missingPvCount > 0) throw this.#partial(vg.missingPvCount);
    result = await this.#lvm.mutate(args);
    if (isDone(result)) return result;
    throw new LvmError('other', `${result.command} did not say that it did anything: ${result.stdout}${result.stderr}`);
  }

  #partial(missingPvCount: number): LvmError {
    return new LvmError('vg-partial', `volume group "${this.vgName}" misses ${missingPvCount} PVs; nothing is changed`);
  }

  /** One mutation in its turn; whatever becomes of it, earlier reads no longer count. */
  async #change(action: () => Promise<unknown>): Promise<void> {
    await this.#mutations.add(async () => {
      try {
        await action();
      } finally {
        this.#reader.invalidate();
      }
    });
  }

  /** For "it is gone": an exported VG lists no LV. */
  async #readUsable(): Promise<VgReport> {
    const report = await this.#readVg();
    if (report.vg.exported) throw new LvmError('vg-inaccessible', `volume group "${this.vgName}" is exported`);
    return report;
  }

  async #readVg(): Promise<VgReport> {
    let environment = await this.#lvm.environment.get();
    let report = await this.#report(environment.pvUuids);
    if (report.vg.spaceId === undefined && !report.vg.exported) {
      // A PV is missing or there is one more or less: by vgextend or vgreduce, which our filter does not know of.
      const refreshed = await this.#lvm.environment.refresh();
      if (refreshed !== environment) {
        environment = refreshed;
        report = await this.#report(environment.pvUuids);
      }
    }
    return report;
  }

  async #report(pvUuids: readonly string[]): Promise<VgReport> {
    for (let attempt = 1; ; attempt += 1) {
      let parsed: ReturnType<typeof parseLvReport>;
      try {
        parsed = parseLvReport((await this.#lvm.read(lvReportArguments(this.vgName))).stdout);
      } catch (error) {
        // lvs refuses an exported VG, vgs does not.
        if (!(error instanceof LvmError && error.kind === 'vg-inaccessible')) throw error;
        const row = parseVgReport((await this.#lvm.read(vgReportArguments(this.vgName))).stdout);
        if (!row.vg.exported) throw error;
        return vgReport(row, [], undefined);
      }
      const row = parsed?.row ?? parseVgReport((await this.#lvm.read(vgReportArguments(this.vgName))).stdout);
      const lvs = parsed?.lvs ?? [];
      if (lvs.length === row.lvCount) return vgReport(row, lvs, pvUuids);
      // The first LV may have come between the two reports. A list that stays wrong must not be taken for the VG's.
      if (attempt === REPORT_ATTEMPTS) {
        throw new LvmError(
          'other',
          `LVM lists ${lvs.length} logical volumes of volume group "${this.vgName}" and counts ${row.lvCount}`,
        );
      }
    }
  }

  /** udev has named them by now: LVM waits for it. */
  async #checkNodes(lvNames: readonly string[]): Promise<void> {
    for (const name of lvNames) {
      const path = `/dev/${this.vgName}/${name}`;
      const stat = await this.#files.stat(`${this.#hostRoot}${path}`);
      if (stat?.kind !== 'block') {
        throw new LvmError(
          'other',
          `LVM made ${path} active, but there is ${stat === undefined ? 'no device node' : `a ${stat.kind}`} (udevd running? activation/volume_list?)`,
        );
      }
    }
  }

  #path(lvName: string): string {
    return `${this.vgName}/${lvName}`;
  }
}

/** LVM passed over these without a word. */
function whyLeft(left: readonly LogicalVolume[], lvs: readonly LogicalVolume[]): LvmError {
  const names = left.map((lv) => lv.name);
  const users = lvs.filter((lv) => names.includes(lv.originName ?? '') || names.includes(lv.poolName ?? ''));
  return new LvmError(
    'in-use',
    `${names.join(', ')} not removed: ${users.length === 0 ? 'pool, or with snapshots' : `needed by ${users.map((lv) => lv.name).join(', ')}`}`,
  );
}

function tagArguments(change: TagChange): string[] {
  const add = checkedTags(change.add ?? []);
  const remove = checkedTags(change.remove ?? []);
  const both = add.find((tag) => remove.includes(tag));
  if (both !== undefined) throw new LvmError('invalid', `tag ${both} is to be added and removed at once`);
  return [...add.flatMap((tag) => ['--addtag', tag]), ...remove.flatMap((tag) => ['--deltag', tag])];
}

/** Sizes are always told in bytes: LVM's other units depend on its configuration. */
function bytes(sizeBytes: number): string {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0)
    throw new LvmError('invalid', `${sizeBytes} is no size in bytes`);
  return `${Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES}b`;
}

function batches(names: readonly string[]): string[][] {
  const unique = [...new Set(names)];
  const result: string[][] = [];
  for (let start = 0; start < unique.length; start += NAMES_PER_COMMAND)
    result.push(unique.slice(start, start + NAMES_PER_COMMAND));
  return result;
}
