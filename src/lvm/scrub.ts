/**
 * Blank free extents: the one-time scrub, and when its result may be trusted.
 *
 * A new volume need not be zeroed when every extent that LVM can hand out is known to hold zeros. By induction:
 *  - At one instant every extent of the VG is zeroed or allocated: the scrub allocates all free extents to LVs of its own
 *    until a report, taken while it holds them, shows none free; it zeroes them whole, flushes, removes them, and only
 *    then writes the VG's tag. A crash before leaves scrub LVs without the tag: the next scrub finishes them. (Nothing
 *    can be created while it holds them; the driver then answers that there is no room, and is asked again.)
 *  - From then on, an extent becomes free only by the driver, which wipes (and flushes) before each lvremove, whether or
 *    not the VG is trusted. So a driver that is running meanwhile may create and delete as it likes.
 * What breaks the induction is anybody else who frees extents: lvremove or lvreduce by hand, pvmove, a disk added by
 * vgextend. Data safety comes first, so trust is given up when there is any sign of it (`BlankTrust`):
 *  - The tag names the VG's physical space (PV UUIDs and extents): vgextend, vgreduce and pvresize end it, also while the
 *    driver was not running. And for good, once the driver has seen the VG so: a PV that comes back (vgreduce, used
 *    elsewhere, vgextend) has the same UUID, but anything on it.
 *  - An LV that is not the driver's: whoever owns it will one day free extents with data on them. Such a VG is not
 *    scrubbed at all, and the tag is taken away when one appears later.
 *  - An LV that disappeared or shrank without the driver having wiped it, or that gave up extents for others (pvmove,
 *    lvconvert): the tag is taken away.
 * Not seen, and therefore in docs/operations.md ("Free space that is no longer blank"): what is done while the driver does
 * not run, and a PV that goes and comes back before the driver has looked.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import type { Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import { covers } from './extents.ts';
import { ProgressLog } from './progress.ts';
import type { RateLimiter } from './rate-limit.ts';
import { type LogicalVolume, type Lvm, LvmError, type VgReport } from './types.ts';
import { RateMeter, wipedBytes, wipedTag, wipedTags } from './wipe-progress.ts';
import { zeroRange } from './zero.ts';
import { zeroInSegments } from './zero-segments.ts';

const TAG_PREFIX = 'lic:scrubbed=';
const SCRUB_LV_TAG = 'lic:scrub';
/** How often free extents are gathered while others take or give some. */
const GATHER_ATTEMPTS = 20;

/** `<space id>.<random>`: another scrub gives another tag. */
export function scrubTags(report: VgReport): string[] {
  return report.vg.tags.filter((tag) => tag.startsWith(TAG_PREFIX));
}

export function isScrubLv(lv: LogicalVolume): boolean {
  return lv.tags.includes(SCRUB_LV_TAG);
}

/** What a scrub holds at the moment, in progress or interrupted. */
export function scrubStatus({ lvs }: VgReport): { readonly heldBytes: number; readonly leftBytes: number } {
  const held = lvs.filter(isScrubLv);
  return { heldBytes: totalOf(held), leftBytes: leftOf(held) };
}

function totalOf(held: readonly LogicalVolume[]): number {
  return held.reduce((sum, lv) => sum + lv.sizeBytes, 0);
}

/** Still to be zeroed, as it was recorded last. */
function leftOf(held: readonly LogicalVolume[]): number {
  return held.reduce((sum, lv) => sum + lv.sizeBytes - wipedBytes(lv), 0);
}

export interface ScrubProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** For what is left; undefined until something has been done. */
  readonly etaSeconds: number | undefined;
}

export interface ScrubOptions {
  readonly lvm: Lvm;
  readonly commands: Commands;
  /** Which LVs are the driver's (volumes, deleted ones). */
  readonly isOurs: (lv: LogicalVolume) => boolean;
  /** Also when the VG counts as scrubbed already (after something that nobody can see, as pvmove). */
  readonly again?: boolean;
  readonly limiter?: RateLimiter;
  readonly onProgress?: (progress: ScrubProgress) => void;
  /** Stops after the chunk in progress; nothing is tagged, the scrub LVs stay for the next scrub. */
  readonly signal?: AbortSignal;
}

export interface ScrubResult {
  readonly alreadyDone: boolean;
  readonly scrubbedBytes: number;
}

/**
 * Zeroes all free extents and records it. May run while the driver does.
 * @throws LvmError vg-partial, vg-inaccessible, invalid (foreign LVs in the VG), no-space (free extents that cannot be
 *   allocated), and those of `zeroRange`
 */
