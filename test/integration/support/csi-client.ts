/** A CSI client as a sidecar or kubelet would be: real gRPC over the plugin's own socket, forwarded from the machine. */
import path from 'node:path';
import { type ChannelCredentials, credentials, loadPackageDefinition, type ServiceError, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = path.join(import.meta.dirname, '../../../proto/csi.proto');

export type Message = Record<string, unknown>;
type ServiceName = 'Identity' | 'Controller' | 'Node' | 'GroupController';
type Stub = Record<
  string,
  (
    request: Message,
    options: { deadline: number },
    callback: (error: ServiceError | null, response?: Message) => void,
  ) => void
> & { close(): void };
type StubConstructor = new (address: string, credentials: ChannelCredentials, options: Record<string, unknown>) => Stub;

const definition = loadPackageDefinition(
  loadSync(PROTO, { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true }),
) as unknown as {
  csi: { v1: Record<ServiceName, StubConstructor> };
};

export class CsiError extends Error {
  readonly code: string;
  constructor(method: string, error: ServiceError) {
    super(`${method}: ${status[error.code]}: ${error.details}`);
    this.code = status[error.code] ?? String(error.code);
  }
}

export class CsiClient {
  readonly #stubs = new Map<ServiceName, Stub>();
  readonly #socket: string;

  /** @param socket Path of a local socket. */
  constructor(socket: string) {
    this.#socket = socket;
  }

  /** @throws CsiError with the code's name */
  call<T = Message>(service: ServiceName, method: string, request: Message, timeoutMs = 300_000): Promise<T> {
    let stub = this.#stubs.get(service);
    if (stub === undefined) {
      // kubelet and the sidecars send this authority for a socket.
      stub = new definition.csi.v1[service](`unix:${this.#socket}`, credentials.createInsecure(), {
        'grpc.default_authority': 'localhost',
        'grpc.max_reconnect_backoff_ms': 500,
      });
      this.#stubs.set(service, stub);
    }
    const bound = stub;
    return new Promise((resolve, reject) => {
      const stubMethod = bound[method];
      if (stubMethod === undefined) throw new Error(`no method ${service}.${method}`);
      stubMethod.call(bound, request, { deadline: Date.now() + timeoutMs }, (error, response) => {
        if (error) reject(new CsiError(method, error));
        else resolve(response as T);
      });
    });
  }

  close(): void {
    for (const stub of this.#stubs.values()) stub.close();
    this.#stubs.clear();
  }
}

/** The code's name, 'OK' when it succeeds. */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'OK';
  } catch (error) {
    if (error instanceof CsiError) return error.code;
    throw error;
  }
}

/** The error of a call that must fail. */
export async function failureOf(call: Promise<unknown>): Promise<CsiError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CsiError) return error;
    throw error;
  }
  throw new Error('the call succeeded, and should have been refused');
}

export type Mode =
  | 'SINGLE_NODE_WRITER'
  | 'SINGLE_NODE_SINGLE_WRITER'
  | 'SINGLE_NODE_MULTI_WRITER'
  | 'SINGLE_NODE_READER_ONLY'
  | 'MULTI_NODE_READER_ONLY'
  | 'MULTI_NODE_MULTI_WRITER';

export function mountCapability(
  fsType = 'ext4',
  mode: Mode = 'SINGLE_NODE_WRITER',
  mountFlags: string[] = [],
): Message {
  return { mount: { fs_type: fsType, mount_flags: mountFlags }, access_mode: { mode } };
}

export function blockCapability(mode: Mode = 'SINGLE_NODE_WRITER'): Message {
  return { block: {}, access_mode: { mode } };
}
