import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { execa } from 'execa';
import { LabError } from './errors.ts';

/**
 * The keeper is the first process of a PID namespace and a network namespace made for one lab. Every QEMU, nbdkit and ssh
 * connection of the lab lives in these namespaces; when their first process ends, in whatever way, the kernel kills all
 * of them and takes bridges and taps away. So nothing has to be remembered for cleaning up.
 *
 * The keeper reads from a pipe whose other end its maker holds: the maker's death, kill -9 included, ends the lab. Only
 * one that was told to stay, as `lab up` does when the lab is complete, waits for ever, and `lab down` kills it.
 */
export class Keeper {
  /** of the namespaces' first process, as seen from outside */
  readonly pid: number;
  /** field 22 of /proc/PID/stat: with the pid, names this process and no later one */
  readonly startTime: string;
  readonly #process: ChildProcess | undefined;

  private constructor(pid: number, startTime: string, process?: ChildProcess) {
    this.pid = pid;
    this.startTime = startTime;
    this.#process = process;
  }

  /**
   * @param lockFile held for as long as the keeper lives, so that anyone can ask whether this lab is up
   * @param networkScript sh, run in the new network namespace
   * @param afterwards sh, run when the keeper has ended, however that came: its maker may be dead by then
   * @throws LabError when another keeper holds the lock, or the kernel refuses the namespaces
   */
  static async start(lockFile: string, networkScript: string, afterwards: string): Promise<Keeper> {
    const script = `
exec 9>"$0"
# Someone who only asks whether this lab is up holds the lock for a moment.
flock --timeout 3 9 || { echo taken; exit 1; }
PATH=$PATH:/usr/sbin:/sbin
set -e
${networkScript}
read -r pid rest < /proc/self/stat
echo "ready $pid"
exec >/dev/null 2>&1
read -r word && exec sleep infinity </dev/null`;
    const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
    const unshare = ['unshare', ...user, '--net', '--pid', '--fork', '--kill-child=KILL', 'sh', '-c', script, lockFile];
    const child = spawn(
      'sh',
      // Not waited for, with no file of ours open: the maker may hold a lock that it needs.
      ['-c', `"$@"; code=$?; (${afterwards}) </dev/null >/dev/null 2>&1 & exit $code`, 'keeper', ...unshare],
      // A session of its own: Ctrl-C is for the program, which then ends the lab in order.
      { stdio: ['pipe', 'pipe', 'pipe'], detached: true },
    );
    const said = await firstLine(child);
    const pid = Number(/^ready (\d+)$/.exec(said.line)?.[1]);
    if (!pid) {
      if (said.line === 'taken') throw new LabError('a lab with this name is already up');
      throw new LabError(
        `cannot make the lab's namespaces: ${said.stderr || said.line || 'unshare ended without a word'}`,
      );
    }
    child.unref();
    child.stdout?.destroy();
    child.stderr?.destroy();
    const keeper = await Keeper.attach(pid);
    if (!keeper) throw new LabError('the keeper ended at once');
    return new Keeper(pid, keeper.startTime, child);
  }

  /** @returns undefined when that process is gone, or its pid belongs to another by now */
  static async attach(pid: number, startTime?: string): Promise<Keeper | undefined> {
    const found = await processStartTime(pid);
    if (found === undefined || (startTime !== undefined && found !== startTime)) return undefined;
    return new Keeper(pid, found);
  }

  /** From now on the lab outlives this process. */
  async stay(): Promise<void> {
    const stdin = this.#process?.stdin;
    if (!stdin) throw new LabError('only who started a lab can let it stay');
    await new Promise<void>((resolve, reject) =>
      stdin.end('stay\n', (error?: Error | null) => (error ? reject(error) : resolve())),
    );
  }

  async isAlive(): Promise<boolean> {
    return (await processStartTime(this.pid)) === this.startTime;
  }

  /** Kills the keeper, and with it everything in its namespaces; returns when it is gone. */
  async kill(): Promise<void> {
    if (await this.isAlive()) {
      try {
        process.kill(this.pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
    this.#process?.stdin?.destroy();
    // The first process of a PID namespace is reaped only after every other one in it.
    while (await this.isAlive()) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  /** The command line that runs a program in the namespaces. */
  command(program: string, args: readonly string[] = []): [string, string[]] {
    const user = process.getuid?.() === 0 ? [] : ['--user', '--preserve-credentials'];
    return ['nsenter', ['--target', String(this.pid), ...user, '--net', '--pid', program, ...args]];
  }

  /** Runs a short program in the namespaces and returns its output. Throws execa's error when it fails. */
  async run(program: string, args: readonly string[] = [], options: { timeoutMs?: number } = {}): Promise<string> {
    const [file, all] = this.command(program, args);
    const PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;
    const { stdout } = await execa(file, all, { env: { PATH }, timeout: options.timeoutMs ?? 30_000 });
    return stdout;
  }

  /**
   * Starts a program that lives as long as the lab. It is ours only until it runs: its output goes to a file, and this
   * process may end before it.
   * @param logFile gets its stdout and stderr, appended
   */
  spawn(program: string, args: readonly string[], logFile: string, env: Record<string, string> = {}): ChildProcess {
    const [file, all] = this.command(program, args);
    const log = openSync(logFile, 'a');
    try {
      const PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;
      const child = spawn(file, all, {
        stdio: ['ignore', log, log],
        detached: true,
        env: { ...process.env, PATH, ...env },
      });
      child.unref();
      return child;
    } finally {
      closeSync(log);
    }
  }

  /**
   * SIGKILL to pids of the namespace, where no process of another lab, or of the machine, can be hit: all within one
   * moment, in this order. Returns when they are gone.
   */
  async killInside(namespacePids: readonly number[]): Promise<void> {
    const pids = namespacePids.filter((pid) => pid > 1).map(String);
    if (pids.length === 0) return;
    const [file, all] = this.command('kill', ['-KILL', ...pids]);
    await execa(file, all, { reject: false });
    for (const pid of pids) {
      const [, probe] = this.command('kill', ['-0', pid]);
      while ((await execa(file, probe, { reject: false })).exitCode === 0) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Names the PID namespace for as long as a process lives in it; see `processesIn`. */
  async namespace(): Promise<string> {
    return readlink(`/proc/${this.pid}/ns/pid`);
  }
}

/** Pids, as seen from here, of everything that still lives in the PID namespace that `Keeper.namespace` named. */
export async function processesIn(namespace: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const theirs = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/ns/pid`).catch(() => '')));
  return pids.filter((_, index) => theirs[index] === namespace).map(Number);
}

async function processStartTime(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The command name, in brackets, may itself hold spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function firstLine(child: ChildProcess): Promise<{ line: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    child.once('error', (cause) => reject(new LabError('cannot run unshare', { cause })));
    child.stderr?.on('data', (chunk) => {
      stderr += chunk;
    });
    child.stdout?.on('data', (chunk) => {
      stdout += chunk;
      if (stdout.includes('\n')) resolve({ line: stdout.trim(), stderr });
    });
    child.once('close', () => resolve({ line: stdout.trim(), stderr: stderr.trim() }));
  });
}
