/** The table of values in the chart's README: meaning and type from the schema, defaults from values.yaml. */
import type { JsonSchema } from './schema.ts';

interface Row {
  readonly path: string;
  readonly schema: JsonSchema;
  readonly value: unknown;
}

/** @param values values.yaml, parsed */
export function renderValues(schema: JsonSchema, values: Readonly<Record<string, unknown>>): string {
  const sections: string[] = [];
  const general: Row[] = [];
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const rows = rowsOf(schema, name, property, values[name]);
    if (rows.length === 1 && rows[0]?.path === name) general.push(...rows);
    else sections.push(`### ${name}\n\n${property.description}\n\n${table(rows)}`);
  }
  return [`### General\n\n${table(general)}`, ...sections].join('\n');
}

/** One row for each value that can be set; those of an array's items are written `name[].key`. */
function rowsOf(root: JsonSchema, path: string, property: JsonSchema, value: unknown): Row[] {
  const schema = resolve(root, property);
  const own = { path, schema, value };
  if (schema.properties !== undefined && !isLeaf(property)) {
    const values = isRecord(value) ? value : {};
    return Object.entries(schema.properties).flatMap(([key, each]) =>
      rowsOf(root, `${path}.${key}`, each, values[key]),
    );
  }
  const items = schema.items?.properties === undefined || isLeaf(property) ? {} : schema.items.properties;
  return [own, ...Object.entries(items).flatMap(([key, each]) => rowsOf(root, `${path}[].${key}`, each, undefined))];
}

/** What Kubernetes defines is not explained again. */
function isLeaf(property: JsonSchema): boolean {
  return /\/(resources|tolerations|extraArgs)$/.test(property.$ref ?? '');
}

/** A reference with its own description in place of the definition's. */
export function resolve(root: JsonSchema, property: JsonSchema): JsonSchema {
  const name = property.$ref?.replace('#/definitions/', '');
  return name === undefined ? property : { ...root.definitions?.[name], ...property };
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ path, schema, value }) => {
    const cells = [`\`${path}\``, typeText(schema), value === undefined ? '' : `\`${JSON.stringify(value)}\``];
    return `| ${[...cells, schema.description ?? ''].map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return `| value | type | default | meaning |\n|---|---|---|---|\n${lines.join('\n')}\n`;
}

function typeText(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.map((each) => `\`${String(each)}\``).join(', ');
  return [schema.type ?? 'integer or string'].flat().join(' or ');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
