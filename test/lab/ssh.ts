import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { exists } from './cache.ts';
import { CommandError, LabError } from './errors.ts';
import type { Keeper } from './keeper.ts';

export interface SshTarget {
  readonly name: string;
  /** on the control network */
  readonly address: string;
  readonly sshKey: string;
  /** for sockets; their paths may have at most 107 characters */
  readonly socketFolder: string;
  readonly logFile: string;
}

const CONNECT_INTERVAL_MS = 150;

/**
 * One lasting connection to a machine. It is made from inside the lab's network namespace and offers a socket in the file
 * system, so that each command after it needs neither the namespace nor a new key exchange, and any process can use it.
 */
export class SshConnection {
  readonly #keeper: Keeper;
  readonly #target: SshTarget;
  /** remote socket → local socket; made again with each new connection */
  readonly #forwards = new Map<string, string>();
  #connecting: Promise<void> | undefined;

  constructor(keeper: Keeper, target: SshTarget) {
    this.#keeper = keeper;
    this.#target = target;
  }

  get #controlPath(): string {
    return path.join(this.#target.socketFolder, `${this.#target.name}.ssh`);
  }

  /** Arguments for the ssh program that use the connection, and never fall back to one of their own. */
  get clientArguments(): string[] {
    return ['-F', 'none', '-S', this.#controlPath, '-o', 'ProxyCommand=false', '-o', 'LogLevel=ERROR'];
  }

  /** Connects when there is no connection at all; one that has died meanwhile is found by whoever uses it. */
  async ensure(timeoutMs: number): Promise<void> {
    if (!(await exists(this.#controlPath))) await this.connect(timeoutMs);
  }

  /** Connects unless connected. Tries until `timeoutMs` is over: the machine may still be booting. */
  async connect(timeoutMs: number): Promise<void> {
    if (await this.isConnected()) return;
    this.#connecting ??= this.#connect(timeoutMs).finally(() => {
      this.#connecting = undefined;
    });
    await this.#connecting;
  }

  async isConnected(): Promise<boolean> {
    if (!(await exists(this.#controlPath))) return false;
    return (await this.#mux('check', [])).exitCode === 0;
  }

  async #connect(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    let last = '';
    while (performance.now() < deadline) {
      await rm(this.#controlPath, { force: true });
      last = await this.#attempt();
      if (last === '') {
        for (const [remote, local] of this.#forwards) await this.#forward(remote, local);
        return;
      }
      if (!(await this.#keeper.isAlive())) throw new LabError(`${this.#target.name}: the lab has ended`);
      await new Promise((resolve) => setTimeout(resolve, CONNECT_INTERVAL_MS));
    }
    throw new LabError(`${this.#target.name} did not answer ssh within ${timeoutMs} ms: ${last}`);
  }

  /** @returns '' when connected, else what ssh said */
  async #attempt(): Promise<string> {
    const [file, args] = this.#keeper.command('ssh', [
      ...['-F', 'none', '-M', '-S', this.#controlPath, '-f', '-N', '-i', this.#target.sshKey],
      ...['-o', 'ControlPersist=no', '-o', 'BatchMode=yes', '-o', 'IdentitiesOnly=yes', '-o', 'LogLevel=ERROR'],
      // The network is a namespace of our own: nobody else can answer there.
      ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
      ...['-o', 'ConnectTimeout=3', '-o', 'ConnectionAttempts=1', '-o', 'StreamLocalBindUnlink=yes'],
      // Long enough for a frozen machine to be thawed, short enough that a dead one is noticed one day.
      ...['-o', 'ServerAliveInterval=60', '-o', 'ServerAliveCountMax=15', '-o', 'IPQoS=none'],
      ...['-E', this.#target.logFile],
      `root@${this.#target.address}`,
    ]);
    // -f: ends as soon as the connection stands, and leaves a process in the lab's PID namespace that keeps it.
    const result = await execa(file, args, { reject: false, stdio: 'ignore', timeout: 60_000 });
    if (result.exitCode === 0) return '';
    const log = await readFile(this.#target.logFile, 'utf8').catch(() => '');
    return log.trimEnd().split('\n').at(-1) || `ssh ended with ${result.exitCode}`;
  }

  /** Ends the connection; commands that run over it fail. The next command connects anew. */
  async disconnect(): Promise<void> {
    if (await exists(this.#controlPath)) await this.#mux('exit', []);
    await rm(this.#controlPath, { force: true });
  }

  /**
   * Makes a unix socket of the machine reachable here.
   * @returns the path of the local socket
   */
  async forwardSocket(remote: string, connectTimeoutMs: number): Promise<string> {
    await this.connect(connectTimeoutMs);
    const known = this.#forwards.get(remote);
    if (known) return known;
    const id = createHash('sha256').update(remote).digest('hex').slice(0, 8);
    const local = path.join(this.#target.socketFolder, `${this.#target.name}.${id}`);
    await this.#forward(remote, local);
    this.#forwards.set(remote, local);
    return local;
  }

  async #forward(remote: string, local: string): Promise<void> {
    await rm(local, { force: true });
    const result = await this.#mux('forward', ['-o', 'StreamLocalBindUnlink=yes', '-L', `${local}:${remote}`]);
    if (result.exitCode === 0) return;
    throw new CommandError({ machine: this.#target.name, command: `forward ${remote}`, ...result });
  }

  async #mux(operation: string, args: string[]) {
    const { exitCode, stdout, stderr, durationMs } = await execa(
      'ssh',
      [...this.clientArguments, '-O', operation, ...args, 'lab'],
      { reject: false, timeout: 30_000 },
    );
    return { exitCode, stdout, stderr, durationMs };
  }
}
