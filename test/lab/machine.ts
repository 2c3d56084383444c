import { randomBytes } from 'node:crypto';
import { copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { CommandError, LabError } from './errors.ts';
import type { Keeper } from './keeper.ts';
import type { Power } from './power.ts';
import { qmpCommand } from './qmp.ts';
import { Remote } from './remote.ts';
import { SshConnection } from './ssh.ts';

const BOOT_TIMEOUT_MS = 300_000;

/** The saved state a machine starts from. */
export interface ReadyState {
  readonly stateFile: string;
  readonly rootDisk: string;
}

/** A host of the lab: commands and files (Remote), switching it on and off, and faults. */
export class Machine extends Remote {
  /** IPv4 on the data network: what an iSCSI portal is bound to */
  readonly address: string;
  /** IPv4 on the control network, which no fault touches */
  readonly controlAddress: string;
  /** its initiator's name */
  readonly iqn: string;
  readonly power: Power;

  constructor(keeper: Keeper, power: Power, sshKey: string, socketFolder: string) {
    const { slot } = power.hardware;
    const logFile = path.join(power.folder, 'ssh.log');
    super(
      slot.name,
      new SshConnection(keeper, { name: slot.name, address: slot.control.address, sshKey, socketFolder, logFile }),
    );
    this.power = power;
    this.address = slot.data.address;
    this.controlAddress = slot.control.address;
    this.iqn = slot.iqn;
  }

  /** Paths of its disks in the guest, as /dev/disk/by-id/virtio-vg, in the order in which they were asked for. */
  get disks(): string[] {
    return this.power.disks.map((disk) => disk.device);
  }

  /** Back to the saved state with blank disks, whatever it is doing now. */
  async restore(ready: ReadyState): Promise<void> {
    await this.ssh.disconnect();
    await this.power.cut();
    await this.power.prepare({ file: ready.rootDisk, format: 'qcow2' });
    await this.power.on({ kind: 'restore', stateFile: ready.stateFile });
    await this.#wakeUp();
  }

  /** The machine slept since its state was saved: its clock stands still, and its random numbers are every copy's. */
  async #wakeUp(): Promise<void> {
    await this.waitForSsh();
    const now = (Date.now() / 1000).toFixed(3);
    await this.exec(`date -s @${now} >/dev/null; cat > /dev/urandom`, { input: randomBytes(64) });
    await this.#waitForDisks();
  }

  async #waitForDisks(): Promise<void> {
    if (this.disks.length > 0) await this.exec(`udevadm wait --timeout=60 ${this.disks.join(' ')}`);
  }

  /** The power fails: nothing is shut down, and what was not flushed to the VG's disks is lost. Stays off until `boot`. */
  async powerCut(): Promise<void> {
    const direct = this.power.disks.find((disk) => disk.spec.direct === true);
    if (direct) throw new LabError(`disk "${direct.spec.name}" of ${this.name} is direct: it would lose nothing`);
    await this.power.cut();
    await this.ssh.disconnect();
  }

  /** Switches on after a power cut, with the disks as they were left. Cold: about 35 s under emulation. */
  async boot(timeoutMs: number = BOOT_TIMEOUT_MS): Promise<void> {
    await this.power.on({ kind: 'cold' });
    await this.waitForSsh(timeoutMs);
    await this.#waitForDisks();
  }

  /**
   * An orderly reboot, as by an administrator; returns when ssh answers again.
   * @returns how long it took to go down and to come back, ms
   * @throws LabError when it has not come back after `timeoutMs`: a shutdown that hangs
   */
  async reboot(timeoutMs: number = BOOT_TIMEOUT_MS): Promise<{ downMs: number; upMs: number }> {
    const before = await this.#bootId();
    const startedAt = performance.now();
    await this.exec('systemctl reboot', { check: false }).catch(ignoreLostConnection);
    const deadline = startedAt + timeoutMs;
    while (await this.ssh.isConnected()) {
      if (performance.now() > deadline) throw new LabError(`${this.name} did not go down within ${timeoutMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const downMs = performance.now() - startedAt;
    for (;;) {
      await this.waitForSsh(Math.max(1, deadline - performance.now()));
      // sshd may answer once more on its way down.
      const now = await this.#bootId().catch(() => before);
      if (now !== before) return { downMs, upMs: performance.now() - startedAt - downMs };
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }

  async #bootId(): Promise<string> {
    return (await this.exec('cat /proc/sys/kernel/random/boot_id')).stdout;
  }

  /** A crash and restart of the whole system; unlike in a power cut, disks keep what they were given. */
  async systemReset(timeoutMs: number = BOOT_TIMEOUT_MS): Promise<void> {
    await qmpCommand(this.power.qmpSocket, 'system_reset');
    await this.ssh.disconnect();
    await this.waitForSsh(timeoutMs);
    await this.#waitForDisks();
  }

  /** The host hangs: no instruction runs, its network falls silent. Its clock stands still until `thaw`. */
  async freeze(): Promise<void> {
    await qmpCommand(this.power.qmpSocket, 'stop');
  }

  async thaw(): Promise<void> {
    await qmpCommand(this.power.qmpSocket, 'cont');
  }

  /** A disk's every read and write fails with EIO, or works again. @param name as in its DiskSpec */
  async failDisk(name: string, failing = true): Promise<void> {
    const disk = this.power.disks.find((each) => each.spec.name === name);
    if (!disk) throw new LabError(`${this.name} has no disk "${name}"`);
    await disk.fail(failing);
  }

  /** Pulls the cable of the data network; ssh goes on over the control network. */
  async linkDown(): Promise<void> {
    await qmpCommand(this.power.qmpSocket, 'set_link', { name: 'data', up: false });
  }

  async linkUp(): Promise<void> {
    await qmpCommand(this.power.qmpSocket, 'set_link', { name: 'data', up: true });
  }

  /**
   * Delay, loss and the like for what this machine sends on the data network.
   * @param rule as tc-netem(8) takes it, `delay 50ms 10ms loss 1%`; undefined takes it away
   */
  async netem(rule: string | undefined): Promise<void> {
    if (rule === undefined) await this.exec('tc qdisc del dev data0 root', { check: false });
    else await this.exec(`tc qdisc replace dev data0 root netem ${rule}`);
  }

  /** Logs and state of LVM, target and initiator, one file each, into `folder`; what fails leaves its error there. */
  async collectLogs(folder: string): Promise<void> {
    await mkdir(folder, { recursive: true });
    for (const file of ['serial.log', 'qemu.log', 'ssh.log']) {
      await copyFile(path.join(this.power.folder, file), path.join(folder, file)).catch(() => undefined);
    }
    await this.exec(COLLECT_SCRIPT, { timeoutMs: 60_000 }).catch(() => undefined);
    const tar = await this.readFileBytes('/run/lab-logs.tar').catch(() => undefined);
    if (tar) await execa('tar', ['-C', folder, '-x'], { input: tar });
  }
}

function ignoreLostConnection(error: unknown): void {
  if (!(error instanceof CommandError && error.exitCode === undefined)) throw error;
}

/** A tar in /run of what a helper needs to see. Everything with a time limit of its own: what is asked may be just what hangs. */
const COLLECT_SCRIPT = `
d=$(mktemp -d /run/lab-logs.XXXX)
t() { local name=$1; shift; timeout 10 bash -c "$*" > "$d/$name" 2>&1 || echo "(ended with $?)" >> "$d/$name"; }
t journal.txt journalctl --no-pager -o short-precise -b
t dmesg.txt dmesg
t lvs.txt 'lvs -a -o +lv_tags,lv_attr,seg_monitor; vgs -o +vg_tags,vg_mda_free; pvs'
t dmsetup.txt 'dmsetup info -c; dmsetup table; dmsetup status'
t configfs.txt 'find /sys/kernel/config/target; grep -rs . /sys/kernel/config/target --include=enable --include=info --include=vpd_unit_serial'
t iscsi.txt 'iscsiadm -m session -P 3; iscsiadm -m node'
t block.txt 'lsblk -a -O --json; cat /proc/self/mountinfo'
t processes.txt 'ps axo pid,ppid,stat,wchan:32,etime,args'
t network.txt 'ip -s address; ss -tanp'
cp -r /var/log "$d/var-log" && rm -rf "$d/var-log/journal"
tar -C "$d" -cf /run/lab-logs.tar .
rm -rf "$d"
`;
