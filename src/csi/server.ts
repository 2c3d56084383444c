/** The gRPC server: which services it offers is the caller's choice; how calls are wrapped is in call.ts. */
import { Server, ServerCredentials, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { log } from '../system/context.ts';
import { ActiveCalls, type CallOptions, type Handlers, wrapUnary } from './call.ts';
import { type ServiceName, serviceDefinition } from './proto.ts';
import { prepareSocketPath, restrictSocket, socketPath } from './socket.ts';

export interface CsiServerOptions extends CallOptions {
  /** `unix:///path/csi.sock`. */
  readonly endpoint: string;
  /** "host:port" of a second listener without any protection, for tests from another machine; undefined: none. */
  readonly tcpEndpoint: string | undefined;
  readonly services: Readonly<Partial<Record<ServiceName, Handlers>>>;
}

/** Starts when made by `startCsiServer`, ends with `stop`. */
export interface CsiServer {
  /** Port of the TCP listener; undefined without one. */
  readonly tcpPort: number | undefined;
  /** Calls being worked on, also those whose client has gone. */
  activeCalls(): number;
  /**
   * Takes no new calls, waits until those in progress have ended, closes. Volumes and exports are not touched.
   * @param timeoutMs then their connections are cut; the work itself is never stopped from here
   * @returns how many calls were still running when the time was over
   */
  stop(timeoutMs: number): Promise<number>;
}

/** @throws DriverError INVALID_ARGUMENT or FAILED_PRECONDITION when the endpoint cannot be used */
export async function startCsiServer(options: CsiServerOptions): Promise<CsiServer> {
  const path = socketPath(options.endpoint);
  const active = new ActiveCalls();
  const server = new Server();
  for (const [name, handlers] of Object.entries(options.services)) {
    addService(server, name as ServiceName, handlers, active, options);
  }
  await prepareSocketPath(path);
  await listen(server, `unix://${path}`, `cannot listen on ${path}`);
  await restrictSocket(path);
  log().info({ endpoint: path, services: Object.keys(options.services) }, 'serving CSI');
  let tcpPort: number | undefined;
  if (options.tcpEndpoint !== undefined) {
    try {
      tcpPort = await listen(server, options.tcpEndpoint, `cannot listen on ${options.tcpEndpoint}`);
    } catch (error) {
      server.forceShutdown();
      throw error;
    }
    log().warn(
      { tcpEndpoint: options.tcpEndpoint, tcpPort },
      'serving CSI over TCP without any protection: for tests only',
    );
  }
  return {
    tcpPort,
    activeCalls: () => active.count,
    stop: async (timeoutMs) => await stop(server, active, timeoutMs),
  };
}

function addService(
  server: Server,
  name: ServiceName,
  handlers: Handlers,
  active: ActiveCalls,
  options: CallOptions,
): void {
  const definition = serviceDefinition(name);
  const implementation: UntypedServiceImplementation = {};
  for (const [method, handler] of Object.entries(handlers)) {
    if (definition[method] === undefined) throw new Error(`csi.v1.${name} has no method ${method}`);
    implementation[method] = wrapUnary(name, method, handler, active, options);
  }
  server.addService(definition, implementation);
}

async function listen(server: Server, address: string, problem: string): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(new Error(`${problem} (${error.message})`, { cause: error }));
    });
  });
}

async function stop(server: Server, active: ActiveCalls, timeoutMs: number): Promise<number> {
  const closed = new Promise<void>((resolve) => {
    server.tryShutdown(() => resolve());
  });
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<'timeout'>((resolve) => {
    timer = setTimeout(() => resolve('timeout'), timeoutMs);
  });
  // Answered calls end with `closed`; those whose client has gone are known to `active` alone.
  const drained = await Promise.race([Promise.all([closed, active.idle()]), timeout]);
  clearTimeout(timer);
  if (drained !== 'timeout') return 0;
  const unfinished = active.count;
  server.forceShutdown();
  return unfinished;
}
