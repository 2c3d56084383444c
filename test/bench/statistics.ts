/** Medians and ratios: absolute times say little on a shared machine. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  if (upper === undefined) throw new Error('a median of nothing');
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

export interface Row {
  readonly name: string;
  /** Milliseconds, one for each round. */
  readonly times: readonly number[];
}

/** A table with each row's median, spread, and its ratio to the first row's median. */
export function table(rows: readonly Row[]): string {
  const base = median(rows[0]?.times ?? []);
  const lines = ['| what | rounds | median ms | least to most ms | ratio |', '|---|---|---|---|---|'];
  for (const { name, times } of rows) {
    const middle = median(times);
    lines.push(
      `| ${name} | ${times.length} | ${middle.toFixed(0)} | ${Math.min(...times).toFixed(0)}–${Math.max(...times).toFixed(0)} | ${(middle / base).toFixed(2)} |`,
    );
  }
  return lines.join('\n');
}
