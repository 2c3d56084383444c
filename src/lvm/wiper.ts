/**
 * The background worker that wipes deleted LVs and then removes them.
 *
 * ORDER  1. zeros over the whole LV, in chunks, each segment flushed to the disk  2. lvremove
 *   Nothing but the LVs themselves says what is to be done: after a crash at any point they are still there, with the
 *   caller's mark, and are wiped again. So that a large one need not begin at zero, a tag says up to which byte zeros are
 *   known to be on the disk; it is written after the flush, never before.
 *   Names: an LV is found by its name, again for each chunk. The caller must hand over only LVs whose names are never
 *   used again (deleted volumes are renamed first): else a chunk could land on a new volume of the same name.
 */
import type { Commands } from '../system/commands.ts';
import { log, withContext } from '../system/context.ts';
import { delay, type RateLimiter } from './rate-limit.ts';
import { type LogicalVolume, type Lvm, LvmError, type VgReport } from './types.ts';
import { RateMeter, wipedBytes, wipedTag, wipedTags } from './wipe-progress.ts';
import { zeroRange } from './zero.ts';
import { zeroInSegments } from './zero-segments.ts';

export interface WiperOptions {
  readonly lvm: Lvm;
  readonly commands: Commands;
  readonly limiter: RateLimiter;
  /** Which LVs are to be wiped. Their names must never be used again, and nobody may hold them open. */
  readonly isDeleted: (lv: LogicalVolume) => boolean;
  /** Told before these LVs, all zeros now, are removed: their extents come back blank. */
  readonly onWiped?: (lvs: readonly LogicalVolume[]) => void;
}

export interface WiperStatus {
  readonly waitingVolumes: number;
  /** Still to be zeroed. */
  readonly waitingBytes: number;
  /** Zeroed since the start of this process. */
  readonly wipedBytes: number;
  readonly removedVolumes: number;
  /** undefined until something has been wiped. */
  readonly bytesPerSecond: number | undefined;
  readonly etaSeconds: number | undefined;
  readonly current: { readonly name: string; readonly doneBytes: number; readonly sizeBytes: number } | undefined;
  /** Why the last attempt failed; undefined after a success. */
  readonly lastError: string | undefined;
}

interface Item {
  lv: LogicalVolume;
  doneBytes: number;
  failures: number;
  notBeforeMs: number;
}

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 300_000;
/** Deleted LVs are announced by `wake`; this finds those that an administrator has marked. */
const RESCAN_MS = 300_000;
/** One lvremove for many costs little more than for one. */
const BATCH_VOLUMES = 32;
const BATCH_MS = 2_000;
/** Zeros are known to be in these LVs once their whole size has been written. */
const WIPEABLE = new Set(['linear', 'striped']);

export class Wiper {
  readonly #options: WiperOptions;
  readonly #items = new Map<string, Item>();
  readonly #meter = new RateMeter();
  #stopper: AbortController | undefined;
  #loop: Promise<void> | undefined;
  /** Ends the pause of the loop. */
  #waker = new AbortController();
  #current: Item | undefined;
  #wipedBytes = 0;
  #removedVolumes = 0;
  #roundFailures = 0;
  #lastError: string | undefined;

  constructor(options: WiperOptions) {
    this.#options = options;
  }

