/** The lab's storage host as the gate and target adapters see it, and what the tests look at there. */
import { join } from 'node:path';
import type { AclAuth, AclSpec, TargetSpec } from '../../../src/iscsi/target/types.ts';
import type { Lab } from '../../lab/lab.ts';
import type { Machine } from '../../lab/machine.ts';
import { installBundle } from './install-bundle.ts';
import type { AgentAnswer, AgentCall, AgentRequest } from './target-agent.ts';

export const IQN_PREFIX = 'iqn.2010-10.org.openstack';
const AGENT = '/root/target-agent.mjs';
const REQUEST = '/root/target-agent-request.json';
const UNIT = 'target-agent.service';
const VG = 'cinder-volumes';

export interface AgentOptions {
  readonly dieAt?: string;
  readonly waitAt?: NonNullable<AgentRequest['waitAt']>;
  readonly answeredSign?: string;
  readonly portals?: readonly string[];
  readonly watch?: boolean;
}

export class TargetMachine {
  readonly storage: Machine;
  readonly portal: string;

  private constructor(storage: Machine) {
    this.storage = storage;
    this.portal = `${storage.address}:3260`;
  }

  static async prepare(lab: Lab): Promise<TargetMachine> {
    await installBundle(lab.storage, join(import.meta.dirname, 'target-agent.ts'), AGENT);
    await lab.createVolumeGroup(VG, '--metadatasize 64m');
    return new TargetMachine(lab.storage);
  }

  /** Answers of each call; an error in one does not stop the next. */
  async run(calls: readonly AgentCall[], options: AgentOptions = {}): Promise<AgentAnswer[]> {
    const { stdout, exitCode } = await this.#start(calls, options, true);
    if (exitCode !== 0) throw new Error(`the agent ended with ${exitCode}`);
    return JSON.parse(stdout) as AgentAnswer[];
  }

  /** As run, and throws the first error. */
  async ok(...calls: readonly AgentCall[]): Promise<AgentAnswer[]> {
    const answers = await this.run(calls);
    for (const { error } of answers) if (error !== undefined) throw new Error(`${error.name}: ${error.message}`);
    return answers;
  }

  /** True when it died at the point, false when it never came there. */
  async dies(calls: readonly AgentCall[], dieAt: string): Promise<boolean> {
    return (await this.#start(calls, { dieAt }, false)).exitCode === 137;
  }

  /**
   * Dies at the point with every process of its control group, as a pod does that is removed by force.
   * @throws CommandError when it never came there
   */
  async diesAsPod(calls: readonly AgentCall[], point: string): Promise<void> {
    const sign = '/run/target-agent-waits';
    await this.storage.writeFile(REQUEST, JSON.stringify(this.#request(calls, { waitAt: { point, sign } })), 0o600);
    await this.storage.exec(
      `rm -f ${sign}
       systemd-run --quiet --collect --unit=${UNIT} sh -c 'exec /usr/local/bin/node ${AGENT} < ${REQUEST}'
       until [ -e ${sign} ]; do systemctl is-active -q ${UNIT} || exit 1; sleep 0.1; done
       systemctl kill --kill-whom=all -s KILL ${UNIT}`,
    );
    await this.storage.waitFor(`! systemctl is-active -q ${UNIT}`);
  }

  #request(calls: readonly AgentCall[], options: AgentOptions): AgentRequest {
    return { iqnPrefix: IQN_PREFIX, portals: [this.portal], ...options, calls };
  }

  async #start(
    calls: readonly AgentCall[],
    options: AgentOptions,
    check: boolean,
  ): Promise<{ stdout: string; exitCode: number }> {
    // The shell stays, and makes an exit code of a death by signal: ssh's own 255 would look like a lost connection.
    const result = await this.storage.exec(`node ${AGENT}; exit $?`, {
      input: JSON.stringify(this.#request(calls, options)),
      timeoutMs: 900_000,
      check,
    });
    return { stdout: result.stdout, exitCode: result.exitCode ?? -1 };
  }

  /** A volume's LV, 64 MiB, filled with zeros. */
  async createVolume(number: number): Promise<TestTarget> {
    const volume = new TestTarget(number);
    await this.storage.exec(`lvcreate -qq -y -Wn -Zn -L 64M -n ${volume.volumeId} ${VG}`);
    return volume;
  }

  async removeVolume(volume: TestTarget): Promise<void> {
    await this.storage.exec(`lvremove -qq -y ${VG}/${volume.volumeId}`);
  }

  /** Whatever our adapters could have left, and the host's device-mapper devices that are no LVs. */
  async leftovers(): Promise<string> {
    const { stdout } = await this.storage.exec(
      `cd /sys/kernel/config/target; ls core | grep iblock_; ls iscsi | grep iqn; dmsetup ls | grep gate-
       ls /dev/mapper | grep gate-; ls /run/target-agent 2>/dev/null; true`,
    );
    return stdout.trim();
  }
}

export class TestTarget {
  readonly volumeId: string;
  readonly targetIqn: string;
  readonly lvPath: string;
  readonly gatePath: string;
  readonly serial: string;

  constructor(number: number) {
    const hex = number.toString(16);
    const uuid = `${hex.padStart(8, '0')}-0000-4000-8000-00000000aaaa`;
    this.volumeId = `volume-${uuid}`;
    this.targetIqn = `${IQN_PREFIX}:${this.volumeId}`;
    this.lvPath = `/dev/${VG}/${this.volumeId}`;
    this.gatePath = `/dev/mapper/gate-${uuid}`;
    this.serial = hex.padStart(32, '5');
  }

  gate(sizeMib = 64, lvPath = this.lvPath): AgentCall {
    return ['gates.ensure', { volumeId: this.volumeId, lvPath, sizeBytes: sizeMib * 2 ** 20 }];
  }

  spec(acls: readonly AclSpec[], changes: Partial<TargetSpec> = {}): TargetSpec {
    const { volumeId, targetIqn, serial } = this;
    return { volumeId, targetIqn, serial, devicePath: this.gatePath, discard: false, acls, ...changes };
  }

  ensure(acls: readonly AclSpec[], changes: Partial<TargetSpec> = {}): AgentCall {
    return ['targets.ensure', this.spec(acls, changes)];
  }

  disable(timeoutMs = 20_000): AgentCall {
    return ['targets.disable', this.targetIqn, { timeoutMs }];
  }

  revoke(node: Machine, timeoutMs = 20_000): AgentCall {
    return ['targets.revoke', this.targetIqn, node.iqn, { timeoutMs }];
  }

  sever(timeoutMs = 20_000): AgentCall {
    return ['gates.sever', this.volumeId, { timeoutMs }];
  }

  /** Everything that a fence and the removal of an export consist of. */
  teardown(): AgentCall[] {
    return [
      this.disable(),
      this.sever(),
      ['targets.remove', this.volumeId, this.targetIqn, { timeoutMs: 20_000 }],
      ['gates.remove', this.volumeId],
    ];
  }
}

export function chap(name: string): AclAuth {
  return { kind: 'chap', user: `user-${name}`, password: `password-of-${name}`, mutual: undefined };
}

export function acl(node: Machine, auth: AclAuth = chap(node.name), readonly = false): AclSpec {
  return { initiatorIqn: node.iqn, readonly, auth };
}
