/**
 * Runs on the lab's storage host: calls the gate and target adapters as the controller would, without the controller.
 * One JSON request on stdin, one JSON answer on stdout. Bundled by `target-machine.ts`.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, rmdirSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { DmGates } from '../../../src/gate/dm-gates.ts';
import { LioTargets } from '../../../src/iscsi/target/lio-targets.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { setRootLogger } from '../../../src/system/context.ts';
import { runFileHelper } from '../../../src/system/file-helper.ts';
import { FILE_HELPER_COMMAND } from '../../../src/system/file-helper-protocol.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { setStepHook } from '../../../src/system/step.ts';

/**
 * `gates.…`, `targets.…`, `underSuspension(volumeIds, shell command)`, `floorMs(device, initiator)`, or `all(calls)`:
 * those at once.
 */
export type AgentCall = readonly [method: string, ...args: readonly unknown[]];

export interface AgentRequest {
  readonly iqnPrefix: string;
  readonly portals: readonly string[];
  readonly calls: readonly AgentCall[];
  /** false: as in production, several mutations go to the kernel in one go, and the answers name no steps. */
  readonly watch?: boolean;
  /** The agent kills itself (SIGKILL) when this point is passed for the n-th time, e.g. "after:target-acl-auth#2". */
  readonly dieAt?: string;
  /** At this point the agent makes the file `sign` and waits for ever: to be killed from outside. */
  readonly waitAt?: { readonly point: string; readonly sign: string };
  /** A file that is made once all calls are answered: a process with a call that hangs in the kernel cannot end. */
  readonly answeredSign?: string;
}

export interface AgentAnswer {
  readonly value?: unknown;
  readonly error?: { readonly name: string; readonly reason: string | undefined; readonly message: string };
  readonly durationMs: number;
  /** Names of the steps (mutations) that the call made. */
  readonly steps: readonly string[];
}

async function serve(request: AgentRequest): Promise<AgentAnswer[]> {
  const steps: string[] = [];
  const [diePoint, dieTime = '1'] = request.dieAt?.split('#') ?? [];
  let passed = 0;
  if (request.watch !== false)
    setStepHook(async (point) => {
      if (point === diePoint) {
        passed += 1;
        if (passed === Number(dieTime)) {
          process.kill(process.pid, 'SIGKILL');
          await new Promise(() => undefined);
        }
      }
      if (point === request.waitAt?.point) {
        writeFileSync(request.waitAt.sign, '');
        await new Promise(() => undefined);
      }
      if (point.startsWith('before:')) steps.push(point.slice('before:'.length));
    });
  const commands = new HostCommands({ host: { mode: 'direct' }, owner: 'agent', outputFolder: '/run' });
  await commands.prepare();
  const files = new BlockingFiles();
  // Starts the helper, which takes long where everything is emulated.
  await files.stat('/', { timeoutMs: 120_000 });
  const gates = new DmGates({ commands, files, runDir: '/run/target-agent' });
  const targets = new LioTargets({
    files,
    commands,
    iqnPrefix: request.iqnPrefix,
    portals: request.portals,
    vgName: 'test-vg',
  });

  const invoke = async ([method, ...args]: AgentCall): Promise<unknown> => {
    if (method === 'all') return await Promise.all((args[0] as AgentCall[]).map(invoke));
    if (method === 'floorMs') return floorMs(args[0] as string, args[1] as string, request.portals[0] ?? '');
    if (method === 'underSuspension') {
      const [volumeIds, command] = args as [string[], string];
      return await gates.withSuspended(volumeIds, async () => {
        return (await promisify(execFile)('sh', ['-c', command])).stdout;
      });
    }
    const [object, name = ''] = method.split('.');
    const owner = (object === 'gates' ? gates : targets) as unknown as Record<string, (...a: unknown[]) => unknown>;
    return await owner[name]?.(...args);
  };

  const answers: AgentAnswer[] = [];
  for (const call of request.calls) {
    steps.length = 0;
    const startedAt = performance.now();
    const elapsed = (): number => Math.round((performance.now() - startedAt) * 10) / 10;
    try {
      const value = await invoke(call);
      answers.push({ value, durationMs: elapsed(), steps: [...steps] });
    } catch (error) {
      const { name, message, reason } = error as Error & { reason?: string };
      answers.push({ error: { name, message, reason }, durationMs: elapsed(), steps: [...steps] });
    }
  }
  if (request.answeredSign !== undefined) writeFileSync(request.answeredSign, '');
  return answers;
}

/** What the kernel alone takes for a target: the least that can be written for it, straight from this process. */
function floorMs(device: string, initiatorIqn: string, portal: string): number {
  const hba = '/sys/kernel/config/target/core/iblock_999';
  const backstore = `${hba}/floor`;
  const iqn = '/sys/kernel/config/target/iscsi/iqn.2003-01.org.floor:floor';
  const tpg = `${iqn}/tpgt_1`;
  const acl = `${tpg}/acls/${initiatorIqn}`;
  const startedAt = performance.now();
  for (const folder of [hba, backstore]) mkdirSync(folder);
  writeFileSync(`${backstore}/control`, `udev_path=${device}`);
  writeFileSync(`${backstore}/wwn/vpd_unit_serial`, 'f'.repeat(32));
  writeFileSync(`${backstore}/enable`, '1');
  for (const folder of [iqn, tpg, `${tpg}/lun/lun_0`]) mkdirSync(folder);
  symlinkSync(backstore, `${tpg}/lun/lun_0/link`);
  for (const folder of [acl, `${acl}/lun_0`]) mkdirSync(folder);
  symlinkSync(`${tpg}/lun/lun_0`, `${acl}/lun_0/link`);
  writeFileSync(`${acl}/auth/userid`, 'user');
  writeFileSync(`${acl}/auth/password`, 'password');
  mkdirSync(`${tpg}/np/${portal}`);
  writeFileSync(`${tpg}/enable`, '1');
  const durationMs = performance.now() - startedAt;
  for (const link of [`${acl}/lun_0/link`, `${tpg}/lun/lun_0/link`]) unlinkSync(link);
  for (const folder of [`${acl}/lun_0`, acl, `${tpg}/lun/lun_0`, `${tpg}/np/${portal}`, tpg, iqn, backstore, hba])
    rmdirSync(folder);
  return Math.round(durationMs * 10) / 10;
}

if (process.argv[2] === FILE_HELPER_COMMAND) {
  runFileHelper();
} else {
  setRootLogger(pino({ level: process.env['LOG_LEVEL'] ?? 'warn' }, pino.destination(2)));
  const answers = await serve(JSON.parse(await text(process.stdin)) as AgentRequest);
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
}
