/**
 * Where LVs lie: LVM's `seg_pe_ranges`, e.g. "/dev/vdb:0-255" (lib/metadata/lv.c, format_pvsegs). While pvmove or
 * lvconvert is at work the name is a hidden LV's ("pvmove0:0-255"), which is another place as well.
 */
/** Extents `first` to `last` of a PV, or of a hidden LV. */
export interface ExtentRange {
  readonly place: string;
  readonly first: number;
  readonly last: number;
}

/** Of a thin volume: none. What is not of the known form stands for a place of its own: only whether it changes counts. */
export function parseExtents(text: string): ExtentRange[] {
  return text
    .split(/[ ,]+/)
    .filter((range) => range !== '')
    .map((range) => {
      const [, place = range, first = 0, last = 0] = /^(.+):(\d+)-(\d+)$/.exec(range) ?? [];
      return { place, first: Number(first), last: Number(last) };
    });
}

/** Sorted, and neighbours are one: the same extents always give the same ranges, however many segments there are. */
export function mergedExtents(ranges: readonly ExtentRange[]): ExtentRange[] {
  const merged: ExtentRange[] = [];
  for (const range of ranges.toSorted((a, b) => compare(a.place, b.place) || a.first - b.first)) {
    const before = merged.at(-1);
    if (before?.place === range.place && range.first <= before.last + 1)
      merged[merged.length - 1] = { ...before, last: Math.max(before.last, range.last) };
    else merged.push(range);
  }
  return merged;
}

/** Is every extent of `older` also one of `newer`? Both merged. */
export function covers(newer: readonly ExtentRange[], older: readonly ExtentRange[]): boolean {
  return older.every(({ place, first, last }) =>
    newer.some((range) => range.place === place && range.first <= first && last <= range.last),
  );
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
