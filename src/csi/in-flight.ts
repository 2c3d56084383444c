/**
 * At most one operation for each volume at a time. An equal request (the client lost patience and came again) joins
 * the one in progress and gets its answer; a different one waits for a moment, and is then ABORTED, naming what is in
 * progress. The work belongs to nobody's call: a client that goes away does not cancel it.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { DriverError } from '../errors.ts';
import { log, requestId } from '../system/context.ts';

interface Operation {
  readonly method: string;
  readonly fingerprint: string;
  readonly startedAtMs: number;
  readonly requestId: string | undefined;
  readonly result: Promise<unknown>;
}

/**
 * Two nodes attach a shared volume at the same moment, two pods of one node mount it: ABORTED would be a warning in a pod's
 * events, for nothing. Far less than any client waits (attacher and provisioner 60 s and more, kubelet two minutes).
 */
const PATIENCE_MS = 5_000;

export class InFlight {
  readonly #operations = new Map<string, Operation>();
  /** Requests hold secrets: only a keyed hash of them is kept, worthless in a core dump. */
  readonly #hashKey = randomBytes(32);
  readonly #patienceMs: number;

  /** @param patienceMs how long a request waits for a different one to end */
  constructor(patienceMs: number = PATIENCE_MS) {
    this.#patienceMs = patienceMs;
  }

  /**
   * @param key what must not be worked on twice at once: a volume id
   * @param request compared by value, order of keys aside
   * @throws DriverError ABORTED, or what `action` throws
   */
  async run<T>(key: string, method: string, request: unknown, action: () => Promise<T>): Promise<T> {
    const fingerprint = createHmac('sha256', this.#hashKey).update(canonicalJson({ method, request })).digest('hex');
    const lostPatience = performance.now() + this.#patienceMs;
    // After a wait another one may have been first.
    for (let current = this.#operations.get(key); current !== undefined; current = this.#operations.get(key)) {
      if (current.fingerprint === fingerprint) {
        log().info(
          { joined: current.requestId, runningMs: Date.now() - current.startedAtMs },
          'joined an equal call in progress',
        );
        // Equal method and request: the types are equal too.
        return (await current.result) as T;
      }
      const leftMs = lostPatience - performance.now();
      if (leftMs <= 0) throw busy(key, method, current);
      await endOf(current, leftMs);
    }
    const result = (async () => await action())();
    const operation: Operation = { method, fingerprint, startedAtMs: Date.now(), requestId: requestId(), result };
    this.#operations.set(key, operation);
    try {
      return await result;
    } finally {
      this.#operations.delete(key);
    }
  }

  get size(): number {
    return this.#operations.size;
  }
}

/** However it ends; `timeoutMs` at most. */
async function endOf(operation: Operation, timeoutMs: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  operation.result.then(
    () => resolve(),
    () => resolve(),
  );
  await promise;
  clearTimeout(timer);
}

function busy(key: string, method: string, current: Operation): DriverError {
  const since = new Date(current.startedAtMs).toISOString();
  const seconds = Math.round((Date.now() - current.startedAtMs) / 1000);
  return new DriverError('ABORTED', {
    problem: `${method} of ${key} cannot start while another operation on it is in progress`,
    found: `${current.method}${current.requestId === undefined ? '' : ` (request ${current.requestId})`} since ${since}, ${seconds} s`,
    action: 'retry when it has ended',
  });
}

/** JSON with sorted keys: equal values give equal texts. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => {
    if (item === null || typeof item !== 'object' || Array.isArray(item)) return item;
    return Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  });
}