  /** Begins; started already: nothing to do. */
  start(): void {
    if (this.#loop !== undefined) return;
    const stopper = new AbortController();
    this.#stopper = stopper;
    this.#loop = withContext({ worker: 'wiper' }, () => this.#run(stopper.signal));
  }

  /** Ends after the chunk in progress, with the progress recorded. */
  async stop(): Promise<void> {
    this.#stopper?.abort(new Error('the wiper is stopped'));
    this.#waker.abort();
    await this.#loop;
    this.#loop = undefined;
  }

  /** There may be new work. */
  wake(): void {
    this.#waker.abort();
    const { lvm } = this.#options;
    // While a large LV is being wiped the new ones count already.
    lvm.read().then(
      (report) => this.#update(report),
      (error: unknown) => log().debug({ err: error }, 'wiper: the volume group could not be read'),
    );
  }

  /** What still waits, in bytes, and an estimate in seconds (undefined: not known yet). */
  backlog(): { readonly bytes: number; readonly etaSeconds: number | undefined } {
    const { waitingBytes, etaSeconds } = this.status();
    return { bytes: waitingBytes, etaSeconds };
  }

  status(): WiperStatus {
    const items = [...this.#items.values()];
    const waitingBytes = items.reduce((sum, { lv, doneBytes }) => sum + lv.sizeBytes - doneBytes, 0);
    const rate = this.#meter.bytesPerSecond;
    const current = this.#current;
    return {
      waitingVolumes: items.length,
      waitingBytes,
      wipedBytes: this.#wipedBytes,
      removedVolumes: this.#removedVolumes,
      bytesPerSecond: rate,
      etaSeconds: waitingBytes === 0 ? 0 : rate === undefined ? undefined : waitingBytes / rate,
      current: current && { name: current.lv.name, doneBytes: current.doneBytes, sizeBytes: current.lv.sizeBytes },
      lastError: this.#lastError,
    };
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#waker = new AbortController();
      let pauseMs: number;
      try {
        await this.#round(signal);
        this.#roundFailures = 0;
        pauseMs = this.#nextDueMs();
      } catch (error) {
        if (signal.aborted) break;
        this.#roundFailures += 1;
        pauseMs = retryMs(this.#roundFailures);
        this.#fail(error, 'deleted volumes wait: the volume group cannot be read');
      }
      try {
        await delay(pauseMs, this.#waker.signal);
      } catch {
        // Woken.
      }
    }
  }

  /** Everything that is due now. */
  async #round(signal: AbortSignal): Promise<void> {
    const report = await this.#options.lvm.read({ fresh: true });
    if (report.vg.exported) throw new LvmError('vg-inaccessible', 'the volume group is exported');
    if (report.vg.missingPvCount > 0) throw new LvmError('vg-partial', 'the volume group misses PVs');
    this.#update(report);
    const due = [...this.#items.values()]
      .filter((item) => item.notBeforeMs <= performance.now())
      .toSorted((a, b) => left(a) - left(b));
    let finished: Item[] = [];
    let since = performance.now();
    for (const item of due) {
      if (signal.aborted) break;
      try {
        await this.#wipe(item, signal);
        finished.push(item);
      } catch (error) {
        if (!signal.aborted) this.#postpone(item, error);
      }
      if (finished.length >= BATCH_VOLUMES || performance.now() - since > BATCH_MS) {
        await this.#remove(finished);
        finished = [];
        since = performance.now();
      }
    }
    await this.#remove(finished);
  }

  async #wipe(item: Item, signal: AbortSignal): Promise<void> {
    const { lvm, commands, limiter } = this.#options;
    const { lv } = item;
    // New chunks of a thin pool are zeroed when they are handed out.
    if (lv.segmentType === 'thin') return;
    if (!WIPEABLE.has(lv.segmentType)) throw new LvmError('invalid', `LVs of type ${lv.segmentType} cannot be wiped`);
    if (item.doneBytes >= lv.sizeBytes) return;
    if (item.doneBytes < wipedBytes(lv)) await this.#forgetProgress(item);
    if (!lv.active) await lvm.activate([lv.name]);
    log().info({ lv: lv.name, sizeBytes: lv.sizeBytes, fromBytes: item.doneBytes }, 'wiping a deleted volume');
    this.#current = item;
    let flushedBytes = item.doneBytes;
    try {
      await zeroInSegments({
        fromBytes: item.doneBytes,
        toBytes: lv.sizeBytes,
        zero: (offset, length, options) => zeroRange(commands, lv.path, offset, length, { limiter, ...options }),
        record: async (doneBytes) => {
          flushedBytes = doneBytes;
          await this.#recordProgress(item);
        },
        onMore: (bytes) => {
          this.#wipedBytes += bytes;
          item.doneBytes += bytes;
        },
        meter: this.#meter,
        signal,
      });
    } catch (error) {
      // Flushed if it was stopped; after a failure nobody knows.
      if (!signal.aborted) item.doneBytes = flushedBytes;
      throw error;
    } finally {
      this.#current = undefined;
    }
  }

  async #recordProgress(item: Item): Promise<void> {
    const add = wipedTag(item.doneBytes);
    const remove = wipedTags(item.lv).filter((tag) => tag !== add);
    await this.#options.lvm.changeTags(item.lv.name, { add: [add], remove });
    item.lv = { ...item.lv, tags: [...item.lv.tags.filter((tag) => !remove.includes(tag)), add] };
    const percent = Math.floor((item.doneBytes / item.lv.sizeBytes) * 100);
    log().info({ lv: item.lv.name, doneBytes: item.doneBytes, percent, ...this.backlog() }, 'wiping goes on');
  }

  /** The tag says more than is known by now. */
  async #forgetProgress(item: Item): Promise<void> {
    const remove = wipedTags(item.lv);
    await this.#options.lvm.changeTags(item.lv.name, { remove });
    item.lv = { ...item.lv, tags: item.lv.tags.filter((tag) => !remove.includes(tag)) };
  }

