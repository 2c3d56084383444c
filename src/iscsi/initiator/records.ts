/**
 * open-iscsi's node records. We write the record's file ourselves: `iscsiadm -o update -v SECRET` would show the secret
 * to every local user in the process list, and one write saves several starts of a program.
 *
 * A record without a known portal group is the file DB/nodes/<target>/<address>,<port>; a record made by discovery is a
 * folder <address>,<port>,<group> with a file for each interface, and is left to iscsiadm to delete (it has links to it).
 * DB is compiled into iscsiadm: /etc/iscsi (Debian, Ubuntu) or /var/lib/iscsi (RHEL, upstream since 2.1.9). Both may exist
 * after an upgrade, so we let iscsiadm make the first record of our life and look where it has put it.
 *
 * Crash points: nothing is ever half-written in nodes/, since the record arrives there by link(2). A temporary file left
 * behind (0600, beside nodes/) is removed by the next write or delete; a lock left behind, see database-lock.ts.
 */
import { posix } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { followHostPath } from '../../filesystem/host-path.ts';
import type { Files } from '../../system/files.ts';
import { step } from '../../system/step.ts';
import type { DatabaseLock } from './database-lock.ts';
import { errorCode, IscsiError, isGone } from './errors.ts';
import { EXIT, exitFailure, type Iscsiadm, timedOut } from './iscsiadm.ts';
import { PATIENT } from './poll.ts';
import { formatPortal, type Portal } from './portal.ts';

const DATABASES = ['/etc/iscsi', '/var/lib/iscsi'] as const;
const TEMPORARY = '.lvm-iscsi-csi.record';
const COMMAND_TIMEOUT_MS = 60_000;
/** iscsiadm reads every record of the host; one that another process removes meanwhile makes it exit with 6. */
const DATABASE_ATTEMPTS = 5;

export interface NodeRecordsOptions {
  readonly files: Files;
  readonly hostRoot: string;
  readonly iscsiadm: Iscsiadm;
  readonly lock: DatabaseLock;
}

export class NodeRecords {
  readonly #files: Files;
  readonly #hostRoot: string;
  readonly #iscsiadm: Iscsiadm;
  readonly #lock: DatabaseLock;
  /** The nodes/ folder that iscsiadm uses. */
  #database: Promise<string> | undefined;
  /** All that it may use. Paths on the host, symlinks followed. */
  #candidates: Promise<string[]> | undefined;

  constructor(options: NodeRecordsOptions) {
    this.#files = options.files;
    this.#hostRoot = options.hostRoot;
    this.#iscsiadm = options.iscsiadm;
    this.#lock = options.lock;
  }

