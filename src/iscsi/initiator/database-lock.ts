/**
 * open-iscsi's lock of its record database (usr/idbm.c, idbm_lock): whoever creates /run/lock/iscsi/lock.write by link(2)
 * holds it, and removes it when done. Nothing in it tells the holder, and a holder that dies leaves it behind: up to
 * 2.1.8 the next iscsiadm waits 30 s and goes on without it, from 2.1.9 on every iscsiadm fails until somebody removes it.
 *
 * A crash of ours must not do that to the host. Anything may be linked to that name, so we link a file of our own whose
 * name tells process and start time: a lock left by a dead process of ours is recognised by its inode and broken at once.
 * A lock of anybody else is never broken: a bounded wait, then an error that names the file.
 */
import { log } from '../../system/context.ts';
import type { Files } from '../../system/files.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { errorCode, IscsiError, isGone } from './errors.ts';
import { PATIENT, pollUntil } from './poll.ts';

const LOCK_FOLDER = '/run/lock/iscsi';
const LOCK_NAME = 'lock.write';
const OWNER = /^lvm-iscsi-csi\.([0-9]+)\.([0-9]+)$/;
/** open-iscsi holds it for milliseconds and tries for 30 s itself. */
const WAIT_MS = 15_000;
const RETRY_MS = 10;

export interface DatabaseLockOptions {
  readonly files: Files;
  readonly hostRoot: string;
  /** How long to wait for somebody else's lock; 15,000 when absent. */
  readonly waitMs?: number;
  /** This process, as the host's /proc names it. */
  readonly pid?: number;
}

export class DatabaseLock {
  readonly #files: Files;
  readonly #hostRoot: string;
  readonly #folder: string;
  readonly #waitMs: number;
  readonly #pid: number;
  readonly #mutex = new KeyedMutex();

  constructor(options: DatabaseLockOptions) {
    this.#files = options.files;
    this.#hostRoot = options.hostRoot;
    this.#folder = `${options.hostRoot}${LOCK_FOLDER}`;
    this.#waitMs = options.waitMs ?? WAIT_MS;
    this.#pid = options.pid ?? process.pid;
  }

  /**
   * Runs `action` while holding the lock.
   * @throws IscsiError lock-busy
   */
  async run<T>(action: () => Promise<T>): Promise<T> {
    return await this.#mutex.run('', async () => {
      const owner = await this.#acquire();
      try {
        return await action();
      } finally {
        await this.#unlink(LOCK_NAME);
        await this.#unlink(owner);
      }
    });
  }

  /** To be called at start: a lock that our dead predecessor holds stops every iscsiadm of the host until somebody takes it. */
  async releaseLeft(): Promise<void> {
    await this.#mutex.run('', async () => {
      try {
        await this.#removeLeftovers('');
      } catch (error) {
        // No folder: no iscsiadm has run since the boot, and none of ours.
        if (!isGone(error)) throw error;
      }
    });
  }

  async #acquire(): Promise<string> {
    const startTime = await this.#startTime(this.#pid);
    if (startTime === undefined) {
      throw new IscsiError(
        'other',
        `process ${this.#pid} is not in the host's /proc; to do: run the pod with hostPID: true`,
      );
    }
    const owner = `lvm-iscsi-csi.${this.#pid}.${startTime}`;
    await this.#files.mkdir(this.#folder, { ...PATIENT, recursive: true, mode: 0o770 });
    await this.#removeLeftovers(owner);
    await this.#files.createExclusive(this.#path(owner), { ...PATIENT, mode: 0o600 });
    const acquired = await pollUntil(async () => ((await this.#tryLink(owner)) ? true : undefined), {
      timeoutMs: this.#waitMs,
      intervalMs: RETRY_MS,
    });
    if (acquired === true) return owner;
    await this.#unlink(owner);
    throw new IscsiError(
      'lock-busy',
      `open-iscsi's database lock ${LOCK_FOLDER}/${LOCK_NAME} was not free for ${this.#waitMs / 1000} s; to do: when no iscsiadm runs (pgrep iscsiadm), its holder has died: remove that file`,
    );
  }

  async #tryLink(owner: string): Promise<boolean> {
    try {
      await this.#files.link(this.#path(owner), this.#path(LOCK_NAME), PATIENT);
      return true;
    } catch (error) {
      if (errorCode(error) === 'EEXIST') return false;
      throw error;
    }
  }

  /**
   * Breaks the lock of a process of ours that has died, and removes what it left; also what this very process has left,
   * by a call that overran: whoever is here has the mutex, so nobody in this process holds the lock. The lock goes before the name that
   * tells whose it was: a crash between the two must not leave a lock that nobody can recognise.
   */
  async #removeLeftovers(own: string): Promise<void> {
    for (const name of await this.#files.readdir(this.#folder, PATIENT)) {
      const match = OWNER.exec(name);
      if (match === null) continue;
      const [, pid, startTime] = match;
      if (name !== own && (await this.#startTime(Number(pid))) === startTime) continue;
      const ownerStat = await this.#files.lstat(this.#path(name), PATIENT);
      const lockStat = await this.#files.lstat(this.#path(LOCK_NAME), PATIENT);
      if (ownerStat !== undefined && ownerStat.inode === lockStat?.inode) {
        log().warn(
          { pid: Number(pid) },
          "breaking open-iscsi's database lock: it was left by an earlier run of ours, or by a call of ours that overran",
        );
        await this.#unlink(LOCK_NAME);
      }
      await this.#unlink(name);
    }
  }

  /** Field 22 of /proc/PID/stat, clock ticks since boot: with the pid it names one process for good (proc(5)). */
  async #startTime(pid: number): Promise<string | undefined> {
    try {
      const stat = await this.#files.readText(`${this.#hostRoot}/proc/${pid}/stat`, PATIENT);
      // The command's name, field 2, is in parentheses and may hold anything.
      return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    } catch (error) {
      if (isGone(error) || errorCode(error) === 'ESRCH') return undefined;
      throw error;
    }
  }

  #path(name: string): string {
    return `${this.#folder}/${name}`;
  }

  async #unlink(name: string): Promise<void> {
    try {
      await this.#files.unlink(this.#path(name), PATIENT);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
}
