/** A TCP port of this machine's loopback that leads into the lab's namespace, for a library that speaks TCP only. */
import { spawn } from 'node:child_process';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { Keeper } from '../lab/keeper.ts';

/** One for each connection: a process in the namespace is the only thing that can open a connection there. */
const RELAY = `
const [host, port] = process.argv.slice(1);
const socket = require('node:net').connect(Number(port), host);
socket.on('error', () => process.exit(1)).on('close', () => process.exit(0));
process.stdin.pipe(socket).pipe(process.stdout);
process.stdout.on('error', () => process.exit(0));
`;

export class Forwarder {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;

  private constructor(server: Server, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(keeper: Keeper, host: string, port: number): Promise<Forwarder> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      const [file, args] = keeper.command(process.execPath, ['-e', RELAY, host, String(port)]);
      const relay = spawn(file, args, { stdio: ['pipe', 'pipe', 'ignore'] });
      sockets.add(socket);
      socket.pipe(relay.stdin);
      relay.stdout.pipe(socket);
      // A connection that ends on one side ends on the other; why it did is for those who speak over it.
      for (const end of [socket, relay.stdin, relay.stdout]) end.on('error', () => undefined);
      relay.once('error', () => socket.destroy());
      relay.once('exit', () => socket.destroy());
      socket.once('close', () => {
        sockets.delete(socket);
        relay.kill();
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return new Forwarder(server, sockets);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
