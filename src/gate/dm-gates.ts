/**
 * Gates on device-mapper. What each crash leaves behind, and who repairs it:
 * - dmsetup runs detached and is never killed, so each single command is completed whatever happens to us;
 * - after `reload`, before `resume`: the live table works on, the inactive one is dropped by the next ensure or resumeAll;
 * - during `wipe_table`: it goes on, and the retry's own wipe_table waits behind it in the kernel and finds the error table,
 *   or fails because that one has come in between, and looks again;
 * - under withSuspended: the guard resumes (suspension.ts), and resumeAll at the next start.
 * A power cut leaves nothing: device-mapper devices live in memory.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import { Deadline, type Keep, lockWithin } from '../system/deadline.ts';
import type { Files } from '../system/files.ts';
import { KeyedMutex } from '../system/keyed-mutex.ts';
import { step } from '../system/step.ts';
import type { DmDevice } from './dm-table.ts';
import { Dmsetup, isBusy, isInvalid, isNoSuchDevice } from './dmsetup.ts';
import { GateError, GateTimeoutError } from './errors.ts';
import { compareTable, type LinearTable, linearTable } from './linear-table.ts';
import { asGate, type GateName, gateName } from './naming.ts';
import { Suspension } from './suspension.ts';
import type { Gate, Gates } from './types.ts';

export interface DmGatesOptions {
  readonly commands: Commands;
  readonly files: Files;
  /** Volatile state on the host, for the guard's flag; /run/lvm-iscsi-csi when absent. */
  readonly runDir?: string;
  /** Prefix under which this process sees the host's root; '' when absent. */
  readonly hostRoot?: string;
}

interface GateSpec {
  readonly volumeId: string;
  readonly lvPath: string;
  readonly sizeBytes: number;
}

const LOCK_TIMEOUT_MS = 30_000;
const SEVER_TIMEOUT_MS = 30_000;
const SEVER_ATTEMPTS = 3;
/** udev's blkid may hold a gate open for a moment. */
const RELEASE_TIMEOUT_MS = 5_000;
const POLL_MS = 50;

export class DmGates implements Gates {
  readonly #dmsetup: Dmsetup;
  readonly #files: Files;
  readonly #suspension: Suspension;
  readonly #mutex = new KeyedMutex();
  /** A sever that has not ended yet, also when its first caller has given up: a retry joins it. */
  readonly #severing = new Map<string, Promise<void>>();

  constructor(options: DmGatesOptions) {
    this.#dmsetup = new Dmsetup(options.commands);
    this.#files = options.files;
    this.#suspension = new Suspension(options, this.#dmsetup);
  }

  path(volumeId: string): string {
    return gateName(volumeId).path;
  }

