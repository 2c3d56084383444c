/** The driver's program as a systemd service on a machine of the lab: start, stop, kill, and die at a step. */
import path from 'node:path';
import type { Machine } from '../../lab/machine.ts';
import { CsiClient } from './csi-client.ts';

export const PROGRAM = '/opt/lvm-iscsi-csi/lvm-iscsi-csi.mjs';
const STEPS_FOLDER = '/run/lvm-iscsi-csi-steps';
const COMPILE_CACHE = '/var/cache/lvm-iscsi-csi';
/** The program's hooks for tests work only where it is (see src/system/test-hooks.ts). */
const LAB_MARK = '/etc/lvm-iscsi-csi-lab';
const POD_ROOT = '/opt/lvm-iscsi-csi-pod';
const START_TIMEOUT_MS = 300_000;

export interface UnitOptions {
  /**
   * The process can die or wait at a named step, and logs each. What is otherwise done in one go (configfs) is then done
   * step by step: for tests that need it only, so that all others run what users run. Default false.
   */
  readonly watchSteps?: boolean;
  /**
   * As in a privileged pod with hostPID and hostNetwork: a read-only root with nothing but node, nsenter and the program,
   * namespaces of its own, the host's commands by nsenter, its files through /proc/1/root. Default false.
   */
  readonly pod?: boolean;
}

export class DriverUnit {
  readonly machine: Machine;
  readonly role: 'controller' | 'node' | 'all';
  readonly socket: string;
  readonly unit: string;
  #client: CsiClient | undefined;
  #stepsWatched = false;
  #deathPoint: string | undefined;

  /** @param name Tells two of one role on one machine apart. */
  constructor(machine: Machine, role: 'controller' | 'node' | 'all', name: string = role) {
    this.machine = machine;
    this.role = role;
    this.socket = `/run/lvm-iscsi-csi/csi-${name}/csi.sock`;
    this.unit = `lvm-iscsi-csi-${name}.service`;
  }

  /** Writes the unit; the program must be on the machine already. Not enabled: a reboot does not start it. */
  async install(options: readonly string[], { watchSteps = false, pod = false }: UnitOptions = {}): Promise<void> {
    this.#stepsWatched = watchSteps;
    if (pod) await this.#makePodRoot();
    const command = [
      ...(pod ? ['/usr/bin/unshare', '--uts', '--ipc', '--cgroup'] : []),
      ...['/usr/local/bin/node', PROGRAM, this.role, `--endpoint=unix://${this.socket}`],
      ...(pod ? ['--host-commands=nsenter'] : []),
      ...options,
    ];
    const environment = [
      `NODE_COMPILE_CACHE=${COMPILE_CACHE}`,
      ...(watchSteps ? [`LVM_ISCSI_CSI_TEST_STEPS=${STEPS_FOLDER}`] : []),
    ];
    // The socket's folder is the one that a pod has from its host; the others serve the test.
    const shared = [path.dirname(this.socket), COMPILE_CACHE, STEPS_FOLDER];
    const podLines = [
      `RootDirectory=${POD_ROOT}`,
      'MountAPIVFS=yes',
      'ReadOnlyPaths=/',
      ...shared.map((folder) => `BindPaths=${folder}\nReadWritePaths=${folder}`),
      `BindReadOnlyPaths=${LAB_MARK}`,
    ];
    await this.machine.writeFile(
      `/etc/systemd/system/${this.unit}`,
      `[Unit]
Description=lvm-iscsi-csi ${this.role}
After=network-online.target iscsid.service
[Service]
Environment=${environment.join(' ')}
ExecStart=${command.map((word) => `"${word}"`).join(' ')}
TimeoutStopSec=120
${pod ? podLines.join('\n') : ''}
`,
    );
    await this.machine.exec(
      `mkdir -p ${STEPS_FOLDER} ${COMPILE_CACHE} && touch ${LAB_MARK} && systemctl daemon-reload`,
    );
  }

  /** Starts it and waits until Probe answers that it is ready. */
  async start(): Promise<void> {
    await this.machine.exec(`mkdir -p ${STEPS_FOLDER} ${path.dirname(this.socket)}; systemctl start ${this.unit}`);
    await this.waitReady();
  }

