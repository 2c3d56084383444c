/**
 * A keeper: a small child process that holds something (a lock, a scope) for exactly as long as we live. It waits on
 * its standard input, a pipe whose only writer is this process: whatever ends us, SIGKILL included, the kernel closes
 * the pipe, the keeper reads EOF and ends by itself. Signals sent to our whole process group or unit do not reach or
 * do not end it (own session; the caller's script ignores SIGTERM): it has to outlast the drain.
 */
import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { execa } from 'execa';
import { CommandError } from './commands.ts';
import { HOST_ENVIRONMENT, quoteCommand } from './host-namespace.ts';

export interface Keeper {
  /** The first line that it printed: its report that it holds what it should. */
  readonly firstLine: string;
  /** Settles (never rejects) when the keeper has ended, with how it ended. */
  readonly exited: Promise<string>;
  /** Closes the pipe and waits for the keeper's end; SIGKILL after two seconds. */
  stop(): Promise<void>;
}

const STOP_PATIENCE_MS = 2_000;
const OUTPUT_LIMIT_BYTES = 64 * 1024;

/**
 * Starts a keeper and waits for its first line of output.
 * @throws CommandError when it ends, or stays silent for readyTimeoutMs, before that (it is killed then).
 */
export async function startKeeper(argv: readonly string[], readyTimeoutMs: number): Promise<Keeper> {
  const [file = '', ...args] = argv;
  const startedAt = performance.now();
  const subprocess = execa(file, args, {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    detached: true,
    killDescendants: true,
    forceKillAfterDelay: false,
    reject: false,
    extendEnv: false,
    env: HOST_ENVIRONMENT,
    cwd: '/',
    maxBuffer: OUTPUT_LIMIT_BYTES,
  });
  // A keeper alone is no reason for the event loop to go on.
  const holdLoop = (hold: boolean): void => {
    for (const stream of [subprocess.stdin, subprocess.stdout, subprocess.stderr]) {
      const socket = stream as unknown as Socket;
      if (hold) socket.ref();
      else socket.unref();
    }
    const child = subprocess.nodeChildProcess;
    if (hold) child.ref();
    else child.unref();
  };
  subprocess.stdin.on('error', () => {
    // EPIPE when the keeper has ended first: `exited` tells.
  });

  const ended = subprocess.then((result) => ({
    exitCode: result.exitCode,
    signal: result.signal,
    stdout: String(result.stdout ?? ''),
    stderr: String(result.stderr ?? ''),
    cause: result.cause,
    missing: result.code === 'ENOENT' || result.exitCode === 127,
  }));
  const exited = ended.then(({ exitCode, signal, stderr }) => {
    const how = signal === undefined ? `exit code ${exitCode ?? '(none)'}` : `signal ${signal}`;
    return stderr.trim() === '' ? how : `${how}: ${stderr.trim()}`;
  });

  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<'timeout'>((resolve) => {
    timer = setTimeout(() => resolve('timeout'), readyTimeoutMs);
  });
  const first = await Promise.race([firstLine(subprocess.stdout), ended, deadline]);
  clearTimeout(timer);
  if (typeof first === 'string' && first !== 'timeout') {
    holdLoop(false);
    return {
      firstLine: first.slice(0, -1),
      exited,
      async stop() {
        holdLoop(true);
        subprocess.stdin.end();
        const kill = setTimeout(() => subprocess.kill('SIGKILL'), STOP_PATIENCE_MS);
        await exited;
        clearTimeout(kill);
      },
    };
  }

  const command = quoteCommand(argv);
  const durationMs = performance.now() - startedAt;
  if (first === 'timeout') {
    subprocess.kill('SIGKILL');
    holdLoop(false);
    throw new CommandError({
      command,
      shortMessage: `${file} did not become ready within ${readyTimeoutMs} ms`,
      timedOut: true,
      durationMs,
    });
  }
  throw new CommandError({
    command,
    shortMessage: first.missing
      ? `program "${file}" not found on this host`
      : `${file} ended early: ${first.signal ?? `exit code ${first.exitCode ?? '(none)'}`}`,
    exitCode: first.exitCode,
    signal: first.signal,
    missing: first.missing,
    stdout: first.stdout,
    stderr: first.stderr,
    cause: first.cause,
    durationMs,
  });
}

/** Resolves with the first line, newline included (so that it can never be mistaken for a keyword); never for less. */
function firstLine(stream: NodeJS.ReadableStream): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const listen = (chunk: Uint8Array | string): void => {
      text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
      const end = text.indexOf('\n');
      if (end < 0) return;
      stream.off('data', listen);
      resolve(text.slice(0, end + 1));
    };
    stream.on('data', listen);
  });
}
