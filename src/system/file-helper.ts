/**
 * The file helper: a process that makes file-system calls for the driver and answers over IPC, so that a call that
 * blocks in the kernel costs one of its 64 threads and never the driver's own. Started by blocking-files.ts.
 */
import type { FromHelper, ToHelper, WireError } from './file-helper-protocol.ts';
import { performFileOperation } from './file-operations.ts';

export function runFileHelper(): void {
  const cancelled = new Set<number>();
  const inProgress = new Set<number>();

  // The driver decides when this ends: a SIGTERM to the whole unit must not break the calls of its drain.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
  // Not process.exit(): it joins the threads, and one that is stuck in the kernel would keep this process for ever.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  if (!process.connected) process.kill(process.pid, 'SIGKILL');

  say({ ready: true });

  process.on('message', (message: ToHelper) => {
    if (message.kind === 'cancel') {
      if (inProgress.has(message.id)) cancelled.add(message.id);
      return;
    }
    const { id, request } = message;
    inProgress.add(id);
    const check = (): void => {
      if (cancelled.has(id)) throw new Error('given up by the caller');
    };
    void performFileOperation(request, check)
      .then(
        (value): FromHelper => ({ id, ok: true, value }),
        (error: unknown): FromHelper => ({ id, ok: false, error: toWire(error) }),
      )
      .then((answer) => {
        inProgress.delete(id);
        cancelled.delete(id);
        say(answer);
      });
  });
}

/** Fails only when the driver is gone; 'disconnect' ends us then. */
function say(message: FromHelper): void {
  process.send?.(message, undefined, undefined, () => undefined);
}

function toWire(error: unknown): WireError {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, errno, syscall, path, dest } = error as NodeJS.ErrnoException & { dest?: string };
  return {
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(errno === undefined ? {} : { errno }),
    ...(syscall === undefined ? {} : { syscall }),
    ...(path === undefined ? {} : { path }),
    ...(dest === undefined ? {} : { dest }),
  };
}