export async function scrub(options: ScrubOptions): Promise<ScrubResult> {
  const { lvm } = options;
  const before = await lvm.read({ fresh: true });
  checkUsable(before, options.isOurs);
  if (options.again !== true && before.lvs.every((lv) => !isScrubLv(lv)) && hasCurrentTag(before))
    return { alreadyDone: true, scrubbedBytes: 0 };
  if (scrubTags(before).length > 0) await lvm.changeVgTags({ remove: scrubTags(before) });

  const gathered = await gather(options);
  const held = gathered.lvs.filter(isScrubLv);
  await zeroAll(options, held);
  // While they are still held: was the physical space the same all the time, and nobody else there?
  const after = await lvm.read({ fresh: true });
  checkUsable(after, options.isOurs);
  if (after.vg.spaceId !== before.vg.spaceId)
    throw new LvmError('other', 'the PVs of the volume group changed while it was scrubbed; scrub again');
  const moved = gathered.lvs.find((lv) =>
    after.lvs.some(({ uuid, extents }) => uuid === lv.uuid && !covers(extents, lv.extents)),
  );
  if (moved !== undefined)
    throw new LvmError('other', `LV ${moved.name} was moved while the volume group was scrubbed; scrub again`);
  await lvm.remove(held.map((lv) => lv.name));
  await lvm.changeVgTags({ add: [`${TAG_PREFIX}${after.vg.spaceId}.${randomBytes(4).toString('hex')}`] });
  const scrubbedBytes = totalOf(held);
  log().info({ vgName: lvm.vgName, scrubbedBytes }, 'the free extents of the volume group are blank now');
  return { alreadyDone: false, scrubbedBytes };
}

async function zeroAll(options: ScrubOptions, held: readonly LogicalVolume[]): Promise<void> {
  const { lvm, onProgress } = options;
  const totalBytes = totalOf(held);
  let doneBytes = totalBytes - leftOf(held);
  const fields = { vgName: lvm.vgName };
  const progress = new ProgressLog({ what: 'scrub of the free extents', fields, totalBytes, doneBytes });
  for (const lv of held) {
    if (!lv.active) await lvm.activate([lv.name]);
    await zeroWhole(options, lv, (bytes) => {
      doneBytes += bytes;
      progress.add(bytes);
      onProgress?.({ doneBytes, totalBytes, etaSeconds: progress.etaSeconds });
    });
  }
  progress.end();
}

/** In segments, each recorded once it is on the disk: a scrub that was stopped goes on there, as a wipe does. */
async function zeroWhole(
  { lvm, commands, limiter, signal }: ScrubOptions,
  lv: LogicalVolume,
  onMore: (bytes: number) => void,
): Promise<void> {
  let oldTags = wipedTags(lv);
  await zeroInSegments({
    fromBytes: wipedBytes(lv),
    toBytes: lv.sizeBytes,
    zero: (offset, length, more) =>
      zeroRange(commands, lv.path, offset, length, { ...(limiter === undefined ? {} : { limiter }), ...more }),
    record: async (doneBytes) => {
      const tag = wipedTag(doneBytes);
      await lvm.changeTags(lv.name, { add: [tag], remove: oldTags.filter((old) => old !== tag) });
      oldTags = [tag];
    },
    onMore,
    meter: new RateMeter(),
    signal,
  });
}

/** Allocates until nothing is free; LVs left by an earlier scrub count. */
async function gather({ lvm, isOurs, signal }: ScrubOptions): Promise<VgReport> {
  let refused: { readonly freeBytes: number; readonly error: LvmError } | undefined;
  for (let attempt = 1; attempt <= GATHER_ATTEMPTS; attempt += 1) {
    signal?.throwIfAborted();
    const report = await lvm.read({ fresh: true });
    checkUsable(report, isOurs);
    const { freeBytes } = report.vg;
    if (freeBytes === 0) return report;
    // Nobody took any, and still they cannot be allocated: they lie on a PV that is not allocatable.
    if (refused?.freeBytes === freeBytes) throw refused.error;
    try {
      await lvm.createLinear({ name: `_scrub-${randomUUID()}`, sizeBytes: freeBytes, tags: [SCRUB_LV_TAG] });
    } catch (error) {
      if (!(error instanceof LvmError && error.kind === 'no-space')) throw error;
      refused = { freeBytes, error };
    }
  }
  throw new LvmError('no-space', 'extents became free faster than they could be gathered; scrub again');
}

function checkUsable({ vg, lvs }: VgReport, isOurs: (lv: LogicalVolume) => boolean): void {
  if (vg.exported) throw new LvmError('vg-inaccessible', `volume group "${vg.name}" is exported`);
  if (vg.missingPvCount > 0 || vg.spaceId === undefined)
    throw new LvmError('vg-partial', `volume group "${vg.name}" misses PVs`);
  const foreign = lvs.filter((lv) => !isOurs(lv) && !isScrubLv(lv)).map((lv) => lv.name);
  if (foreign.length > 0) {
    throw new LvmError(
      'invalid',
      `volume group "${vg.name}" has LVs of others (${foreign.slice(0, 5).join(', ')}${foreign.length > 5 ? ', …' : ''}); what they leave behind would be taken for blank`,
    );
  }
}

