import { EventEmitter } from 'node:events';
import { execa } from 'execa';
import { LabError } from './errors.ts';
import { shellQuote } from './qemu-arguments.ts';
import type { Remote } from './remote.ts';

/** A command that runs in a machine while the test goes on. */
export class RemoteProcess {
  /** in the machine; also the id of its process group */
  readonly pid: number;
  /** every line so far, stdout and stderr as they came */
  readonly lines: string[];
  readonly #remote: Remote;
  readonly #changes: EventEmitter;
  readonly #ended: Promise<number | undefined>;
  #exitCode: number | undefined;
  #hasEnded = false;

  private constructor(
    pid: number,
    remote: Remote,
    lines: string[],
    changes: EventEmitter,
    ended: Promise<number | undefined>,
  ) {
    this.pid = pid;
    this.#remote = remote;
    this.lines = lines;
    this.#changes = changes;
    this.#ended = ended.then((exitCode) => {
      this.#exitCode = exitCode;
      this.#hasEnded = true;
      changes.emit('change');
      return exitCode;
    });
  }

  static async start(remote: Remote, command: string): Promise<RemoteProcess> {
    // The first line is the pid; setsid makes the command the leader of a group that can be killed as a whole.
    const wrapped = `setsid --wait bash -c ${shellQuote(`echo $$; exec 2>&1\n${command}`)}`;
    const child = execa('ssh', [...remote.ssh.clientArguments, '-T', 'lab', wrapped], {
      reject: false,
      lines: true,
      stdin: 'ignore',
      all: true,
    });
    const lines: string[] = [];
    const changes = new EventEmitter();
    changes.setMaxListeners(0);
    const started = Promise.withResolvers<number>();
    const reading = (async () => {
      let first = true;
      for await (const line of child.iterable({ from: 'all' })) {
        if (first) {
          started.resolve(Number(line));
          first = false;
          continue;
        }
        lines.push(line);
        changes.emit('change');
      }
      const { exitCode } = await child;
      started.reject(new LabError(`${remote.name}: did not start: ${command}`));
      return exitCode;
    })();
    return new RemoteProcess(await started.promise, remote, lines, changes, reading);
  }

  get output(): string {
    return this.lines.join('\n');
  }

  get running(): boolean {
    return !this.#hasEnded;
  }

  /**
   * Waits for its end.
   * @returns its exit code; 255 or undefined when the connection to the machine ended first
   * @throws LabError when it still runs after `timeoutMs` (default 120 000)
   */
  async wait(timeoutMs = 120_000): Promise<number | undefined> {
    await this.#until(() => this.#hasEnded, timeoutMs, 'did not end');
    return this.#exitCode;
  }

  /** Waits for a line, also one that has already come. @throws LabError when it ends first, or after `timeoutMs` */
  async waitForLine(pattern: RegExp, timeoutMs = 60_000): Promise<string> {
    let found: string | undefined;
    const look = (): boolean => {
      found ??= this.lines.find((line) => pattern.test(line));
      return found !== undefined || this.#hasEnded;
    };
    await this.#until(look, timeoutMs, `said nothing like ${pattern}`);
    if (found !== undefined) return found;
    throw new LabError(`${this.#remote.name}: ended with ${this.#exitCode} before it said ${pattern}:\n${this.output}`);
  }

  /** Signals its whole process group and, unless the signal is a gentle one that it may ignore, waits for the end. */
  async kill(signal: 'TERM' | 'KILL' | 'INT' | 'HUP' | 'STOP' | 'CONT' = 'KILL'): Promise<void> {
    await this.#remote.exec(`kill -${signal} -- -${this.pid}`, { check: false });
    if (signal === 'KILL') await this.#ended;
  }

  async #until(done: () => boolean, timeoutMs: number, what: string): Promise<void> {
    if (done()) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      if (done()) resolve();
    };
    const tail = (): string => this.lines.slice(-20).join('\n');
    const timer = setTimeout(
      () => reject(new LabError(`${this.#remote.name}: pid ${this.pid} ${what} within ${timeoutMs} ms:\n${tail()}`)),
      timeoutMs,
    );
    this.#changes.on('change', look);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#changes.off('change', look);
    }
  }
}
