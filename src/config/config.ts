/** Makes the one typed configuration out of flags, environment, file and defaults, in this order of precedence. */
import { dirname, join, normalize } from 'node:path/posix';
import {
  flagName,
  OPTION_KEYS,
  OPTIONS,
  type OptionKey,
  type OptionSpec,
  type OptionValues,
  variableName,
} from './options.ts';
import { fromEnvironment, fromFile, fromFlags, type Given, type Source } from './sources.ts';
import type { CommonConfig, Config, ControllerConfig, NodeConfig, Role } from './types.ts';

export interface ConfigInput {
  readonly role: Role;
  /** Flags by option key, and `config`, the file's path; anything else is ignored. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Text of the file named by --config or LVM_ISCSI_CSI_CONFIG. */
  readonly readFile: (path: string) => string;
}

/** Names every option that is wrong, where it came from, what was found and what is allowed. Main exits with code 2. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

/** @throws ConfigError */
export function loadConfig(input: ConfigInput): Config {
  const problems: string[] = [];
  const sources = [fromFlags(input.flags), fromEnvironment(input.env), ...fileSource(input, problems)];
  for (const source of sources) problems.push(...source.problems);
  const values: Partial<Record<OptionKey, unknown>> = {};
  for (const key of OPTION_KEYS) {
    values[key] = resolve(
      key,
      sources.map(({ given }) => given),
      input.role,
      problems,
    );
  }
  if (problems.length > 0) throw new ConfigError(problems);
  // Each value is what its own schema made: the table's types say so.
  const config = build(input.role, values as OptionValues);
  const problem = socketFolderProblem(config);
  if (problem !== undefined) throw new ConfigError([problem]);
  return config;
}

/** CSI specification, "Configuration and Operation": a plugin makes no other files beside its socket. */
function socketFolderProblem({ endpoint, runDir, stateDir }: CommonConfig): string | undefined {
  const socketFolder = dirname(normalize(endpoint.slice('unix://'.length)));
  const clash = [
    ['run-dir', runDir],
    ['state-dir', stateDir],
  ].find(([, folder]) => join(folder ?? '', '.') === socketFolder);
  if (clash === undefined) return undefined;
  return (
    `option endpoint: the folder of "${endpoint}" is ${clash[0]} as well, where the program keeps files of its own; ` +
    `allowed: a folder for the socket alone; for example unix://${join(socketFolder, 'csi', 'csi.sock')}`
  );
}

function fileSource(input: ConfigInput, problems: string[]): Source[] {
  const path = input.flags['config'] ?? input.env[variableName('config')];
  if (typeof path !== 'string' || path === '') return [];
  try {
    return [fromFile(input.readFile(path), path)];
  } catch (error) {
    problems.push(
      `configuration file ${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
    return [];
  }
}

function resolve(key: OptionKey, sources: readonly Given[], role: Role, problems: string[]): unknown {
  const spec: OptionSpec<unknown> = OPTIONS[key];
  const isOptional = spec.default === undefined;
  const given = sources.map((source) => source.get(key)).find((value) => value !== undefined);
  if (given !== undefined && !(isOptional && given.text === '')) {
    const parsed = spec.kind.schema.safeParse(given.text);
    if (parsed.success) return parsed.data;
    problems.push(
      `option ${flagName(key)}: "${given.text}" (from ${given.origin}) is not allowed; allowed: ${spec.kind.allowed}`,
    );
    return undefined;
  }
  if (spec.default !== undefined) return resolveDefault(key, spec, spec.default, isUsedBy(spec, role) ? problems : []);
  if (spec.required !== undefined && isUsedBy(spec, role)) {
    problems.push(
      `option ${flagName(key)} is required (flag --${flagName(key)}, environment variable ${variableName(key)}); ${spec.required}`,
    );
  }
  return undefined;
}

/** A default can be wrong only where it comes from the machine: its host name. */
function resolveDefault(key: OptionKey, spec: OptionSpec<unknown>, text: string, problems: string[]): unknown {
  const parsed = spec.kind.schema.safeParse(text);
  if (parsed.success) return parsed.data;
  problems.push(
    `option ${flagName(key)}: "${text}" (the default) is not allowed; allowed: ${spec.kind.allowed}; give one`,
  );
  return undefined;
}

function isUsedBy(spec: OptionSpec<unknown>, role: Role): boolean {
  return spec.section === 'common' || role === 'all' || spec.section === role;
}

function build(role: Role, values: OptionValues): Config {
  const common = buildCommon(values);
  if (role === 'node') return { ...common, role, node: buildNode(values) };
  if (role === 'controller') return { ...common, role, controller: buildController(values) };
  return { ...common, role, controller: buildController(values), node: buildNode(values) };
}

function buildCommon(values: OptionValues): CommonConfig {
  const rootOfHost = values.hostCommands === 'nsenter' ? '/proc/1/root' : '';
  return {
    driverName: values.driverName,
    endpoint: values.endpoint,
    tcpEndpoint: values.tcpEndpoint,
    logLevel: values.logLevel,
    metricsEndpoint: values.metricsEndpoint,
    hostCommands: values.hostCommands,
    // It is put before absolute paths, so "/" and a final slash go.
    hostRoot: (values.hostRoot ?? rootOfHost).replace(/\/+$/, ''),
    stateDir: values.stateDir,
    runDir: values.runDir,
    slowCallMs: values.slowCall,
    drainTimeoutMs: values.drainTimeout,
  };
}

function buildController(values: OptionValues): ControllerConfig {
  return {
    volumeGroup: values.volumeGroup,
    clusterId: values.clusterId,
    iqnPrefix: values.iqnPrefix,
    portals: values.portals ?? [],
    defaultFsType: values.defaultFsType,
    defaultVolumeSizeBytes: values.defaultVolumeSize,
    maxVolumesPerNode: values.maxVolumesPerNode,
    chap: values.chap,
    chapKeyFile: values.chapKeyFile,
    wipeBytesPerSecond: values.wipeRate,
    diskWriteCache: values.diskWriteCache,
    fenceTimeoutMs: values.fenceTimeout,
  };
}

function buildNode(values: OptionValues): NodeConfig {
  return {
    nodeName: values.nodeName,
    initiatorNameFile: values.initiatorNameFile,
    maxVolumes: values.maxVolumes,
    loginConcurrency: values.loginConcurrency,
    loginTimeoutMs: values.loginTimeout,
    replacementTimeoutSeconds: values.replacementTimeout,
    flushTimeoutMs: values.flushTimeout,
  };
}