  async waitReady(timeoutMs = START_TIMEOUT_MS): Promise<void> {
    const client = await this.client();
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      let last: string;
      try {
        const { ready } = await client.call<{ ready: { value: boolean } | null }>('Identity', 'Probe', {}, 30_000);
        if (ready === null || ready.value) return;
        last = 'Probe answers not ready';
      } catch (error) {
        last = String(error);
      }
      if (performance.now() > deadline) {
        const { stdout } = await this.machine.exec(`systemctl status ${this.unit} --no-pager -n 30`, { check: false });
        throw new Error(`${this.machine.name}: ${this.unit} not ready after ${timeoutMs} ms: ${last}\n${stdout}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }

  async client(): Promise<CsiClient> {
    this.#client ??= new CsiClient(await this.machine.forwardSocket(this.socket));
    return this.#client;
  }

  /** Orderly: SIGTERM, and it must end by itself. */
  async stop(): Promise<void> {
    await this.machine.exec(`systemctl stop ${this.unit}; systemctl reset-failed ${this.unit} 2>/dev/null || true`);
  }

  /** SIGKILL to the main process alone. */
  async kill(): Promise<void> {
    await this.machine.exec(`systemctl kill --kill-whom=main -s KILL ${this.unit}`);
    await this.waitDead();
  }

  /** SIGKILL to all of its control group, as when a pod is removed by force. */
  async killGroup(): Promise<void> {
    await this.machine.exec(`systemctl kill --kill-whom=all -s KILL ${this.unit}`);
    await this.waitDead();
  }

  async waitDead(timeoutMs = 60_000): Promise<void> {
    await this.machine.waitFor(`! systemctl is-active -q ${this.unit}`, timeoutMs);
    await this.machine.exec(`systemctl reset-failed ${this.unit} 2>/dev/null || true`);
  }

  /** @throws Error when it lives on, or has died of anything else than the point that `crashAt` named */
  async waitDeadAtPoint(): Promise<void> {
    await this.waitDead();
    const { stdout } = await this.machine.exec(`cat ${STEPS_FOLDER}/crashed 2>/dev/null || true`);
    if (stdout.trim() === this.#deathPoint) return;
    const last = (await this.log()).split('\n').slice(-20).join('\n');
    throw new Error(`${this.unit} has died, and not at ${this.#deathPoint} (${stdout || 'at no point'}):\n${last}`);
  }

  /** Starts it and lets it work in the background; true when it has died at the point of `crashAt` within that time. */
  async startAndDie(timeoutMs = 60_000): Promise<boolean> {
    await this.machine.exec(`systemctl start ${this.unit}`);
    const { stdout } = await this.machine.exec(
      `for i in $(seq ${Math.ceil(timeoutMs / 500)}); do systemctl is-active -q ${this.unit} || { echo dead; exit; }; sleep 0.5; done`,
      { timeoutMs: timeoutMs * 4 },
    );
    if (stdout !== 'dead') return false;
    await this.waitDeadAtPoint();
    return true;
  }

  async isRunning(): Promise<boolean> {
    return (await this.machine.exec(`systemctl is-active -q ${this.unit}`, { check: false })).exitCode === 0;
  }

  /** The process will die at that point, e.g. "after:lv-create". */
  async crashAt(point: string): Promise<void> {
    this.#requireSteps();
    await this.machine.exec(`rm -f ${STEPS_FOLDER}/crashed`);
    await this.machine.writeFile(`${STEPS_FOLDER}/crash-at`, point);
    this.#deathPoint = point;
  }

  /** The process will wait at that point until `resume`. */
  async pauseAt(point: string): Promise<void> {
    this.#requireSteps();
    await this.machine.writeFile(`${STEPS_FOLDER}/pause-at`, point);
  }

  async waitPaused(timeoutMs = 60_000): Promise<void> {
    await this.machine.waitFor(`test -e ${STEPS_FOLDER}/paused`, timeoutMs, 100);
  }

  async resume(): Promise<void> {
    await this.machine.exec(`rm -f ${STEPS_FOLDER}/pause-at ${STEPS_FOLDER}/crash-at`);
  }

  async takeSteps(): Promise<string[]> {
    this.#requireSteps();
    const { stdout } = await this.machine.exec(
      `cat ${STEPS_FOLDER}/steps.log 2>/dev/null; rm -f ${STEPS_FOLDER}/steps.log`,
      { check: false },
    );
    return stdout.split('\n').filter((line) => line !== '');
  }

  async log(): Promise<string> {
    return (await this.machine.exec(`journalctl -u ${this.unit} --no-pager -o cat`, { check: false })).stdout;
  }

  /** What the image holds, and not a file more: a path of the host's that is not looked up in the host's root is missing here. */
  async #makePodRoot(): Promise<void> {
    await this.machine.exec(`set -e
mkdir -p ${POD_ROOT}/proc ${POD_ROOT}/sys ${POD_ROOT}/dev ${POD_ROOT}/tmp
for program in /usr/local/bin/node /usr/bin/nsenter /usr/bin/unshare; do
  for file in $program $(ldd $program | grep -o '/[^ ]*'); do
    [ -e ${POD_ROOT}$file ] || install -D $(readlink -f $file) ${POD_ROOT}$file
  done
done
install -D ${PROGRAM} ${POD_ROOT}${PROGRAM}`);
  }

  #requireSteps(): void {
    if (!this.#stepsWatched) throw new Error(`${this.unit} does not watch steps: deploy it with watchSteps`);
  }

  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }
}