function hasCurrentTag(report: VgReport): boolean {
  const { spaceId } = report.vg;
  return spaceId !== undefined && scrubTags(report).some((tag) => isFor(tag, spaceId));
}

function isFor(tag: string, spaceId: string): boolean {
  return tag.startsWith(`${TAG_PREFIX}${spaceId}.`);
}

/**
 * Watches the VG's reports for signs that somebody else freed extents, and answers whether free extents are blank.
 * When an LV has gone and a new scrub is recorded between two reports, nobody can tell which was first: then the new tag
 * is given up too. (A scrub that the driver sees at work, with the old tag gone, does not have that problem.)
 */
export class BlankTrust {
  readonly #lvm: Lvm;
  readonly #isOurs: (lv: LogicalVolume) => boolean;
  readonly #known = new Map<string, LogicalVolume>();
  /** UUIDs of LVs that were wiped and may disappear. */
  readonly #wiped = new Set<string>();
  /** Tags that are worth nothing any more; a new scrub writes another one. */
  readonly #revoked = new Set<string>();
  #spaceId: string | undefined;

  constructor(lvm: Lvm, isOurs: (lv: LogicalVolume) => boolean) {
    this.#lvm = lvm;
    this.#isOurs = isOurs;
  }

  /** These are all zeros and will be removed. */
  wiped(lvs: readonly LogicalVolume[]): void {
    for (const lv of lvs) this.#wiped.add(lv.uuid);
  }

  /** Looks at each report, in the order in which they were read (`VgLvmOptions.onReport`). */
  observe(report: VgReport): void {
    if (report.vg.missingPvCount > 0 || report.vg.exported) return;
    this.#observeSpace(report);
    const now = new Map(report.lvs.map((lv) => [lv.uuid, lv]));
    for (const [uuid, before] of this.#known) {
      const lv = now.get(uuid);
      const how = whatFreed(before, lv);
      if (how === undefined) continue;
      if (lv === undefined) this.#known.delete(uuid);
      if (!this.#wiped.delete(uuid)) this.#revoke(report, `LV ${before.name} was ${how} by somebody else`);
    }
    for (const lv of report.lvs) {
      if (isScrubLv(lv)) continue;
      this.#known.set(lv.uuid, lv);
      if (!this.#isOurs(lv)) this.#revoke(report, `LV ${lv.name} is not the driver's`);
    }
  }

  /** Are free extents blank? Pure: an older report than the last observed one does no harm. */
  isBlank(report: VgReport): boolean {
    return this.mark(report) !== undefined;
  }

  /**
   * What free extents are blank by; undefined when they are not known to be. Extents that were allocated between two
   * reports with the same mark were blank. A single report is no proof: by the time a command runs it is old.
   */
  mark(report: VgReport): string | undefined {
    const tags = scrubTags(report);
    const isTrusted =
      report.vg.missingPvCount === 0 &&
      hasCurrentTag(report) &&
      tags.every((tag) => !this.#revoked.has(tag)) &&
      report.lvs.every((lv) => this.#isOurs(lv) || isScrubLv(lv));
    return isTrusted ? [report.vg.spaceId, ...tags.toSorted()].join() : undefined;
  }

  #observeSpace(report: VgReport): void {
    const { spaceId } = report.vg;
    // Told by the change alone: while our list of PVs is old, a tag that a scrub has just written may look wrong.
    if (spaceId === undefined || spaceId === this.#spaceId) return;
    this.#spaceId = spaceId;
    const others = scrubTags(report).filter((tag) => !isFor(tag, spaceId));
    this.#revoke(report, 'its PVs, or their sizes, are not those that were scrubbed', others);
  }

  #revoke(report: VgReport, reason: string, given = scrubTags(report)): void {
    const tags = given.filter((tag) => !this.#revoked.has(tag));
    if (tags.length === 0) return;
    for (const tag of tags) this.#revoked.add(tag);
    log().warn(
      { vgName: report.vg.name, reason },
      'free extents are no longer trusted to be blank: new volumes are zeroed (run "scrub" to change that)',
    );
    this.#lvm.changeVgTags({ remove: tags }).catch((error: unknown) => {
      log().error({ err: error, vgName: report.vg.name }, 'the scrub tag could not be removed; it does not count here');
    });
  }
}

/** How extents of an LV became free between two reports; undefined when they did not. */
function whatFreed(before: LogicalVolume, now: LogicalVolume | undefined): string | undefined {
  if (now === undefined) return 'removed';
  if (now.sizeBytes < before.sizeBytes) return 'reduced';
  return covers(now.extents, before.extents) ? undefined : 'moved';
}
