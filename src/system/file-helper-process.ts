/** One helper process, seen from the driver: its calls in progress, those that overran, and its end. */
import { type ChildProcess, fork, type Serializable, spawn } from 'node:child_process';
import {
  FILE_HELPER_COMMAND,
  type FileAnswer,
  type FileRequest,
  type FromHelper,
  type ToHelper,
} from './file-helper-protocol.ts';
import { FileTimeoutError } from './files.ts';
import { HOST_ENVIRONMENT } from './host-namespace.ts';

export const HELPER_THREADS = 64;
const START_ALLOWANCE_MS = 30_000;

interface Call {
  readonly resolve: (value: FileAnswer) => void;
  readonly reject: (error: Error) => void;
  readonly timeoutMs: number;
  timer: NodeJS.Timeout;
  readonly onDeadline: () => void;
}

export interface HelperEvents {
  /** A call that had overrun has come back after all. */
  lateAnswer(id: number): void;
  ended(how: string): void;
}

export class FileHelperProcess {
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, Call>();
  /** Ids of calls whose deadline has passed and whose answer has not come. */
  readonly #stuck = new Set<number>();
  readonly #events: HelperEvents;
  #alive = true;
  #ready = false;
  #retired = false;

  constructor(events: HelperEvents) {
    this.#events = events;
    this.#child = startHelper();
    this.#child.on('message', (message) => this.#onAnswer(message as FromHelper));
    this.#child.on('error', (error) => this.#onEnd(`could not be started or spoken to: ${error.message}`));
    this.#child.on('exit', (code, signal) => this.#onEnd(signal === null ? `exit code ${code}` : `signal ${signal}`));
    // An idle helper is no reason for the event loop to go on; a pending call's timer is.
    this.#child.unref();
    this.#child.channel?.unref();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get alive(): boolean {
    return this.#alive;
  }

  get stuckCount(): number {
    return this.#stuck.size;
  }

  call(id: number, request: FileRequest, timeoutMs: number): Promise<FileAnswer> {
    return new Promise((resolve, reject) => {
      const onDeadline = (): void => this.#onDeadline(id, request, timeoutMs);
      // Deadlines are for the kernel: the start of the helper itself must not count against them.
      const timer = setTimeout(onDeadline, this.#ready ? timeoutMs : timeoutMs + START_ALLOWANCE_MS);
      this.#calls.set(id, { resolve, reject, timeoutMs, timer, onDeadline });
      this.#send({ kind: 'call', id, request });
    });
  }

  /** No more calls will come: ends when those in progress, overrun ones too, have come back. */
  retire(): void {
    this.#retired = true;
    this.#endWhenIdle();
  }

  /** Ends now. A thread in D state keeps the process until the kernel lets go; nobody waits for that. */
  kill(): void {
    this.#onEnd('ended by the driver');
    this.#child.kill('SIGKILL');
  }

  #send(message: ToHelper): void {
    if (!this.#child.connected) return;
    this.#child.send(message as unknown as Serializable, (error) => {
      if (error !== null) this.#onEnd(`cannot be spoken to: ${error.message}`);
    });
  }

  #onDeadline(id: number, request: FileRequest, timeoutMs: number): void {
    const call = this.#calls.get(id);
    if (call === undefined) return;
    this.#calls.delete(id);
    this.#stuck.add(id);
    this.#send({ kind: 'cancel', id });
    call.reject(new FileTimeoutError(request.operation, request.path, timeoutMs));
  }

  #onAnswer(answer: FromHelper): void {
    if ('ready' in answer) {
      this.#onReady();
      return;
    }
    const call = this.#calls.get(answer.id);
    this.#calls.delete(answer.id);
    if (call === undefined) {
      if (this.#stuck.delete(answer.id)) this.#events.lateAnswer(answer.id);
    } else {
      clearTimeout(call.timer);
      if (answer.ok) call.resolve(answer.value);
      else call.reject(Object.assign(new Error(answer.error.message), answer.error));
    }
    this.#endWhenIdle();
  }

  #onReady(): void {
    this.#ready = true;
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer);
      call.timer = setTimeout(call.onDeadline, call.timeoutMs);
    }
  }

  #onEnd(how: string): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(
        new Error(`the file helper process ended (${how}) before it answered; whether the call took effect is unknown`),
      );
    }
    this.#calls.clear();
    this.#stuck.clear();
    this.#events.ended(how);
  }

  #endWhenIdle(): void {
    if (this.#retired && this.#calls.size === 0 && this.#stuck.size === 0 && this.#child.connected)
      this.#child.disconnect();
  }
}

/**
 * The helper's own code as text, put in by the bundler: the bundle is one file, but reading megabytes of it again for a
 * helper that needs a few kilobytes takes seconds on a slow host.
 */
declare const EMBEDDED_FILE_HELPER: string | undefined;

function startHelper(): ChildProcess {
  const options = {
    env: { ...HOST_ENVIRONMENT, UV_THREADPOOL_SIZE: String(HELPER_THREADS) },
    serialization: 'advanced' as const,
  };
  if (typeof EMBEDDED_FILE_HELPER === 'string') {
    const args = ['--input-type=module', '-', FILE_HELPER_COMMAND];
    const child = spawn(process.execPath, args, { ...options, stdio: ['pipe', 'inherit', 'inherit', 'ipc'] });
    // Its early death is told by 'exit'; the pipe's own error says nothing more.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(EMBEDDED_FILE_HELPER);
    return child;
  }
  const { file, args } = helperEntry();
  return fork(file, args, { ...options, execArgv: [], stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
}

/** From source there is a small entry of its own; a bundle made without the embedded text is its own helper. */
function helperEntry(): { file: string; args: string[] } {
  if (import.meta.url.endsWith('.ts'))
    return { file: new URL('./file-helper-entry.ts', import.meta.url).pathname, args: [] };
  return { file: new URL(import.meta.url).pathname, args: [FILE_HELPER_COMMAND] };
}
