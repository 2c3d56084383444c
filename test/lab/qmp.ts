import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';
import { LabError } from './errors.ts';

/** QEMU refused a command, or went away under it. `errorClass` is QMP's own, as `GenericError` or `DeviceNotFound`. */
export class QmpError extends LabError {
  override readonly name = 'QmpError';
  readonly errorClass: string;

  constructor(message: string, errorClass: string, options?: ErrorOptions) {
    super(message, options);
    this.errorClass = errorClass;
  }
}

export type QmpMessage =
  | { readonly kind: 'greeting' }
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly errorClass: string; readonly description: string }
  | { readonly kind: 'event'; readonly event: string; readonly data: unknown };

/** One line of QMP. Throws a LabError for what is none of its four shapes. */
export function parseQmpMessage(line: string): QmpMessage {
  const message = JSON.parse(line) as Record<string, unknown>;
  if ('QMP' in message) return { kind: 'greeting' };
  if ('return' in message) return { kind: 'return', id: message['id'], value: message['return'] };
  if ('error' in message) {
    const error = message['error'] as { class?: string; desc?: string };
    return { kind: 'error', id: message['id'], errorClass: error.class ?? '', description: error.desc ?? '' };
  }
  if (typeof message['event'] === 'string') return { kind: 'event', event: message['event'], data: message['data'] };
  throw new LabError(`not a QMP message: ${line}`);
}

/** Splits a stream of text into its lines; what is unfinished waits for the next chunk. */
export class LineSplitter {
  #rest = '';

  push(chunk: string): string[] {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines.map((line) => line.trim()).filter(Boolean);
  }
}

/**
 * Runs one sequence of commands against a QEMU monitor. A monitor serves one client at a time and queues the others, so
 * the connection is given back at once: the tests and the command line may talk to one machine.
 */
export async function withQmp<T>(socketPath: string, work: (qmp: Qmp) => Promise<T>): Promise<T> {
  const qmp = await Qmp.connect(socketPath);
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}

/** One command with its own connection; returns what QEMU returns. */
export async function qmpCommand(socketPath: string, command: string, args?: object): Promise<unknown> {
  return withQmp(socketPath, (qmp) => qmp.execute(command, args));
}

/** False while nobody listens there: the socket's file is there a moment before, on a busy machine a long one. */
export async function accepts(socketPath: string): Promise<boolean> {
  const socket = createConnection(socketPath);
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    if (['ECONNREFUSED', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  } finally {
    socket.destroy();
  }
}

const GREETING_TIMEOUT_MS = 60_000;

export class Qmp {
  readonly #socket: Socket;
  readonly #splitter = new LineSplitter();
  readonly #pending = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #greeted = Promise.withResolvers<void>();
  #nextId = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    // Whether anyone waits for it or not, an early end is reported by each pending command.
    this.#greeted.promise.catch(() => undefined);
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      for (const line of this.#splitter.push(chunk)) this.#receive(parseQmpMessage(line));
    });
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(undefined));
  }

  static async connect(socketPath: string): Promise<Qmp> {
    const qmp = new Qmp(createConnection(socketPath));
    const timer = setTimeout(() => qmp.#fail(new Error('no greeting')), GREETING_TIMEOUT_MS);
    try {
      await qmp.#greeted.promise;
      await qmp.execute('qmp_capabilities');
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async execute(command: string, args?: object): Promise<unknown> {
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await promise;
    } catch (cause) {
      const errorClass = cause instanceof QmpError ? cause.errorClass : '';
      throw new QmpError(`QMP ${command}: ${(cause as Error).message}`, errorClass, { cause });
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(message: QmpMessage): void {
    if (message.kind === 'greeting') this.#greeted.resolve();
    if (message.kind !== 'return' && message.kind !== 'error') return;
    const pending = this.#pending.get(Number(message.id));
    this.#pending.delete(Number(message.id));
    if (message.kind === 'return') pending?.resolve(message.value);
    else pending?.reject(new QmpError(message.description, message.errorClass));
  }

  #fail(cause: Error | undefined): void {
    const error = new QmpError('the machine has ended', 'Disconnected', { cause });
    this.#greeted.reject(error);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#socket.destroy();
  }
}
