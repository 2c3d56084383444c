/**
 * Runs in a machine of the lab: calls the node plugin's work directly, without gRPC and without a controller. One JSON
 * request on stdin, one JSON answer on stdout. Bundled by `node-machine.ts`.
 */
import { text } from 'node:stream/consumers';
import { DriverError } from '../../../src/errors.ts';
import { OpenIscsi } from '../../../src/iscsi/initiator/open-iscsi.ts';
import { NodePlugin } from '../../../src/node/node-plugin.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { runFileHelper } from '../../../src/system/file-helper.ts';
import { FILE_HELPER_COMMAND } from '../../../src/system/file-helper-protocol.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { setStepHook } from '../../../src/system/step.ts';

export type NodeCall = readonly [method: keyof NodePlugin, ...args: readonly unknown[]];

export interface NodeAgentRequest {
  readonly calls: readonly NodeCall[];
  /** As in a pod: paths through /proc/1/root, commands through nsenter. */
  readonly pod?: boolean;
  /** The agent kills itself (SIGKILL) at this point of a step, e.g. "before:staging-mount". */
  readonly dieAt?: string;
}

export interface NodeAgentAnswer {
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
  readonly durationMs: number;
}

async function serve(request: NodeAgentRequest): Promise<NodeAgentAnswer[]> {
  const { dieAt } = request;
  if (dieAt !== undefined) {
    setStepHook(async (point) => {
      if (point === dieAt) process.kill(process.pid, 'SIGKILL');
    });
  }
  const commands = new HostCommands({
    host: { mode: request.pod === true ? 'nsenter' : 'direct' },
    owner: 'node-agent',
    outputFolder: '/run',
  });
  const files = new BlockingFiles();
  const config = {
    hostRoot: request.pod === true ? '/proc/1/root' : '',
    stateDir: '/var/lib/lvm-iscsi-csi',
    nodeName: 'node-1',
    initiatorNameFile: '/etc/iscsi/initiatorname.iscsi',
    maxVolumes: 0,
    loginConcurrency: 4,
    loginTimeoutMs: 60_000,
    replacementTimeoutSeconds: 900,
    flushTimeoutMs: 60_000,
  };
  const initiator = new OpenIscsi({ commands, files, config });
  const plugin = new NodePlugin({ initiator, commands, files, config });
  const answers: NodeAgentAnswer[] = [];
  for (const [method, ...args] of request.calls) {
    const startedAt = performance.now();
    const durationMs = (): number => Math.round(performance.now() - startedAt);
    try {
      const call = plugin[method].bind(plugin) as (...all: readonly unknown[]) => Promise<unknown>;
      answers.push({ value: await call(...args), durationMs: durationMs() });
    } catch (error) {
      const code = error instanceof DriverError ? error.code : 'none';
      const causes: string[] = [];
      for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) causes.push(cause.message);
      answers.push({ error: { code, message: causes.join(' <- ') }, durationMs: durationMs() });
    }
  }
  await files.close();
  await commands.close();
  return answers;
}

if (process.argv[2] === FILE_HELPER_COMMAND) {
  runFileHelper();
} else {
  const answers = await serve(JSON.parse(await text(process.stdin)) as NodeAgentRequest);
  process.stdout.write(`${JSON.stringify(answers)}\n`, () => process.exit(0));
}
