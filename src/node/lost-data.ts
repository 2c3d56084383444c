/**
 * Data that could not be written. The kernel reports a failed writeback once (errseq, Documentation/filesystems/vfs.rst):
 * the first sync that asks gets the error, and the next one succeeds although nothing more was written. So the first one
 * is noted in the node state record, and whoever ends the staging at last says what was lost.
 */
import { log } from '../system/context.ts';
import type { NodeEnvironment } from './environment.ts';
import type { NodeRecord } from './records.ts';

/** Enough to tell what happened; a retry every two minutes must not make the record grow. */
const KEPT = 5;

export class LostData {
  readonly #env: NodeEnvironment;
  readonly #volumeId: string;
  readonly #record: NodeRecord | undefined;
  readonly #notes: string[];

  constructor(env: NodeEnvironment, volumeId: string, record: NodeRecord | undefined) {
    this.#env = env;
    this.#volumeId = volumeId;
    this.#record = record;
    this.#notes = [...(record?.lostData ?? [])];
  }

  /** Durable when it returns, where there is a record; a failure of that is logged, the caller has one of its own. */
  async note(what: string): Promise<void> {
    if (this.#notes.length >= KEPT) return;
    this.#notes.push(`${new Date().toISOString()} ${what}`);
    if (this.#record === undefined) return;
    try {
      await this.#env.records.save({ ...this.#record, lostData: this.#notes });
    } catch (error) {
      log().error({ volumeId: this.#volumeId, err: error, what }, 'lost data could not be noted');
    }
  }

  /** Before the record goes: rather twice than never. */
  report(): void {
    if (this.#notes.length === 0) return;
    log().error(
      { volumeId: this.#volumeId, events: this.#notes },
      `unwritten data of volume ${this.#volumeId} was lost: it is unstaged without errors now, but what was written before these events is not all on it`,
    );
    this.#env.onLostData();
  }
}
