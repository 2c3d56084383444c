import type { Context } from 'mocha';

/** Skips the running test and says why: the reporter prints the reason, and fails a skip that has none. */
export function skip(context: Context, reason: string): never {
  const test = context.test as (typeof context.test & { skipReason?: string }) | undefined;
  if (test !== undefined) test.skipReason = reason;
  return context.skip();
}
