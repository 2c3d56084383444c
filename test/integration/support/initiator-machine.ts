/** The initiator adapter on a machine of the lab, called from a test through the agent. */
import path from 'node:path';
import type { Initiator } from '../../../src/iscsi/initiator/types.ts';
import type { Machine } from '../../lab/machine.ts';
import type { AgentAnswer, AgentCall, AgentRequest } from './initiator-agent.ts';
import { installBundle } from './install-bundle.ts';

const AGENT = '/opt/initiator-agent/agent.mjs';

type Answer<M extends keyof Initiator> = Awaited<ReturnType<Initiator[M]>>;

export class InitiatorMachine {
  readonly machine: Machine;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Bundles the sources as they are and puts them on the machine. */
  async install(): Promise<void> {
    await installBundle(this.machine, path.join(import.meta.dirname, 'initiator-agent.ts'), AGENT);
  }

  async request(request: AgentRequest, timeoutMs = 480_000): Promise<AgentAnswer[]> {
    const { stdout } = await this.machine.exec(`/usr/local/bin/node ${AGENT}`, {
      input: JSON.stringify(request),
      timeoutMs,
    });
    return JSON.parse(stdout) as AgentAnswer[];
  }

  /** One call after the other, in one process. @throws Error of the first call that failed */
  async run(calls: readonly AgentCall[], options: Omit<AgentRequest, 'calls'> = {}): Promise<AgentAnswer[]> {
    const answers = await this.request({ calls, ...options });
    for (const [index, answer] of answers.entries()) {
      if (answer.error !== undefined)
        throw new Error(`${calls[index]?.[0]}: ${answer.error.kind}: ${answer.error.message}`);
    }
    return answers;
  }

  async call<M extends keyof Initiator>(method: M, ...args: readonly unknown[]): Promise<Answer<M>> {
    const [answer] = await this.run([[method, ...args]]);
    return answer?.value as Answer<M>;
  }

  /** The error of a call that has to fail. */
  async failure(call: AgentCall, options: Omit<AgentRequest, 'calls'> = {}): Promise<AgentAnswer & { kind: string }> {
    const [answer] = await this.request({ calls: [call], ...options });
    if (answer?.error === undefined) throw new Error(`${call[0]} was to fail, and answered ${JSON.stringify(answer)}`);
    return { ...answer, kind: answer.error.kind ?? answer.error.name };
  }

  /** The agent dies at a point of a step, as the node plugin may at any time. */
  async dieAt(point: string, calls: readonly AgentCall[]): Promise<void> {
    // Not as the shell's last command: ssh has no exit code for a shell that became the agent and was killed.
    const { exitCode } = await this.machine.exec(`/usr/local/bin/node ${AGENT}; code=$?; exit $code`, {
      input: JSON.stringify({ calls, dieAt: point } satisfies AgentRequest),
      check: false,
    });
    if (exitCode !== 137) throw new Error(`the agent was to be killed at ${point}, and ended with ${exitCode}`);
  }

  /** Sessions, records, devices and locks, one line each; [] when nothing is left. */
  async leftovers(): Promise<string[]> {
    const { stdout } = await this.machine.exec(`
      for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session: $(cat $s/targetname)"; done
      for d in /etc/iscsi /var/lib/iscsi; do
        [ -d "$d" ] && find $d -name '.lvm-iscsi-csi*' | sed 's/^/temporary: /'
        [ -d "$d/nodes" ] && find $d/nodes -mindepth 1 | sed 's/^/record: /'
      done
      for d in /sys/block/sd*; do [ -e "$d" ] && echo "device: $d"; done
      [ -d /run/lock/iscsi ] && find /run/lock/iscsi -mindepth 1 ! -name lock | sed 's/^/lock: /'
      true`);
    return stdout.split('\n').filter((line) => line !== '');
  }
}