  async list(): Promise<Gate[]> {
    return (await this.#dmsetup.devices()).flatMap((device) => asGate(device) ?? []);
  }

  /** @throws GateError foreign, in-use (another device beneath, and held open), severed (an error table, and held open), backing, timeout. */
  async ensure(spec: GateSpec): Promise<void> {
    const gate = gateName(spec.volumeId);
    await this.#exclusive(spec.volumeId, async () => {
      const table = await linearTable(this.#files, spec.lvPath, spec.sizeBytes);
      // The node is a hint that saves a process; whether the gate exists is for the kernel to say.
      if ((await this.#files.stat(gate.path)) === undefined && (await this.#create(gate, table))) return;
      const device = await this.#dmsetup.device(gate.name);
      if (device === undefined) {
        await this.#createOrThrow(gate, table);
      } else {
        assertOurs(device, gate);
        await this.#repair(device, table);
        await this.#checkNode(gate);
      }
    });
  }

  async sever(volumeId: string, options?: { timeoutMs?: number }): Promise<void> {
    const deadline = new Deadline(options?.timeoutMs ?? SEVER_TIMEOUT_MS);
    let severing = this.#severing.get(volumeId);
    if (severing === undefined) {
      severing = this.#mutex
        .run(volumeId, () => this.#sever(gateName(volumeId)))
        .finally(() => this.#severing.delete(volumeId));
      // When every caller has given up nobody else looks at a late failure; the retry will find its cause again.
      severing.catch((error: unknown) => log().warn({ err: error, volumeId }, 'severing a gate failed'));
      this.#severing.set(volumeId, severing);
    }
    await deadline.wait(severing, () =>
      timeout(
        volumeId,
        `in-flight I/O has not ended within ${deadline.timeoutMs} ms; the error table follows when it has`,
      ),
    );
  }

  async remove(volumeId: string): Promise<void> {
    const gate = gateName(volumeId);
    await this.#exclusive(volumeId, async () => {
      const deadline = new Deadline(RELEASE_TIMEOUT_MS);
      for (;;) {
        const device = await this.#dmsetup.device(gate.name);
        if (device === undefined) return;
        assertOurs(device, gate);
        if (device.openCount === 0 && (await this.#remove(gate))) return;
        if (deadline.remainingMs === 0) {
          throw new GateError('in-use', `${gate.path} cannot be removed: it is held open ${device.openCount} times`);
        }
        await delay(POLL_MS);
      }
    });
  }

  async servesOtherVg(volumeId: string, vgUuid: string): Promise<boolean> {
    const gate = gateName(volumeId);
    const device = await this.#dmsetup.device(gate.name);
    const backing = device?.uuid === gate.uuid ? asGate(device)?.backing : undefined;
    if (backing === undefined) return false;
    // LVM names its devices "LVM-" + VG UUID + LV UUID, without dashes (dev_manager.c); any other device is not this VG's.
    const beneath = await this.#files.readText(`/sys/dev/block/${backing}/dm/uuid`).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    });
    return !beneath.startsWith(`LVM-${vgUuid.replaceAll('-', '')}`);
  }

  async resumeAll(): Promise<string[]> {
    const suspended = (await this.list()).filter((gate) => gate.suspended);
    const resumed = await Promise.all(
      suspended.map(async ({ volumeId }) => {
        const gate = gateName(volumeId);
        return await this.#exclusive(volumeId, async () => {
          const device = await this.#dmsetup.device(gate.name);
          if (device === undefined || !device.suspended) return [];
          await this.#dropInactive(device);
          await step('gate-resume-leftover', () => this.#dmsetup.resume(gate.name));
          log().warn({ volumeId }, 'a gate that was left suspended has been resumed');
          return [volumeId];
        });
      }),
    );
    return resumed.flat().sort();
  }

  async withSuspended<T>(volumeIds: readonly string[], action: () => Promise<T>): Promise<T> {
    const ordered = [...new Set(volumeIds)].sort();
    return await this.#exclusiveAll(ordered, (keep) => this.#suspension.run(ordered.map(gateName), action, keep));
  }

  /** False when the name or the uuid is taken after all. */
  async #create(gate: GateName, table: LinearTable): Promise<boolean> {
    try {
      await step('gate-create', () => this.#dmsetup.create(gate.name, gate.uuid, table.text));
    } catch (error) {
      if (isBusy(error)) return false;
      throw new GateError('backing', `${gate.path} cannot be made over ${table.lvPath}`, { cause: error });
    }
    await this.#checkNode(gate);
    return true;
  }

  async #createOrThrow(gate: GateName, table: LinearTable): Promise<void> {
    if (await this.#create(gate, table)) return;
    throw new GateError('foreign', `${gate.path} cannot be made: its device-mapper UUID ${gate.uuid} is taken`);
  }

  async #repair(device: DmDevice, table: LinearTable): Promise<void> {
    const difference = compareTable(device, table);
    if (difference === 'none') {
      await this.#dropInactive(device);
      if (device.suspended) await step('gate-resume', () => this.#dmsetup.resume(device.name));
      return;
    }
    const found = device.table.map((line) => `${line.lengthSectors} sectors ${line.type} ${line.args}`).join(', ');
    if (difference !== 'smaller' && device.openCount > 0) {
      throw new GateError(
        isSevered(device) ? 'severed' : 'in-use',
        `${device.name} is held open and its table (${found || 'none'}) is not the one wanted (${table.text}): ` +
          'the target above it has to be removed first',
      );
    }
    log().info(
      { gate: device.name, found, wanted: table.text },
      difference === 'smaller' ? 'gate grows' : 'gate gets a new table',
    );
    await step('gate-reload', () => this.#dmsetup.reload(device.name, table.text));
    await step('gate-swap', () => this.#dmsetup.resume(device.name));
  }

  async #dropInactive(device: DmDevice): Promise<void> {
    if (device.inactiveTable) await step('gate-clear', () => this.#dmsetup.clear(device.name));
  }

  async #sever(gate: GateName): Promise<void> {
    let device: DmDevice | undefined;
    for (let attempt = 1; ; attempt += 1) {
      device = await this.#dmsetup.device(gate.name);
      if (device === undefined) return;
      assertOurs(device, gate);
      if (isSevered(device) && !device.suspended) {
        await this.#dropInactive(device);
        return;
      }
      try {
        await step('gate-sever', () => this.#dmsetup.wipeTable(gate.name));
        break;
      } catch (error) {
        // An earlier life's wipe_table has swapped the tables and resumed between the halves of ours (measured, Linux 6.1).
        if (!isInvalid(error) || attempt === SEVER_ATTEMPTS) throw error;
        log().info({ gate: gate.name, err: error }, 'a gate was severed by somebody else meanwhile: looking again');
      }
    }
    // The kernel has let go of the LV when the old table is gone: what dmsetup answered is not all that we have.
    const beneath = await this.#files.readdir(`/sys/dev/block/${device.deviceNumber}/slaves`);
    if (beneath.length > 0) {
      throw new GateError('failed', `${gate.path} still reaches ${beneath.join(', ')} after its table was wiped`);
    }
  }

  /** False when something has opened it in between. */
  async #remove(gate: GateName): Promise<boolean> {
    try {
      await step('gate-remove', () => this.#dmsetup.remove(gate.name));
      return true;
    } catch (error) {
      if (isNoSuchDevice(error)) return true;
      if (isBusy(error)) return false;
      throw error;
    }
  }

  /** The node is there and is this gate; a node that udev has not made is made. */
  async #checkNode(gate: GateName): Promise<void> {
    let node = await this.#files.stat(gate.path);
    if (node === undefined) {
      await step('gate-make-node', () => this.#dmsetup.makeNode(gate.name));
      node = await this.#files.stat(gate.path);
    }
    if (node?.rdev === undefined) throw new GateError('failed', `${gate.path} was not made: is udev running?`);
    const uuid = (await this.#files.readText(`/sys/dev/block/${node.rdev}/dm/uuid`)).trim();
    if (uuid !== gate.uuid) throw new GateError('failed', `${gate.path} is a stale node: it leads to "${uuid}"`);
  }

  async #exclusive<T>(volumeId: string, action: (keep: Keep) => Promise<T>): Promise<T> {
    return await lockWithin(
      { mutex: this.#mutex, key: volumeId },
      new Deadline(LOCK_TIMEOUT_MS),
      () => timeout(volumeId, 'an earlier operation on this gate still waits for the kernel'),
      action,
    );
  }

  async #exclusiveAll<T>(volumeIds: readonly string[], action: (keep: Keep) => Promise<T>): Promise<T> {
    const [first, ...rest] = volumeIds;
    if (first === undefined) return await action(() => undefined);
    return await this.#exclusive(first, (keep) =>
      this.#exclusiveAll(rest, (keepRest) =>
        action((work) => {
          keep(work);
          keepRest(work);
        }),
      ),
    );
  }
}

/** A live error table got there after the drain; without any table nothing can pass. */
function isSevered(device: DmDevice): boolean {
  return device.table.every((line) => line.type === 'error');
}

function assertOurs(device: DmDevice, gate: GateName): void {
  if (device.uuid === gate.uuid) return;
  throw new GateError(
    'foreign',
    `device-mapper device ${device.name} is not ours (UUID "${device.uuid}" instead of "${gate.uuid}") and is left alone`,
  );
}

function timeout(volumeId: string, what: string): GateTimeoutError {
  return new GateTimeoutError(`gate of ${volumeId}: ${what}`);
}
