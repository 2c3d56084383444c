/** The part of values.schema.json that is the program's options, from the option table. */
import {
  defaultText,
  OPTION_KEYS,
  OPTIONS,
  type OptionKey,
  type OptionSpec,
  type Section,
} from '../src/config/options.ts';

export interface JsonSchema {
  $ref?: string;
  type?: string | readonly string[];
  description?: string;
  properties?: Record<string, JsonSchema>;
  additionalProperties?: boolean | JsonSchema;
  items?: JsonSchema;
  enum?: readonly unknown[];
  definitions?: Record<string, JsonSchema>;
  minimum?: number;
  maximum?: number;
}

/** Said by the chart itself: a second answer could only contradict it. */
export const SET_BY_CHART: readonly OptionKey[] = [
  'driverName',
  'endpoint',
  'tcpEndpoint',
  'metricsEndpoint',
  'hostCommands',
  'hostRoot',
  'drainTimeout',
  'nodeName',
];

const DEFINITIONS: Readonly<Record<Section, string>> = {
  common: 'commonOptions',
  controller: 'controllerOptions',
  node: 'nodeOptions',
};

/** The schema with its option definitions replaced by those of the option table. */
export function withOptions(schema: JsonSchema): JsonSchema {
  const definitions = { ...schema.definitions };
  for (const [section, name] of Object.entries(DEFINITIONS)) definitions[name] = optionsOf(section as Section);
  return { ...schema, definitions };
}

function optionsOf(section: Section): JsonSchema {
  const properties: Record<string, JsonSchema> = {};
  for (const key of OPTION_KEYS) {
    const spec: OptionSpec<unknown> = OPTIONS[key];
    if (spec.section !== section || SET_BY_CHART.includes(key)) continue;
    const byProgram = spec.required === undefined ? ` (the program's default: ${defaultText(key)})` : '';
    properties[key] = { description: `${spec.description}; ${spec.kind.allowed}${byProgram}`, ...typeOf(key, spec) };
  }
  return { type: 'object', additionalProperties: false, properties };
}

/** What the kind says in words; all that is finer is checked by the program at its start. */
function typeOf(key: OptionKey, { kind }: OptionSpec<unknown>): JsonSchema {
  if (key === 'portals') return { type: ['array', 'string'], items: { type: 'string' } };
  const choice = /^one of (.+)$/.exec(kind.allowed)?.[1];
  if (choice !== undefined) return { type: 'string', enum: choice.split(', ') };
  const [, minimum, maximum] = /^a whole number from (\d+) to (\d+)/.exec(kind.allowed) ?? [];
  if (minimum !== undefined) return { type: 'integer', minimum: Number(minimum), maximum: Number(maximum) };
  return { type: 'string' };
}
