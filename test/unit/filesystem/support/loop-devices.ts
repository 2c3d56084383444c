/** Real block devices and mounts for tests: loop devices over sparse files, in a mount namespace of the test's own. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readlinkSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DirectCommands } from './direct-commands.ts';

const ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

export function run(file: string, ...args: string[]): string {
  return execFileSync(file, args, { env: ENV, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
}

export interface LoopDevice {
  readonly name: string;
  readonly path: string;
  readonly majorMinor: string;
  readonly image: string;
}

export class Loops {
  readonly #folder = mkdtempSync(join(tmpdir(), 'loops-'));
  readonly #attached = new Set<string>();
  #count = 0;

  make(sizeBytes: number): LoopDevice {
    this.#count += 1;
    const image = join(this.#folder, `disk-${this.#count}.img`);
    closeSync(openSync(image, 'w'));
    truncateSync(image, sizeBytes);
    return this.attach(image);
  }

  attach(image: string): LoopDevice {
    const path = run('losetup', '-f', '--show', image).trim();
    this.#attached.add(path);
    const name = path.slice('/dev/'.length);
    const majorMinor = readFileSync(`/sys/block/${name}/dev`, 'utf8').trim();
    return { name, path, majorMinor, image };
  }

  grow(loop: LoopDevice, sizeBytes: number): void {
    truncateSync(loop.image, sizeBytes);
    run('losetup', '-c', loop.path);
  }

  detach(loop: LoopDevice): void {
    if (this.#attached.delete(loop.path)) run('losetup', '-d', loop.path);
  }

  close(): void {
    for (const path of this.#attached) run('losetup', '-d', path);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A mount namespace that dies with its holder: no mount of a test is ever seen outside, or left behind. */
export class MountNamespace {
  readonly #holder: ChildProcess;
  readonly #inside = new Set<ChildProcess>();

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async create(): Promise<MountNamespace> {
    const holder = spawn('unshare', ['-m', '--propagation', 'private', 'sleep', 'infinity'], {
      env: ENV,
      stdio: 'ignore',
    });
    const own = readlinkSync('/proc/self/ns/mnt');
    // unshare has become sleep in its new namespace.
    while (holder.exitCode === null && !isInNamespace(holder.pid, own)) await delay(5);
    if (holder.exitCode !== null) throw new Error(`unshare ended with ${holder.exitCode}`);
    return new MountNamespace(holder);
  }

  get root(): string {
    return `/proc/${this.#holder.pid}/root`;
  }

  get mountInfoPath(): string {
    return `/proc/${this.#holder.pid}/mountinfo`;
  }

  get prefix(): string[] {
    return ['nsenter', `--mount=/proc/${this.#holder.pid}/ns/mnt`, '--'];
  }

  commands(): DirectCommands {
    return new DirectCommands(this.prefix);
  }

  run(file: string, ...args: string[]): string {
    const [first = '', ...rest] = [...this.prefix, file, ...args];
    return run(first, ...rest);
  }

  /** A process whose working folder is there: the mount is in use. */
  async enter(path: string): Promise<{ leave(): Promise<void> }> {
    const [file = '', ...args] = [...this.prefix, 'sh', '-c', 'cd "$0" && echo there && exec sleep infinity', path];
    const child = spawn(file, args, { env: ENV, stdio: ['ignore', 'pipe', 'ignore'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    this.#inside.add(child);
    return { leave: () => this.#end(child) };
  }

  /** The kernel drops a namespace's mounts when its last process is gone; a loop device is free only then. */
  async close(): Promise<void> {
    for (const child of [...this.#inside, this.#holder]) await this.#end(child);
  }

  async #end(child: ChildProcess): Promise<void> {
    this.#inside.delete(child);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }
}

function isInNamespace(pid: number | undefined, own: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`) !== own && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sleep\n';
  } catch {
    return false;
  }
}

/** CAP_SYS_RESOURCE is bit 24. */
export function canGrowExt4(): boolean {
  const capabilities = /^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${capabilities}`) >> 24n) & 1n) === 1n;
}

let reason: string | undefined | null = null;

/** Why loop devices and mounts cannot be used here; undefined when they can. */
export function noLoopsReason(): string | undefined {
  if (reason !== null) return reason;
  const loops = process.getuid?.() === 0 ? new Loops() : undefined;
  if (loops === undefined) {
    reason = 'needs root: loop devices and mounts';
    return reason;
  }
  try {
    const loop = loops.make(16 * 1024 * 1024);
    run('mkfs.ext4', '-q', '-F', loop.path);
    run('unshare', '-m', '--propagation', 'private', 'mount', '-t', 'ext4', loop.path, '/mnt');
    reason = undefined;
  } catch (error) {
    reason = `no loop devices or mounts here: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    loops.close();
  }
  return reason;
}
