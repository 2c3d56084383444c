/**
 * Fences that were begun and have not ended: ControllerUnpublish gave up waiting, or a step failed. Until they are through
 * nothing may build these attachments again: the cluster has asked for their end, and the node, let in once more, would
 * go on writing. A comparison, a publish or the retry goes on with them, whichever comes first.
 *
 * Only in memory. After a restart the attachment's tag is all that is known, and the export is built again: the node was
 * never told that it is cut off (tags.ts), nor has anybody been told that it is.
 */
import type { Attachment } from './model.ts';

export class UnfinishedFences {
  /** Nonces of the attachments that are leaving, by volume. */
  readonly #leaving = new Map<string, ReadonlySet<string>>();

  /** Runs fence and removal of the tags; while it fails the attachments count as leaving. */
  async during(volumeId: string, attachments: readonly Attachment[], fence: () => Promise<void>): Promise<void> {
    const nonces = new Set(attachments.map(({ nonce }) => nonce));
    this.#set(volumeId, [...(this.#leaving.get(volumeId) ?? []), ...nonces]);
    await fence();
    this.#set(
      volumeId,
      [...(this.#leaving.get(volumeId) ?? [])].filter((nonce) => !nonces.has(nonce)),
    );
  }

  /** Which of these are leaving. Whatever else was known of the volume is forgotten: it is attached no more. */
  among(volumeId: string, attachments: readonly Attachment[]): Attachment[] {
    const known = this.#leaving.get(volumeId);
    if (known === undefined) return [];
    const leaving = attachments.filter(({ nonce }) => known.has(nonce));
    this.#set(
      volumeId,
      leaving.map(({ nonce }) => nonce),
    );
    return leaving;
  }

  #set(volumeId: string, nonces: readonly string[]): void {
    if (nonces.length === 0) this.#leaving.delete(volumeId);
    else this.#leaving.set(volumeId, new Set(nonces));
  }
}
