/** Whether csi-sanity has run what it must: a spec that is skipped has tested nothing, and by itself fails nothing. */
import type { Spec } from './junit.ts';

/** How many specs are skipped for each reason, in csi-sanity's own words. */
export type Skips = Readonly<Record<string, number>>;

/** For runs of all specs. @returns a line for each difference; [] when all is as expected */
export function differences(
  specs: readonly Spec[],
  expected: { readonly specs: number; readonly skips: Skips },
): string[] {
  const lines: string[] = [];
  if (specs.length !== expected.specs) lines.push(`all specs: expected ${expected.specs}, found ${specs.length}`);
  const found = Map.groupBy(
    specs.filter(({ outcome }) => outcome === 'skipped'),
    ({ reason }) => reason,
  );
  for (const reason of new Set([...Object.keys(expected.skips), ...found.keys()])) {
    const wanted = expected.skips[reason] ?? 0;
    const skipped = found.get(reason) ?? [];
    if (skipped.length === wanted) continue;
    const names = skipped.map(({ name }) => `\n  ${name}`).join('');
    lines.push(`skipped for "${reason}": expected ${wanted}, found ${skipped.length}${names}`);
  }
  return lines;
}

/** @returns both together */
export function addSkips(some: Skips, more: Skips): Skips {
  const sum: Record<string, number> = { ...some };
  for (const [reason, count] of Object.entries(more)) sum[reason] = (sum[reason] ?? 0) + count;
  return sum;
}
