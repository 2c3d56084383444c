/**
 * Pages of a list that is sorted by id. A token is the last id of its page, so that it needs no memory and stays good
 * when volumes come and go between two pages, the last one of the page included.
 */
import { DriverError } from '../errors.ts';

const TOKEN_PREFIX = 'after:';

export interface Page<T> {
  readonly entries: readonly T[];
  /** '' on the last page. */
  readonly nextToken: string;
}

/**
 * @param items sorted by id
 * @param maxEntries 0: all
 * @throws DriverError INVALID_ARGUMENT for negative maxEntries, ABORTED for a token that is not ours
 */
export function page<T extends { readonly id: string }>(
  items: readonly T[],
  maxEntries: number,
  startingToken: string,
): Page<T> {
  if (maxEntries < 0) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: 'max_entries is negative',
      found: String(maxEntries),
      action: 'use a positive number, or 0 for all',
    });
  }
  const lastId = parseToken(startingToken);
  const rest = lastId === undefined ? items : items.filter((item) => item.id > lastId);
  const entries = maxEntries === 0 ? rest : rest.slice(0, maxEntries);
  const last = entries.at(-1);
  return { entries, nextToken: last !== undefined && entries.length < rest.length ? TOKEN_PREFIX + last.id : '' };
}

function parseToken(token: string): string | undefined {
  if (token === '') return undefined;
  if (token.startsWith(TOKEN_PREFIX) && token.length > TOKEN_PREFIX.length) return token.slice(TOKEN_PREFIX.length);
  throw foreignToken(JSON.stringify(token));
}

/** CSI: ABORTED, upon which the client lists again. */
export function foreignToken(found: string): DriverError {
  return new DriverError('ABORTED', {
    problem: 'starting_token is not one that this driver gave',
    found,
    action: 'list again from the beginning, without starting_token',
  });
}
