/** What the program does once it knows that it is not the file helper: the frame around the roles. */
import { readFileSync } from 'node:fs';
import { CommandLineExit, type Flags, runCommandLine, type ScrubFlags } from './command-line.ts';
import { ConfigError, loadConfig } from './config/config.ts';
import type { Config, Role } from './config/types.ts';
import { endAtOnce, exitOnUnexpected, LifeCycle, stopOnSignals } from './life-cycle.ts';
import { startHttpServer } from './observability/http.ts';
import { createLogger } from './observability/log.ts';
import { Metrics } from './observability/metrics.ts';
import type { RoleDependencies, RunningRole } from './roles/role.ts';
import { BlockingFiles } from './system/blocking-files.ts';
import { log, setRootLogger } from './system/context.ts';
import { HostCommands } from './system/host-commands.ts';
import { installTestHooks, LAB_MARKER, TestHookRefused } from './system/test-hooks.ts';
import { version } from './version.ts';

const EXIT_FAILURE = 1;
/** Wrong options or wrong use; nothing has been started. */
const EXIT_USAGE = 2;

/** Ends the process in every case. */
export async function runProgram(argv: readonly string[]): Promise<void> {
  try {
    await runCommandLine(argv, version(), {
      run: async (role, flags) => process.exit(await serve(role, flags)),
      scrub: async (flags, options) => process.exit(await scrub(flags, options)),
    });
  } catch (error) {
    process.exit(explain(error));
  }
}

function explain(error: unknown): number {
  if (error instanceof CommandLineExit) return error.exitCode;
  if (error instanceof ConfigError) {
    for (const problem of error.problems) process.stderr.write(`lvm-iscsi-csi: ${problem}\n`);
    return EXIT_USAGE;
  }
  if (error instanceof TestHookRefused) {
    process.stderr.write(`lvm-iscsi-csi: ${error.message}\n`);
    return EXIT_USAGE;
  }
  log().fatal({ err: error }, 'cannot go on');
  process.stderr.write(`lvm-iscsi-csi: ${error instanceof Error ? error.message : String(error)}\n`);
  return EXIT_FAILURE;
}

async function serve(role: Role, flags: Flags): Promise<number> {
  const config = prepare(role, flags);
  const frame = new Frame(config);
  try {
    const lifeCycle = new LifeCycle({ drainTimeoutMs: config.drainTimeoutMs, mutating: () => frame.commands.mutating });
    stopOnSignals(lifeCycle);
    return await lifeCycle.run(async (stopping) => {
      const running = await startRole(
        config,
        frame.dependencies(stopping, (reason) => lifeCycle.stop(reason, EXIT_FAILURE)),
      );
      return await frame.withHttp(running);
    });
  } finally {
    await frame.close();
  }
}

/** A maintenance command: on the configuration of the controller, beside it or in its stead. */
async function scrub(flags: Flags, options: ScrubFlags): Promise<number> {
  const config = prepare('controller', flags);
  const frame = new Frame(config);
  const lifeCycle = new LifeCycle({ drainTimeoutMs: config.drainTimeoutMs, mutating: () => frame.commands.mutating });
  stopOnSignals(lifeCycle);
  try {
    const { runScrub } = await import('./roles/scrub.ts');
    const fail = (reason: string): void => lifeCycle.stop(reason, EXIT_FAILURE);
    return await runScrub(config, frame.dependencies(lifeCycle.stopping, fail), options);
  } finally {
    await frame.close();
  }
}

function prepare<R extends Role>(role: R, flags: Flags): Extract<Config, { role: R }> {
  const readFile = (path: string): string => readFileSync(path, 'utf8');
  // loadConfig answers for the role that it is asked for.
  const config = loadConfig({ role, flags, env: process.env, readFile }) as Extract<Config, { role: R }>;
  setRootLogger(createLogger({ level: config.logLevel, fields: { role, version: version() } }));
  exitOnUnexpected();
  if (installTestHooks(process.env, `${config.hostRoot}${LAB_MARKER}`))
    log().warn('steps are watched by a test: this is no production process');
  log().info({ config, node: process.version }, 'configuration');
  return config;
}

/** Roles are imported lazily: the node role must not carry what only the controller needs. */
async function startRole(config: Config, dependencies: RoleDependencies): Promise<RunningRole> {
  switch (config.role) {
    case 'controller':
      return await (await import('./roles/controller.ts')).runController(config, dependencies);
    case 'node':
      return await (await import('./roles/node.ts')).runNode(config, dependencies);
    case 'all':
      return await (await import('./roles/all.ts')).runAll(config, dependencies);
  }
}

/** What lives as long as the process: commands, files, metrics, the HTTP port. */
class Frame {
  readonly commands: HostCommands;
  readonly #config: Config;
  readonly #metrics: Metrics;
  readonly #files = new BlockingFiles();
  #closeHttp: () => Promise<void> = async () => undefined;

  constructor(config: Config) {
    this.#config = config;
    this.#metrics = new Metrics(config.role, version());
    this.commands = new HostCommands({
      host: { mode: config.hostCommands },
      owner: config.role,
      outputFolder: `${config.hostRoot}${config.runDir}/output`,
      observer: this.#metrics,
    });
  }

  dependencies(stopping: AbortSignal, fail: (reason: string) => void): RoleDependencies {
    const { commands } = this;
    return {
      host: { mode: this.#config.hostCommands },
      commands,
      files: this.#files,
      metrics: this.#metrics,
      stopping,
      fail,
      die: endAtOnce,
    };
  }

  async withHttp(role: RunningRole): Promise<RunningRole> {
    const endpoint = this.#config.metricsEndpoint;
    if (endpoint === undefined) return role;
    const server = await startHttpServer({ endpoint, metrics: this.#metrics, ready: async () => await role.ready() });
    this.#closeHttp = async () => await server.close();
    return role;
  }

  async close(): Promise<void> {
    await this.#closeHttp();
    await this.#files.close();
    await this.commands.close();
  }
}
