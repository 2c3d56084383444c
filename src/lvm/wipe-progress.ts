/** How far the wiping of an LV has come (a tag of the LV), and how fast it goes. */
import type { LogicalVolume } from './types.ts';

const WIPED_PREFIX = 'lic:wiped=';
const GIB = 1024 ** 3;
const SMALLEST_SEGMENT_BYTES = GIB / 4;
const SEGMENT_SECONDS = 60;
const ALIGNMENT_BYTES = 1024 ** 2;

/** Zeros are on the disk from the LV's first byte up to this one. */
export function wipedTag(bytes: number): string {
  return `${WIPED_PREFIX}${bytes}`;
}

export function wipedTags(lv: LogicalVolume): string[] {
  return lv.tags.filter((tag) => tag.startsWith(WIPED_PREFIX));
}

/** What the LV's tag says; 0 when it has none, or one that makes no sense. Of several the lowest counts. */
export function wipedBytes(lv: LogicalVolume): number {
  const values = wipedTags(lv).map((tag) => {
    const digits = tag.slice(WIPED_PREFIX.length);
    const bytes = Number(digits);
    return /^\d+$/.test(digits) && Number.isSafeInteger(bytes) && bytes <= lv.sizeBytes ? bytes : 0;
  });
  return values.length === 0 ? 0 : Math.min(...values);
}

/** After how many bytes progress is recorded: a tenth of the LV or a minute's work, but not for every trifle. */
export function segmentBytes(sizeBytes: number, bytesPerSecond: number | undefined): number {
  const tenth = Math.max(sizeBytes / 10, GIB);
  const minute = bytesPerSecond === undefined ? GIB : bytesPerSecond * SEGMENT_SECONDS;
  const bytes = Math.max(Math.min(tenth, minute), SMALLEST_SEGMENT_BYTES);
  return Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
}

/** Bytes per second while there was work, newer samples counting more. */
export class RateMeter {
  readonly #now: () => number;
  #sinceMs = 0;
  #rate: number | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  get bytesPerSecond(): number | undefined {
    return this.#rate;
  }

  /** Work begins (again): the time before does not count. */
  start(): void {
    this.#sinceMs = this.#now();
  }

  add(bytes: number): void {
    const now = this.#now();
    const seconds = Math.max((now - this.#sinceMs) / 1000, 0.001);
    this.#sinceMs = now;
    const sample = bytes / seconds;
    this.#rate = this.#rate === undefined ? sample : this.#rate * 0.8 + sample * 0.2;
  }
}
