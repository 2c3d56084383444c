/**
 * Zeroing that takes long and may be cut short: in segments, each recorded (in a tag) once it is on the disk, so that
 * whoever comes next goes on there. Deleted volumes, a scrub and what an expansion has added are zeroed so.
 */
import { increments } from './progress.ts';
import { type RateMeter, segmentBytes } from './wipe-progress.ts';
import type { ZeroOptions } from './zero.ts';

/** A tag is a metadata commit: less progress than this is not worth one. */
const WORTH_A_TAG_BYTES = 256 * 1024 ** 2;

export interface SegmentedZeroing {
  readonly fromBytes: number;
  readonly toBytes: number;
  /** `zeroRange` of the device. */
  readonly zero: (offsetBytes: number, lengthBytes: number, options: ZeroOptions) => Promise<void>;
  /** Zeros are on the disk up to this byte. Not called for the last one: that there is nothing left is for the caller to record. */
  readonly record: (doneBytes: number) => Promise<void>;
  /** Written, not flushed. */
  readonly onMore: (bytes: number) => void;
  readonly meter: RateMeter;
  /** Ends the work after the chunk in progress, with the progress recorded. */
  readonly signal?: AbortSignal | undefined;
}

/** @throws what `zero` and `record` throw; the signal's reason */
export async function zeroInSegments(work: SegmentedZeroing): Promise<void> {
  const { fromBytes, toBytes, zero, record, onMore, meter, signal } = work;
  const longest = toBytes - fromBytes;
  for (let offset = fromBytes; offset < toBytes; ) {
    signal?.throwIfAborted();
    const length = Math.min(segmentBytes(longest, meter.bytesPerSecond), toBytes - offset);
    let doneBytes = 0;
    const onProgress = increments((bytes) => {
      doneBytes += bytes;
      meter.add(bytes);
      onMore(bytes);
    });
    meter.start();
    try {
      await zero(offset, length, { onProgress, ...(signal === undefined ? {} : { signal }) });
    } catch (error) {
      // Flushed if it was stopped; after a failure nobody knows.
      if (signal?.aborted === true && doneBytes >= WORTH_A_TAG_BYTES) await record(offset + doneBytes);
      throw error;
    }
    offset += length;
    if (offset < toBytes) await record(offset);
  }
}