  /**
   * Makes or replaces the record of one portal of a target, mode 0600.
   * @throws IscsiError missing, lock-busy, iscsid-down, other
   */
  async write(targetIqn: string, portal: Portal, text: string): Promise<void> {
    await this.#deleteDiscovered(targetIqn, portal);
    this.#database ??= this.#findDatabase(targetIqn, portal);
    const database = await this.#database.catch((error: unknown) => {
      this.#database = undefined;
      throw error;
    });
    await this.#lock.run(() =>
      step('iscsi-record-write', async () => {
        const temporary = this.#host(temporaryOf(database));
        const folder = this.#host(`${database}/${targetIqn}`);
        const record = `${folder}/${fileName(portal)}`;
        await this.#unlink(temporary);
        await this.#files.createExclusive(temporary, { ...PATIENT, mode: 0o600 });
        await this.#files.writeAttribute(temporary, text, PATIENT);
        await this.#files.mkdir(folder, { ...PATIENT, recursive: true, mode: 0o700 });
        await this.#unlink(record);
        await this.#files.link(temporary, record, PATIENT);
        await this.#unlink(temporary);
      }),
    );
  }

  /** Deletes the record of one portal, or of all; nothing there is fine. */
  async delete(targetIqn: string, portal: Portal | undefined): Promise<void> {
    await this.#deleteDiscovered(targetIqn, portal);
    const present: string[] = [];
    for (const database of await this.#databases()) {
      const names = await this.#names(`${database}/${targetIqn}`);
      if (names !== undefined) present.push(database);
    }
    if (present.length === 0) return;
    await this.#lock.run(() =>
      step('iscsi-record-delete', async () => {
        for (const database of present) await this.#deleteFrom(database, targetIqn, portal);
      }),
    );
  }

  async #deleteFrom(database: string, targetIqn: string, portal: Portal | undefined): Promise<void> {
    await this.#unlink(this.#host(temporaryOf(database)));
    const folder = `${database}/${targetIqn}`;
    for (const name of (await this.#names(folder)) ?? []) {
      if (isPlainRecord(name, portal)) await this.#unlink(this.#host(`${folder}/${name}`));
    }
    try {
      await this.#files.rmdir(this.#host(folder), PATIENT);
    } catch (error) {
      // Another portal's record is there, or iscsiadm was quicker.
      if (!isGone(error) && errorCode(error) !== 'ENOTEMPTY') throw error;
    }
  }

  /** Records that a discovery has made for this portal: they would be logged in beside ours. */
  async #deleteDiscovered(targetIqn: string, portal: Portal | undefined): Promise<void> {
    for (const database of await this.#databases()) {
      const names = (await this.#names(`${database}/${targetIqn}`)) ?? [];
      if (!names.some((name) => isDiscovered(name, portal))) continue;
      const selection = portal === undefined ? [] : ['-p', formatPortal(portal)];
      await step('iscsi-record-delete-discovered', () =>
        this.#run(['-m', 'node', '-T', targetIqn, ...selection, '-o', 'delete'], [EXIT.ok, EXIT.nothingFound]),
      );
      return;
    }
  }

  async #findDatabase(targetIqn: string, portal: Portal): Promise<string> {
    await this.delete(targetIqn, portal);
    await step('iscsi-record-new', () =>
      this.#run(['-m', 'node', '-T', targetIqn, '-p', formatPortal(portal), '-o', 'new'], [EXIT.ok]),
    );
    for (const database of await this.#databases()) {
      const names = (await this.#names(`${database}/${targetIqn}`)) ?? [];
      if (names.includes(fileName(portal))) return database;
    }
    throw new IscsiError(
      'other',
      `iscsiadm made a node record for ${targetIqn} that is neither in ${DATABASES.join('/nodes nor in ')}/nodes; to do: use an open-iscsi that keeps its database in one of them`,
    );
  }

  async #run(args: readonly string[], accepted: readonly number[]): Promise<void> {
    const doing = `iscsiadm ${args.join(' ')}`;
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.#iscsiadm.run(args, COMMAND_TIMEOUT_MS);
      if (outcome.kind === 'timed-out') throw timedOut(outcome, doing);
      if (accepted.includes(outcome.exitCode)) return;
      if (outcome.exitCode !== EXIT.database || attempt === DATABASE_ATTEMPTS) {
        const other = new IscsiError('other', `${doing} ended with exit code ${outcome.exitCode}`, {
          cause: outcome.result,
        });
        throw exitFailure(outcome, doing) ?? other;
      }
      await sleep(attempt * 50);
    }
  }

  async #databases(): Promise<string[]> {
    this.#candidates ??= this.#followLinks();
    try {
      return await this.#candidates;
    } catch (error) {
      this.#candidates = undefined;
      throw error;
    }
  }

  /** One of them may be a link to the other. */
  async #followLinks(): Promise<string[]> {
    const paths = await Promise.all(
      DATABASES.map((database) => followHostPath(this.#files, this.#hostRoot, `${database}/nodes`)),
    );
    return [...new Set(paths)];
  }

  /** undefined when the folder is not there. */
  async #names(folder: string): Promise<string[] | undefined> {
    try {
      return await this.#files.readdir(this.#host(folder), PATIENT);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async #unlink(path: string): Promise<void> {
    try {
      await this.#files.unlink(path, PATIENT);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  #host(path: string): string {
    return `${this.#hostRoot}${path}`;
  }
}

/** Beside the folder, in the same file system. */
function temporaryOf(database: string): string {
  return `${posix.dirname(database)}/${TEMPORARY}`;
}

function fileName({ address, port }: Portal): string {
  return `${address},${port}`;
}

/** "address,port": of `portal`, or of any when it is undefined. */
function isPlainRecord(name: string, portal: Portal | undefined): boolean {
  return portal === undefined ? /^[^,]+,[0-9]+$/.test(name) : name === fileName(portal);
}

/** "address,port,group". */
function isDiscovered(name: string, portal: Portal | undefined): boolean {
  if (!/^[^,]+,[0-9]+,-?[0-9]+$/.test(name)) return false;
  return portal === undefined || name.startsWith(`${fileName(portal)},`);
}
