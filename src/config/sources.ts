/** Where option values come from: flags, environment, file. Collects what was given as text, with its origin, and what nobody knows. */
import { parse } from 'yaml';
import {
  ENVIRONMENT_PREFIX,
  flagName,
  OPTION_KEYS,
  OPTIONS,
  type OptionKey,
  type OptionSpec,
  variableName,
} from './options.ts';
import { suggest } from './suggest.ts';

export interface GivenValue {
  readonly text: string;
  /** For messages: "flag --portals", "environment variable …", "key portals in /etc/….yaml". */
  readonly origin: string;
}

export type Given = ReadonlyMap<OptionKey, GivenValue>;

export interface Source {
  readonly given: Given;
  /** One sentence for each thing that is wrong. */
  readonly problems: readonly string[];
}

/** Read by other parts of the program; no options. */
const OTHER_VARIABLES = [`${ENVIRONMENT_PREFIX}CONFIG`, `${ENVIRONMENT_PREFIX}TEST_STEPS`];

/**
 * Kubernetes puts variables for each Service into each pod: a Service "lvm-iscsi-csi" gives LVM_ISCSI_CSI_SERVICE_HOST,
 * LVM_ISCSI_CSI_PORT_9809_TCP_ADDR and so on. They are not the user's, and no option may ever be named like one.
 */
export const KUBERNETES_SERVICE_VARIABLE =
  /_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$/;

/** @param flags by option key, as commander gives them */
export function fromFlags(flags: Readonly<Record<string, unknown>>): Source {
  const given = new Map<OptionKey, GivenValue>();
  for (const key of OPTION_KEYS) {
    const text = flags[key];
    if (typeof text === 'string') given.set(key, { text, origin: `flag --${flagName(key)}` });
  }
  return { given, problems: [] };
}

export function fromEnvironment(env: Readonly<Record<string, string | undefined>>): Source {
  const given = new Map<OptionKey, GivenValue>();
  const known = new Map(OPTION_KEYS.map((key): [string, OptionKey] => [variableName(key), key]));
  for (const key of OPTION_KEYS) {
    const spec: OptionSpec<unknown> = OPTIONS[key];
    for (const variable of [spec.alias, variableName(key)]) {
      const text = variable === undefined ? undefined : env[variable];
      if (text !== undefined) given.set(key, { text, origin: `environment variable ${variable}` });
    }
  }
  const problems: string[] = [];
  for (const variable of Object.keys(env).sort()) {
    const mayBeOurs = variable.startsWith(ENVIRONMENT_PREFIX) && !KUBERNETES_SERVICE_VARIABLE.test(variable);
    if (!mayBeOurs || known.has(variable) || OTHER_VARIABLES.includes(variable)) continue;
    problems.push(
      `unknown environment variable ${variable}${didYouMean(variable, [...known.keys(), ...OTHER_VARIABLES])}`,
    );
  }
  return { given, problems };
}

/** @param text of the YAML file at `path` */
export function fromFile(text: string, path: string): Source {
  let content: unknown;
  try {
    content = parse(text);
  } catch (error) {
    return {
      given: new Map(),
      problems: [`${path} is no YAML: ${error instanceof Error ? error.message : String(error)}`],
    };
  }
  if (content === null || content === undefined) return { given: new Map(), problems: [] };
  if (typeof content !== 'object' || Array.isArray(content)) {
    return { given: new Map(), problems: [`${path} must hold a mapping of option names to values`] };
  }
  const given = new Map<OptionKey, GivenValue>();
  const problems: string[] = [];
  for (const [name, value] of Object.entries(content)) {
    const key = OPTION_KEYS.find((candidate) => candidate === name);
    if (key === undefined) {
      const known = OPTION_KEYS.find((candidate) => flagName(candidate) === name);
      problems.push(
        `unknown key ${name} in ${path}${known === undefined ? didYouMean(name, OPTION_KEYS) : `; did you mean ${known}?`}`,
      );
      continue;
    }
    if (value === null) continue;
    const scalar = toText(value);
    if (scalar === undefined)
      problems.push(`key ${name} in ${path} must be a plain value${key === 'portals' ? ' or a list' : ''}`);
    else given.set(key, { text: scalar, origin: `key ${name} in ${path}` });
  }
  return { given, problems };
}

function toText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'number') return String(value);
  // YAML 1.2's "on" and "off" are strings, but a quick hand writes true.
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value.join(',');
  return undefined;
}

function didYouMean(name: string, candidates: readonly string[]): string {
  const near = suggest(name, candidates);
  return near === undefined ? '' : `; did you mean ${near}?`;
}