  async #remove(items: readonly Item[]): Promise<void> {
    if (items.length === 0) return;
    try {
      this.#options.onWiped?.(items.map(({ lv }) => lv));
      await this.#options.lvm.remove(items.map(({ lv }) => lv.name));
    } catch (error) {
      const inUse = error instanceof LvmError && error.kind === 'in-use';
      for (const item of items) {
        this.#postpone(item, error);
        // Whoever holds it may have written to it.
        if (inUse) await this.#startOver(item);
      }
      return;
    }
    for (const { lv } of items) this.#items.delete(lv.uuid);
    this.#removedVolumes += items.length;
    this.#lastError = undefined;
    log().info({ lvs: items.map(({ lv }) => lv.name), ...this.backlog() }, 'deleted volumes wiped and removed');
  }

  /** Also for the next process: it would go on where the tag says. */
  async #startOver(item: Item): Promise<void> {
    item.doneBytes = 0;
    if (wipedBytes(item.lv) === 0) return;
    try {
      await this.#forgetProgress(item);
    } catch (error) {
      // Tried again before the next zero is written.
      this.#fail(error, 'a tag that is no longer true could not be removed', item.lv.name);
    }
  }

  #postpone(item: Item, error: unknown): void {
    item.failures += 1;
    item.notBeforeMs = performance.now() + retryMs(item.failures);
    this.#fail(error, 'a deleted volume could not be wiped; it is tried again', item.lv.name);
  }

  #fail(error: unknown, message: string, lv?: string): void {
    this.#lastError = error instanceof Error ? error.message : String(error);
    log().warn({ err: error, lv }, message);
  }

  #update(report: VgReport): void {
    // It lists no LV then: what waited still waits.
    if (report.vg.exported) return;
    const found = new Set<string>();
    for (const lv of report.lvs) {
      if (!this.#options.isDeleted(lv)) continue;
      found.add(lv.uuid);
      const known = this.#items.get(lv.uuid);
      if (known === undefined) this.#items.set(lv.uuid, { lv, doneBytes: wipedBytes(lv), failures: 0, notBeforeMs: 0 });
      else if (known !== this.#current) known.lv = lv;
    }
    for (const [uuid, item] of this.#items) {
      if (!found.has(uuid) && item !== this.#current) this.#items.delete(uuid);
    }
  }

  /** Until the first postponed LV is due, in milliseconds. */
  #nextDueMs(): number {
    const times = [...this.#items.values()].map((item) => item.notBeforeMs - performance.now());
    return Math.max(0, Math.min(RESCAN_MS, ...times));
  }
}

function left({ lv, doneBytes }: Item): number {
  return lv.sizeBytes - doneBytes;
}

function retryMs(failures: number): number {
  return Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS);
}
