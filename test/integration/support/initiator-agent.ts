/**
 * Runs in a machine of the lab: calls the initiator adapter as the node plugin would, without the plugin. One JSON
 * request on stdin, one JSON answer on stdout. Bundled by `initiator-machine.ts`.
 */
import { text } from 'node:stream/consumers';
import { OpenIscsi } from '../../../src/iscsi/initiator/open-iscsi.ts';
import type { Initiator } from '../../../src/iscsi/initiator/types.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { runFileHelper } from '../../../src/system/file-helper.ts';
import { FILE_HELPER_COMMAND } from '../../../src/system/file-helper-protocol.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { setStepHook } from '../../../src/system/step.ts';

/** An argument {"$": i} is the value of call number i before it, {"$": i, "first": true} that list's first element. */
export type AgentCall = readonly [method: keyof Initiator, ...args: readonly unknown[]];

export interface AgentRequest {
  readonly calls: readonly AgentCall[];
  /** All at once; one after the other when absent. */
  readonly parallel?: boolean;
  /** As in a pod: paths through /proc/1/root, commands through nsenter. */
  readonly pod?: boolean;
  readonly loginTimeoutMs?: number;
  readonly loginConcurrency?: number;
  /** The agent kills itself (SIGKILL) at this point of a step, e.g. "before:iscsi-login". */
  readonly dieAt?: string;
}

export interface AgentAnswer {
  readonly value?: unknown;
  readonly error?: { readonly name: string; readonly kind: string | undefined; readonly message: string };
  readonly durationMs: number;
}

async function serve(request: AgentRequest): Promise<AgentAnswer[]> {
  if (request.dieAt !== undefined) {
    const { dieAt } = request;
    setStepHook(async (point) => {
      if (point === dieAt) process.kill(process.pid, 'SIGKILL');
    });
  }
  const commands = new HostCommands({
    host: { mode: request.pod === true ? 'nsenter' : 'direct' },
    owner: 'agent',
    outputFolder: '/run',
  });
  const files = new BlockingFiles();
  const initiator = new OpenIscsi({
    commands,
    files,
    config: {
      hostRoot: request.pod === true ? '/proc/1/root' : '',
      initiatorNameFile: '/etc/iscsi/initiatorname.iscsi',
      loginConcurrency: request.loginConcurrency ?? 10,
      loginTimeoutMs: request.loginTimeoutMs ?? 30_000,
      replacementTimeoutSeconds: 900,
    },
  });
  const answers: AgentAnswer[] = [];
  const resolve = (arg: unknown): unknown => {
    const reference = arg as { $?: number; first?: boolean } | null;
    if (typeof reference !== 'object' || reference?.$ === undefined) return arg;
    const value = answers[reference.$]?.value;
    return reference.first === true ? (value as readonly unknown[])[0] : value;
  };
  const one = async ([method, ...args]: AgentCall): Promise<AgentAnswer> => {
    const startedAt = performance.now();
    const durationMs = (): number => Math.round(performance.now() - startedAt);
    try {
      const call = initiator[method].bind(initiator) as (...all: readonly unknown[]) => Promise<unknown>;
      return { value: await call(...args.map(resolve)), durationMs: durationMs() };
    } catch (error) {
      return { error: describe(error), durationMs: durationMs() };
    }
  };
  if (request.parallel === true) answers.push(...(await Promise.all(request.calls.map(one))));
  else for (const call of request.calls) answers.push(await one(call));
  await files.close();
  await commands.close();
  return answers;
}

function describe(error: unknown): NonNullable<AgentAnswer['error']> {
  if (!(error instanceof Error)) return { name: 'unknown', kind: undefined, message: String(error) };
  const kind = 'kind' in error ? String(error.kind) : undefined;
  return { name: error.name, kind, message: error.message };
}

if (process.argv[2] === FILE_HELPER_COMMAND) {
  runFileHelper();
} else {
  const answers = await serve(JSON.parse(await text(process.stdin)) as AgentRequest);
  process.stdout.write(`${JSON.stringify(answers)}\n`, () => process.exit(0));
}
