import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { CommandError, LabError } from './errors.ts';
import { shellQuote } from './qemu-arguments.ts';
import { RemoteProcess } from './remote-process.ts';
import type { SshConnection } from './ssh.ts';

export interface ExecOptions {
  /** When it takes longer we stop waiting; the command itself goes on in the machine. Default 120 000. */
  readonly timeoutMs?: number;
  /** for its stdin; without it stdin is empty */
  readonly input?: string | Uint8Array;
  /** false: an exit code other than 0 is returned instead of thrown. Default true. */
  readonly check?: boolean;
}

export interface ExecResult {
  /** without its last newline, as is stderr */
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
  readonly durationMs: number;
}

const EXEC_TIMEOUT_MS = 120_000;
const CONNECT_TIMEOUT_MS = 180_000;

/** Commands and files of one machine, as root, over its ssh connection. A command costs about 90 ms under emulation. */
export class Remote {
  readonly name: string;
  readonly ssh: SshConnection;

  constructor(name: string, ssh: SshConnection) {
    this.name = name;
    this.ssh = ssh;
  }

  /**
   * Runs a line, or several, of bash.
   * @throws CommandError for an exit code other than 0 (unless `check` is false), a timeout, a lost connection
   */
  async exec(command: string, options: ExecOptions = {}): Promise<ExecResult> {
    await this.ssh.ensure(CONNECT_TIMEOUT_MS);
    const result = await this.#execOnce(command, options);
    if (result.exitCode !== 255 || !/^Control socket connect/m.test(result.stderr)) {
      return this.#checked(command, result, options);
    }
    // The connection had ended unnoticed. Only with exactly this message has the command certainly not begun, and may be
    // run once more over a new connection.
    await this.ssh.disconnect();
    await this.ssh.connect(CONNECT_TIMEOUT_MS);
    return this.#checked(command, await this.#execOnce(command, options), options);
  }

