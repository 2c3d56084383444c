/** A real server on a real unix socket, a real client, and the whole log as text. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import type { Handlers } from '../../../src/csi/call.ts';
import type { ServiceName } from '../../../src/csi/proto.ts';
import { type CsiServer, type CsiServerOptions, startCsiServer } from '../../../src/csi/server.ts';
import { setRootLogger } from '../../../src/system/context.ts';
import { CsiClient } from '../../integration/support/csi-client.ts';

export interface Harness {
  readonly folder: string;
  readonly socket: string;
  readonly server: CsiServer;
  readonly client: CsiClient;
  /** Log lines so far, parsed. */
  lines(): Record<string, unknown>[];
  /** The log as it was written. */
  text(): string;
  /** Codes that the observer was told, "Method CODE". */
  readonly observed: string[];
  close(): Promise<void>;
}

export async function startHarness(
  services: Partial<Record<ServiceName, Handlers>>,
  options: Partial<CsiServerOptions> = {},
): Promise<Harness> {
  const folder = mkdtempSync(join(tmpdir(), 'csi-'));
  const socket = join(folder, 'csi.sock');
  const written: string[] = [];
  setRootLogger(pino({ level: 'trace' }, { write: (line: string) => written.push(line) }));
  const observed: string[] = [];
  const server = await startCsiServer({
    endpoint: `unix://${socket}`,
    tcpEndpoint: undefined,
    slowCallMs: 10_000,
    observer: { started: (method) => (code) => observed.push(`${method} ${code}`) },
    services,
    ...options,
  });
  const client = new CsiClient(socket);
  return {
    folder,
    socket,
    server,
    client,
    observed,
    lines: () => written.map((line) => JSON.parse(line) as Record<string, unknown>),
    text: () => written.join(''),
    close: async () => {
      client.close();
      await server.stop(1000);
      setRootLogger(pino({ level: 'silent' }) as Logger);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Waits until it holds; the test's own time limit bounds it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
