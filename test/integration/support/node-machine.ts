/** The node plugin's work on a machine of the lab, called from a test through the agent. */
import path from 'node:path';
import type { VolumeStats } from '../../../src/node/operations.ts';
import type { AccessMode, VolumeContent } from '../../../src/volumes/model.ts';
import type { PublishContext } from '../../../src/volumes/publish-context.ts';
import type { Machine } from '../../lab/machine.ts';
import { type HandMadeTarget, WITNESS_IQN } from './hand-made-targets.ts';
import { installBundle } from './install-bundle.ts';
import type { NodeAgentAnswer, NodeAgentRequest, NodeCall } from './node-agent.ts';

const AGENT = '/opt/node-agent/agent.mjs';
const FOLDER = '/var/lib/kubelet/test';

export class NodeMachine {
  readonly machine: Machine;
  pod = false;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Bundles the sources as they are and puts them on the machine. */
  async install(): Promise<void> {
    await installBundle(this.machine, path.join(import.meta.dirname, 'node-agent.ts'), AGENT);
    await this.machine.exec(`mkdir -p ${FOLDER}`);
  }

  async request(calls: readonly NodeCall[]): Promise<NodeAgentAnswer[]> {
    const request: NodeAgentRequest = { calls, pod: this.pod };
    const { stdout } = await this.machine.exec(`/usr/local/bin/node ${AGENT}`, {
      input: JSON.stringify(request),
      timeoutMs: 480_000,
    });
    return JSON.parse(stdout) as NodeAgentAnswer[];
  }

  /** One call after the other, in one process. @throws Error of the first that failed */
  async run(...calls: readonly NodeCall[]): Promise<NodeAgentAnswer[]> {
    const answers = await this.request(calls);
    for (const [index, { error }] of answers.entries()) {
      if (error !== undefined) throw new Error(`${calls[index]?.[0]}: ${error.code}: ${error.message}`);
    }
    return answers;
  }

  async failure(call: NodeCall): Promise<{ code: string; message: string }> {
    const [answer] = await this.request([call]);
    if (answer?.error === undefined) throw new Error(`${call[0]} was to fail, and answered ${JSON.stringify(answer)}`);
    return answer.error;
  }

  async dieAt(point: string, call: NodeCall): Promise<void> {
    // Not as the shell's last command: ssh has no exit code for a shell that became the agent and was killed.
    const { exitCode } = await this.machine.exec(`/usr/local/bin/node ${AGENT}; code=$?; exit $code`, {
      input: JSON.stringify({ calls: [call], dieAt: point, pod: this.pod } satisfies NodeAgentRequest),
      check: false,
    });
    if (exitCode !== 137) throw new Error(`the agent was to be killed at ${point}, and ended with ${exitCode}`);
  }

  /** Sessions, iSCSI records, disks, mounts, state records and target paths, one line each; [] when nothing is left. */
  async leftovers(): Promise<string[]> {
    const { stdout } = await this.machine.exec(`
      for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session: $(cat $s/targetname)"; done
      [ -d /etc/iscsi/nodes ] && find /etc/iscsi/nodes -mindepth 1 | sed 's/^/iscsi record: /'
      for d in /sys/block/sd*; do [ -e "$d" ] && echo "device: $d"; done
      grep ' ${FOLDER}' /proc/self/mountinfo | sed 's/^/mount: /'
      [ -d /var/lib/lvm-iscsi-csi/node ] && find /var/lib/lvm-iscsi-csi/node -mindepth 1 | sed 's/^/node record: /'
      find ${FOLDER} -mindepth 1 -path '*target*' | sed 's/^/target: /'
      true`);
    return stdout.split('\n').filter((line) => line !== '');
  }
}

/** One volume as the node sees it, over a hand-made target. */
export class NodeVolume {
  readonly node: NodeMachine;
  readonly target: HandMadeTarget;
  readonly content: VolumeContent;
  readonly sizeBytes: number;
  readonly chap: { readonly user: string; readonly password: string } | undefined;
  nonce = 'a'.repeat(32);
  mode: AccessMode = 'SINGLE_NODE_WRITER';

  constructor(
    node: NodeMachine,
    target: HandMadeTarget,
    options: { content: VolumeContent; sizeBytes: number; chap?: { user: string; password: string } },
  ) {
    this.node = node;
    this.target = target;
    this.content = options.content;
    this.sizeBytes = options.sizeBytes;
    this.chap = options.chap;
  }

  get id(): string {
    return this.target.name;
  }
  get stagingPath(): string {
    return `${FOLDER}/stage-${this.id}`;
  }
  get targetPath(): string {
    return `${FOLDER}/target-${this.id}`;
  }

  get #capability() {
    const access = this.content.kind === 'raw' ? { kind: 'block' } : { kind: 'mount', fsType: '', mountFlags: [] };
    return { access, mode: this.mode };
  }

  get stage(): NodeCall {
    const { targetIqn, portal, serial } = this.target;
    const publishContext: PublishContext = {
      targetIqn,
      witnessIqn: WITNESS_IQN,
      portals: [portal],
      lun: 0,
      serial,
      nonce: this.nonce,
      content: this.content,
      sizeBytes: this.sizeBytes,
      authentication: this.chap === undefined ? 'none' : 'derived',
      chap: this.chap,
      mutualChap: undefined,
    };
    const { id: volumeId, stagingPath } = this;
    return ['stage', { volumeId, publishContext, stagingPath, capability: this.#capability }];
  }
  get unstage(): NodeCall {
    return ['unstage', this.id, this.stagingPath];
  }
  get publish(): NodeCall {
    const { id: volumeId, stagingPath, targetPath } = this;
    return ['publish', { volumeId, stagingPath, targetPath, capability: this.#capability, readonly: false }];
  }
  get unpublish(): NodeCall {
    return ['unpublish', this.id, this.targetPath];
  }
  expand(requiredBytes: number): NodeCall {
    return ['expand', { volumeId: this.id, volumePath: this.targetPath, stagingPath: undefined, requiredBytes }];
  }

  async stats(): Promise<VolumeStats> {
    const [answer] = await this.node.run(['stats', this.id, this.targetPath, undefined]);
    return answer?.value as VolumeStats;
  }

  /** Stages; makes the staging folder, as the orchestrator does. */
  async up(): Promise<this> {
    await this.node.machine.exec(`mkdir -p ${this.stagingPath}`);
    await this.node.run(this.stage, this.publish);
    return this;
  }

  async down(): Promise<void> {
    await this.node.run(this.unpublish, this.unstage);
  }
}
