/**
 * Expansions whose new bytes are not known to be blank: they are zeroed in the background, and then shown (order of
 * writes: tags.ts). A TiB takes hours, so nothing waits for it: the volume is there at its old size, can be attached,
 * detached and deleted meanwhile, and a call to expand it waits for a while and is told to come again.
 *
 * The volume's mutex is taken for each look at the VG and each write to it, not for the zeroing between them. So that no
 * chunk lands on an LV that is another one by now, an LV that is to go goes through `without`.
 */
import { DriverError } from '../errors.ts';
import { log, withContext } from '../system/context.ts';
import type { KeyedMutex } from '../system/keyed-mutex.ts';
import type { BackendDependencies } from './dependencies.ts';
import { endGrowth } from './expansion.ts';
import { explainLvm } from './lvm-errors.ts';
import { formatBytes } from './sizes.ts';
import { growingTag, growingTags } from './tags.ts';
import { type VolumeEntry, VolumeTable } from './volume-table.ts';

interface Job {
  readonly stopper: AbortController;
  readonly ended: Promise<void>;
}

export class Growths {
  readonly #deps: BackendDependencies;
  readonly #mutex: KeyedMutex;
  readonly #patienceMs: number;
  readonly #jobs = new Map<string, Job>();
  /** Volumes that are about to go. */
  readonly #barred = new Set<string>();
  readonly #failures = new Map<string, string>();
  #stopped = false;

  /** @param patienceMs how long `finish` waits */
  constructor(deps: BackendDependencies, mutex: KeyedMutex, patienceMs: number) {
    this.#deps = deps;
    this.#mutex = mutex;
    this.#patienceMs = patienceMs;
  }

  /** Begins in the background, if nobody is at it; a failure is in the log, and the next comparison begins again. */
  start(volumeId: string): void {
    this.#job(volumeId);
  }

  /** One for each volume whose last attempt failed. */
  get failures(): string[] {
    return [...this.#failures].map(([volumeId, words]) => `${volumeId}: ${words}`);
  }

  /** @throws DriverError ABORTED when it takes longer than a call should; the work goes on. What the work throws. */
  async finish(volumeId: string): Promise<void> {
    const job = this.#job(volumeId);
    const timer = Promise.withResolvers<'late'>();
    const timeout = setTimeout(() => timer.resolve('late'), this.#patienceMs);
    try {
      if (job !== undefined && (await Promise.race([job.ended, timer.promise])) !== 'late') return;
    } catch (error) {
      if (job?.stopper.signal.aborted !== true) throw error;
    } finally {
      clearTimeout(timeout);
    }
    throw await this.#notYet(volumeId);
  }

  /** For what takes the LV away: nothing is written to it from here on. */
  async without<T>(volumeId: string, action: () => Promise<T>): Promise<T> {
    this.#barred.add(volumeId);
    const job = this.#jobs.get(volumeId);
    try {
      job?.stopper.abort(new Error('the volume is to be deleted'));
      await job?.ended.catch(() => undefined);
      this.#failures.delete(volumeId);
      return await action();
    } catch (error) {
      // It has not gone (attached in between, say). Where it has after all, nothing is found to be zeroed.
      this.#barred.delete(volumeId);
      if (job !== undefined) this.start(volumeId);
      throw error;
    } finally {
      this.#barred.delete(volumeId);
    }
  }

  /** Ends after the chunks in progress, with the progress recorded. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const jobs = [...this.#jobs.values()];
    for (const { stopper } of jobs) stopper.abort(new Error('the controller ends'));
    await Promise.allSettled(jobs.map(({ ended }) => ended));
  }

  #job(volumeId: string): Job | undefined {
    const running = this.#jobs.get(volumeId);
    if (running !== undefined) return running;
    if (this.#stopped || this.#barred.has(volumeId)) return undefined;
    const stopper = new AbortController();
    const ended = withContext({ worker: 'growth', volumeId }, async () => {
      try {
        await this.#work(volumeId, stopper.signal);
        this.#failures.delete(volumeId);
      } catch (error) {
        if (!stopper.signal.aborted) {
          log().warn({ err: error }, 'an expansion could not be finished; it is tried again');
          this.#failures.set(volumeId, error instanceof Error ? error.message : String(error));
        }
        throw error;
      } finally {
        this.#jobs.delete(volumeId);
      }
    });
    // Not everybody waits for it, and nobody for ever.
    ended.catch(() => undefined);
    const job = { stopper, ended };
    this.#jobs.set(volumeId, job);
    return job;
  }

  async #work(volumeId: string, signal: AbortSignal): Promise<void> {
    const { vgName } = this.#deps.lvm;
    await explainLvm(`the expansion of volume ${volumeId} could not be finished`, vgName, async () => {
      for (;;) {
        const entry = await this.#locked(volumeId, signal, () => this.#begin(volumeId));
        if (entry === undefined) return;
        const { lv, growingFromBytes = lv.sizeBytes } = entry;
        await this.#deps.zeroGrowth({
          path: lv.path,
          fromBytes: growingFromBytes,
          toBytes: lv.sizeBytes,
          // Also when the work is to stop: what has been done need not be done again.
          record: (doneBytes) => this.#mutex.run(volumeId, () => this.#advance(volumeId, lv.uuid, doneBytes)),
          signal,
        });
        await this.#locked(volumeId, signal, () => this.#advance(volumeId, lv.uuid, lv.sizeBytes));
      }
    });
  }

  async #locked<T>(volumeId: string, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    return await this.#mutex.run(volumeId, async () => {
      signal.throwIfAborted();
      return await action();
    });
  }

  /** Fresh: what the report of some seconds ago says of the size is not enough. undefined: nothing is left to zero. */
  async #begin(volumeId: string): Promise<VolumeEntry | undefined> {
    const entry = await this.#growing(volumeId);
    if (entry === undefined) return undefined;
    if ((entry.growingFromBytes ?? 0) < entry.lv.sizeBytes) {
      if (!entry.lv.active) await this.#deps.lvm.activate([volumeId]);
      return entry;
    }
    await endGrowth(this.#deps, entry);
    return undefined;
  }

  async #advance(volumeId: string, lvUuid: string, doneBytes: number): Promise<void> {
    const entry = await this.#growing(volumeId);
    if (entry === undefined || entry.lv.uuid !== lvUuid || (entry.growingFromBytes ?? 0) >= doneBytes) return;
    if (doneBytes >= entry.lv.sizeBytes) {
      await endGrowth(this.#deps, entry);
      return;
    }
    await this.#deps.lvm.changeTags(volumeId, { add: [growingTag(doneBytes)], remove: growingTags(entry.lv) });
  }

  async #growing(volumeId: string): Promise<VolumeEntry | undefined> {
    const { lvm, config } = this.#deps;
    const entry = (await VolumeTable.read(lvm, config.clusterId, { fresh: true })).findMade(volumeId);
    return entry?.growingFromBytes === undefined ? undefined : entry;
  }

  async #notYet(volumeId: string): Promise<DriverError> {
    const entry = await this.#growing(volumeId);
    const left = entry === undefined ? 0 : entry.lv.sizeBytes - (entry.growingFromBytes ?? 0);
    return new DriverError('ABORTED', {
      problem: `the expansion of volume ${volumeId} is not finished yet`,
      found: `${formatBytes(left)} are still to be zeroed`,
      action: 'the call is retried; until then the volume can be used at its old size',
    });
  }
}
