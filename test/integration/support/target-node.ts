/** The node's side of the target tests: plain iscsiadm, and a writer that says when each of its writes was acknowledged. */
import type { AclAuth } from '../../../src/iscsi/target/types.ts';
import type { Machine } from '../../lab/machine.ts';
import type { RemoteProcess } from '../../lab/remote-process.ts';
import { chap, type TestTarget } from './target-machine.ts';

export class TargetNode {
  readonly machine: Machine;
  readonly #portal: string;

  constructor(machine: Machine, portal: string) {
    this.machine = machine;
    this.#portal = portal;
  }

  /** @returns the device, e.g. /dev/sda. @throws CommandError when the login is refused. */
  async login(target: TestTarget, auth: AclAuth = chap(this.machine.name), replacementTimeoutS = 5): Promise<string> {
    const settings: string[] = [`-n node.session.timeo.replacement_timeout -v ${replacementTimeoutS}`];
    // Only a lab: the password is in an argument here.
    if (auth.kind === 'chap')
      settings.push(
        `-n node.session.auth.authmethod -v CHAP -n node.session.auth.username -v ${auth.user} -n node.session.auth.password -v ${auth.password}`,
      );
    if (auth.kind === 'chap' && auth.mutual !== undefined)
      settings.push(
        `-n node.session.auth.username_in -v ${auth.mutual.user} -n node.session.auth.password_in -v ${auth.mutual.password}`,
      );
    const { stdout } = await this.machine.exec(`
      q="iscsiadm -m node -T ${target.targetIqn} -p ${this.#portal}"
      $q -o new >/dev/null
      $q -o update -n node.session.initial_login_retry_max -v 1 ${settings.join(' ')}
      $q --login >&2 || { $q -o delete; exit 1; }
      for i in $(seq 300); do
        d=/dev/disk/by-path/ip-${this.#portal}-iscsi-${target.targetIqn}-lun-0
        [ -b $d ] && readlink -f $d && exit 0
        sleep 0.1
      done
      echo 'no device appeared' >&2; exit 1`);
    return stdout.trim();
  }

  async refused(target: TestTarget, auth: AclAuth): Promise<string> {
    try {
      await this.login(target, auth);
    } catch (error) {
      return String((error as Error).message);
    }
    throw new Error(`the login of ${this.machine.name} was accepted`);
  }

  /** Whatever state the session is in; the record too. */
  async logout(target: TestTarget): Promise<void> {
    await this.machine.exec(
      `q="iscsiadm -m node -T ${target.targetIqn} -p ${this.#portal}"; $q --logout; $q -o delete; true`,
    );
  }

  /** Kernel's numbers of its sessions: another number is another session. */
  async sessions(target: TestTarget): Promise<string> {
    const { stdout } = await this.machine.exec(
      `grep -l '^${target.targetIqn}$' /sys/class/iscsi_session/*/targetname 2>/dev/null; true`,
    );
    return stdout.trim();
  }

  /** Writes numbered blocks of 4 KiB, round and round over `blocks` of them, from block `first` on, until an error. */
  async write(device: string, options: { first?: number; blocks?: number } = {}): Promise<Writer> {
    const { first = 0, blocks = 1000 } = options;
    await this.machine.writeFile('/root/writer.py', WRITER, 0o644);
    const process = await this.machine.spawn(`exec python3 -u /root/writer.py ${device} ${first} ${blocks}`);
    await process.waitForLine(/^writing/);
    return new Writer(this.machine, process);
  }
}

/** What the writer says at its end. */
export interface WriterReport {
  readonly writes: number;
  /** Longest time between two acknowledgements, in seconds. */
  readonly longestPauseS: number;
  /** Seconds since the epoch. */
  readonly lastAcknowledged: number;
  readonly error: string | null;
}

export class Writer {
  readonly process: RemoteProcess;
  readonly #machine: Machine;

  constructor(machine: Machine, process: RemoteProcess) {
    this.#machine = machine;
    this.process = process;
  }

  /** Lets it end by itself. */
  async stop(): Promise<WriterReport> {
    await this.#machine.exec(`kill -TERM ${this.process.pid}`, { check: false });
    return await this.report();
  }

  /** Waits for its end. */
  async report(timeoutMs = 60_000): Promise<WriterReport> {
    return JSON.parse(await this.process.waitForLine(/^\{/, timeoutMs)) as WriterReport;
  }
}

const WRITER = `
import json, mmap, os, signal, sys, time
device, first, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stop = False
def on_term(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, on_term)
f = os.open(device, os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
n, error, longest, last = 0, None, 0, time.time()
while not stop:
    n += 1
    page[0:8] = n.to_bytes(8, 'little')
    try:
        os.pwrite(f, page, (first + n % blocks) * 4096)
    except OSError as e:
        error = str(e)
        n -= 1
        break
    now = time.time()
    longest, last = max(longest, now - last), now
    if n == 1: print('writing')
print(json.dumps({'writes': n, 'longestPauseS': longest, 'lastAcknowledged': last, 'error': error}))
`;
