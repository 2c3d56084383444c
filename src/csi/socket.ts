/** Where the server listens: endpoint syntax, and the socket file that a dead process left behind. */
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { dirname } from 'node:path';
import { DriverError } from '../errors.ts';
import { log } from '../system/context.ts';
import { step } from '../system/step.ts';

/** sun_path of sockaddr_un is 108 bytes with its terminating NUL (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * `unix:///run/x/csi.sock`, `unix:/run/x/csi.sock` or `/run/x/csi.sock` → the path.
 * @throws DriverError INVALID_ARGUMENT
 */
export function socketPath(endpoint: string): string {
  const path = endpoint.replace(/^unix:(?:\/\/(?=\/)|(?=\/(?!\/)))/, '');
  const problem = !path.startsWith('/')
    ? 'is not the absolute path of a unix socket'
    : Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES
      ? `is longer than the ${MAX_SOCKET_PATH_BYTES} bytes that a socket's path may have`
      : undefined;
  if (problem === undefined) return path;
  throw new DriverError('INVALID_ARGUMENT', {
    problem: `CSI endpoint ${problem}`,
    found: JSON.stringify(endpoint),
    action: 'use unix:///path/csi.sock',
  });
}

/**
 * Makes way for our socket, and its folder when there is none. A socket file is removed only when a connect was refused,
 * so that nobody listens on it.
 * @throws DriverError FAILED_PRECONDITION when something else is there, somebody listens or the folder cannot be made
 */
export async function prepareSocketPath(path: string): Promise<void> {
  try {
    await step('csi-socket-folder-make', async () => await mkdir(dirname(path), { recursive: true, mode: 0o755 }));
  } catch (error) {
    throw new DriverError(
      'FAILED_PRECONDITION',
      {
        problem: `the folder of the CSI socket ${path} cannot be made`,
        found: error instanceof Error ? error.message : String(error),
        action: 'make it, or choose another endpoint',
      },
      { cause: error },
    );
  }
  const problem = await occupant(path);
  if (problem === 'nothing') return;
  if (problem === 'stale') {
    log().info({ path }, 'removing a stale socket: nobody listens on it');
    await step('csi-socket-unlink-stale', async () => {
      await unlink(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    });
    return;
  }
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `cannot listen on ${path}`,
    found: problem,
    action: 'stop the other process, or choose another endpoint',
  });
}

/**
 * Who may call the plugin: its own user and the group of the socket. A sidecar that is not root connects as a member of
 * that group, which is the one of the folder where that has the set-group-id bit (a pod's fsGroup on an emptyDir).
 */
export async function restrictSocket(path: string): Promise<void> {
  await step('csi-socket-restrict', async () => await chmod(path, 0o660));
}

async function occupant(path: string): Promise<string> {
  try {
    const stat = await lstat(path);
    if (!stat.isSocket()) return 'a file that is not a socket';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'nothing';
    throw error;
  }
  const refusal = await new Promise<string | undefined>((resolve) => {
    const connection = createConnection(path);
    connection.once('connect', () => {
      connection.destroy();
      resolve(undefined);
    });
    connection.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
  if (refusal === 'ECONNREFUSED') return 'stale';
  if (refusal === 'ENOENT') return 'nothing';
  return refusal === undefined ? 'another process listens on it' : `connecting to it failed with ${refusal}`;
}