  async #execOnce(command: string, { timeoutMs = EXEC_TIMEOUT_MS, input }: ExecOptions) {
    const child = execa('ssh', [...this.ssh.clientArguments, '-T', 'lab', command], {
      reject: false,
      ...(input === undefined ? { stdin: 'ignore' as const } : { input }),
    });
    const soFar = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      soFar.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      soFar.stderr += chunk;
    });
    const late = Promise.withResolvers<'late'>();
    const timer = setTimeout(() => late.resolve('late'), timeoutMs);
    const result = await Promise.race([child, late.promise]);
    clearTimeout(timer);
    if (result !== 'late') {
      const { exitCode, stdout, stderr, durationMs } = result;
      return { exitCode, stdout: stdout ?? '', stderr: stderr ?? '', durationMs, timedOut: false };
    }
    // Not awaited: the lasting connection holds these pipes too, until the command in the machine ends.
    child.kill('SIGKILL');
    child.stdout.destroy();
    child.stderr.destroy();
    return { exitCode: undefined, ...soFar, durationMs: timeoutMs, timedOut: true };
  }

  #checked(
    command: string,
    result: Omit<ExecResult, 'exitCode'> & { exitCode: number | undefined; timedOut: boolean },
    { check = true }: ExecOptions,
  ): ExecResult {
    const { exitCode, stdout, stderr, durationMs, timedOut } = result;
    const fields = { machine: this.name, command, stdout, stderr, durationMs };
    if (timedOut || exitCode === undefined) {
      throw new CommandError({ ...fields, exitCode: undefined, reason: timedOut ? 'not done' : 'cut off' });
    }
    // 255 is ssh's own; a command that ends with it cannot be told from a connection that ended under it.
    if (exitCode === 255) throw new CommandError({ ...fields, exitCode: undefined, reason: 'the connection ended' });
    if (check && exitCode !== 0) throw new CommandError({ ...fields, exitCode });
    return { exitCode, stdout, stderr, durationMs };
  }

  /** Starts a command in a process group of its own and returns as soon as it runs. */
  async spawn(command: string): Promise<RemoteProcess> {
    await this.ssh.connect(CONNECT_TIMEOUT_MS);
    return RemoteProcess.start(this, command);
  }

  /** Waits until the machine answers. @throws LabError when it does not within `timeoutMs` (default 180 000) */
  async waitForSsh(timeoutMs: number = CONNECT_TIMEOUT_MS): Promise<void> {
    await this.ssh.connect(timeoutMs);
  }

  /** Copies a file, or a folder with all in it, to exactly the path `remote`; its parent folder is made. */
  async copyTo(local: string, remote: string, options: Pick<ExecOptions, 'timeoutMs'> = {}): Promise<void> {
    const isFolder = (await stat(local)).isDirectory();
    const tar = await execa(
      'tar',
      isFolder ? ['-C', local, '-c', '.'] : ['-C', path.dirname(local), '-c', path.basename(local)],
      {
        encoding: 'buffer',
        maxBuffer: 2 ** 30,
        stripFinalNewline: false,
      },
    );
    const target = shellQuote(isFolder ? remote : path.posix.dirname(remote));
    const rename =
      isFolder || path.basename(local) === path.posix.basename(remote)
        ? ''
        : ` --transform ${shellQuote(`s|^.*$|${path.posix.basename(remote)}|`)}`;
    await this.exec(`mkdir -p ${target} && tar -C ${target} --no-same-owner${rename} -x`, {
      ...options,
      input: tar.stdout,
    });
  }

  /** Copies one file from the machine. */
  async copyFrom(remote: string, local: string): Promise<void> {
    await writeFile(local, await this.readFileBytes(remote));
  }

  /** @param mode as 0o600; default 0o644 */
  async writeFile(remote: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
    const file = shellQuote(remote);
    await this.exec(`mkdir -p "$(dirname ${file})" && cat > ${file} && chmod ${mode.toString(8)} ${file}`, {
      input: content,
    });
  }

  async readFile(remote: string): Promise<string> {
    return Buffer.from(await this.readFileBytes(remote)).toString('utf8');
  }

  async readFileBytes(remote: string): Promise<Uint8Array> {
    await this.ssh.ensure(CONNECT_TIMEOUT_MS);
    const command = `cat ${shellQuote(remote)}`;
    const result = await execa('ssh', [...this.ssh.clientArguments, '-T', 'lab', command], {
      reject: false,
      encoding: 'buffer',
      stripFinalNewline: false,
      stdin: 'ignore',
      maxBuffer: 2 ** 30,
      timeout: EXEC_TIMEOUT_MS,
    });
    if (result.exitCode === 0) return result.stdout;
    const { exitCode, durationMs } = result;
    const stderr = Buffer.from(result.stderr ?? []).toString();
    throw new CommandError({ machine: this.name, command, stdout: '', stderr, exitCode, durationMs });
  }

  /**
   * Makes a unix socket of the machine reachable by a local path, which stays valid over reconnects and reboots.
   * The remote socket need not be there yet: each connection is made when it is asked for.
   */
  forwardSocket(remote: string): Promise<string> {
    return this.ssh.forwardSocket(remote, CONNECT_TIMEOUT_MS);
  }

  /** Polls a shell condition until it is true. @throws LabError with its last output after `timeoutMs` */
  async waitFor(condition: string, timeoutMs = 30_000, intervalMs = 250): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const { exitCode, stdout, stderr } = await this.exec(condition, { check: false });
      if (exitCode === 0) return;
      if (performance.now() > deadline) {
        throw new LabError(`${this.name}: not true within ${timeoutMs} ms: ${condition}\n${stdout}${stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, intervalMs));
    }
  }

  /** The whole of a local text file goes over as it is; a convenience for scripts of a test. */
  async runScript(local: string, args: readonly string[] = [], options: ExecOptions = {}): Promise<ExecResult> {
    const script = await readFile(local, 'utf8');
    return this.exec(`bash -s -- ${args.map(shellQuote).join(' ')}`, { ...options, input: script });
  }
}
