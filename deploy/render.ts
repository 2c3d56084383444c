/**
 * `npm run deploy:render`: writes what is made from something else: the options in the chart's values.schema.json (from
 * the option table), the values in its README (from the schema and values.yaml), and deploy/kubernetes (from the chart).
 * test/chart says when one of them is out of step.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import { withGenerated } from '../build.ts';
import { CHART } from '../test/support/helm.ts';
import { renderManifests } from './manifests.ts';
import { renderValues } from './readme.ts';
import { type JsonSchema, withOptions } from './schema.ts';

export const SCHEMA = path.join(CHART, 'values.schema.json');
export const VALUES = path.join(CHART, 'values.yaml');
export const README = path.join(CHART, 'README.md');
export const MANIFESTS = path.join(import.meta.dirname, 'kubernetes');

export function readSchema(): JsonSchema {
  return JSON.parse(readFileSync(SCHEMA, 'utf8')) as JsonSchema;
}

export function readValues(): Record<string, unknown> {
  return parse(readFileSync(VALUES, 'utf8')) as Record<string, unknown>;
}

export function schemaText(): string {
  return `${JSON.stringify(withOptions(readSchema()), null, 2)}\n`;
}

export function readmeText(): string {
  return withGenerated(readFileSync(README, 'utf8'), renderValues(readSchema(), readValues()));
}

if (import.meta.main) {
  // In this order: the README and the manifests are made from the schema.
  const write = (file: string, text: string): void => {
    writeFileSync(file, text);
    console.log(`wrote ${path.relative(process.cwd(), file)}`);
  };
  write(SCHEMA, schemaText());
  write(README, readmeText());
  for (const [name, text] of await renderManifests()) write(path.join(MANIFESTS, name), text);
}
