/**
 * What belongs to the call in progress: its id, and a logger that carries it, so that every command, step and warning
 * of one CSI call can be tied together. Carried by AsyncLocalStorage; background work opens a context of its own.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { type Logger, pino } from 'pino';

export interface CallContext {
  readonly requestId: string;
  readonly log: Logger;
}

const storage = new AsyncLocalStorage<CallContext>();
let rootLogger: Logger = pino({ level: 'silent' });

/** Sets the process's logger; called once by main. */
export function setRootLogger(logger: Logger): void {
  rootLogger = logger;
}

/** The logger of the call in progress, or the process's own. */
export function log(): Logger {
  return storage.getStore()?.log ?? rootLogger;
}

export function requestId(): string | undefined {
  return storage.getStore()?.requestId;
}

/** Runs `action` under a new request id; `fields` are added to each of its log lines. */
export function withContext<T>(fields: Readonly<Record<string, unknown>>, action: () => T): T {
  const id = randomUUID();
  return storage.run({ requestId: id, log: rootLogger.child({ requestId: id, ...fields }) }, action);
}
