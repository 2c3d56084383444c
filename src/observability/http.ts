/**
 * The optional HTTP port: /metrics, /healthz (liveness: the event loop answers, nothing more, so that a storage problem
 * never makes kubelet restart the driver) and /readyz (readiness, with the reasons when not).
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { log } from '../system/context.ts';
import type { ProbeResult } from '../volumes/backend.ts';
import type { Metrics } from './metrics.ts';

export interface HttpOptions {
  /** "host:port", IPv6 in brackets. */
  readonly endpoint: string;
  readonly metrics: Pick<Metrics, 'render' | 'contentType'>;
  readonly ready: () => Promise<ProbeResult>;
}

export interface HttpServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Longer than a role's own check may take (10 s), which then says what hangs. */
const READY_TIMEOUT_MS = 12_000;

/** @throws Error when the address cannot be listened on; the message names it */
export async function startHttpServer(options: HttpOptions): Promise<HttpServer> {
  const server = createServer((request, response) => {
    void respond(options, request, response).catch((error: unknown) => {
      log().error({ err: error, url: request.url }, 'HTTP request failed');
      send(response, 500, 'internal error\n');
    });
  });
  server.headersTimeout = 10_000;
  server.requestTimeout = 10_000;
  const colon = options.endpoint.lastIndexOf(':');
  const host = options.endpoint.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(new Error(`cannot listen on ${options.endpoint} for metrics: ${error.message}`, { cause: error }));
    });
    server.listen({ host, port: Number(options.endpoint.slice(colon + 1)) }, resolve);
  });
  const { port } = server.address() as AddressInfo;
  log().info({ endpoint: options.endpoint, port }, 'serving metrics and health');
  return {
    port,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function respond(options: HttpOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    return send(response, 405, 'only GET and HEAD\n');
  }
  switch (request.url?.replace(/\?.*$/, '')) {
    case '/metrics':
      return send(response, 200, await options.metrics.render(), options.metrics.contentType);
    case '/healthz':
      return send(response, 200, 'ok\n');
    case '/readyz': {
      const result = await readiness(options.ready);
      return send(response, result.ready ? 200 : 503, result.ready ? 'ready\n' : `${result.reasons.join('\n')}\n`);
    }
    default:
      return send(response, 404, 'try /metrics, /healthz or /readyz\n');
  }
}

async function readiness(ready: () => Promise<ProbeResult>): Promise<ProbeResult> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<ProbeResult>((resolve) => {
    const reasons = [`the check did not end within ${READY_TIMEOUT_MS} ms`];
    timer = setTimeout(() => resolve({ ready: false, reasons }), READY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([ready(), deadline]);
  } catch (error) {
    return { ready: false, reasons: [error instanceof Error ? error.message : String(error)] };
  } finally {
    clearTimeout(timer);
  }
}

function send(response: ServerResponse, status: number, text: string, contentType = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
