/** The program's version: from package.json, put in by the bundler; when run from source the file is read. */
import { readFileSync } from 'node:fs';

declare const EMBEDDED_VERSION: string | undefined;

export function version(): string {
  if (typeof EMBEDDED_VERSION === 'string') return EMBEDDED_VERSION;
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
