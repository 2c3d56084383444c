/**
 * Bundles the driver into one executable file, dist/lvm-iscsi-csi.mjs: `node build.ts [--out FILE] [--sbom FILE]`; the
 * second file lists the npm packages that are in the first (CycloneDX).
 * `node build.ts --docs` writes the generated tables of docs/ instead (a unit test says when they are out of step).
 */
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { cyclonedxEsbuildPlugin } from '@cyclonedx/cyclonedx-esbuild';
import { build, type Plugin } from 'esbuild';
import { renderOptionsAsMarkdown } from './src/config/docs.ts';
import { renderMetricsAsMarkdown } from './src/observability/metric-table.ts';

const ROOT = import.meta.dirname;

/** CommonJS packages in an ES module still ask for `require`, and for Node's own modules by it. */
const REQUIRE =
  "import { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);";

/** zod brings its messages in forty languages, half a megabyte; ours are written by ourselves, in English. */
const ENGLISH_ONLY: Plugin = {
  name: 'english-only',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]zod[\\/]v4[\\/]locales[\\/]index\.js$/ }, ({ path }) => ({
      contents: "export { default as en } from './en.js';",
      resolveDir: dirname(path),
    }));
  },
};

/**
 * Lists what esbuild really took, not what is installed. With the licences' texts: a bundle leaves out the files that they
 * stand in, and most of them ask to go with every copy.
 */
const listPackages = (outputFile: string): Plugin =>
  cyclonedxEsbuildPlugin({
    outputFile: resolve(outputFile),
    gatherLicenseTexts: true,
    outputReproducible: true,
    validate: true,
  });

/**
 * Builds and answers the file's size in bytes.
 *
 * @param sbom where to list the bundled packages, if at all
 */
export async function bundle(outfile: string, sbom?: string): Promise<number> {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const helper = await build({
    entryPoints: [join(ROOT, 'src/system/file-helper-entry.ts')],
    write: false,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    logLevel: 'warning',
  });
  const helperText = helper.outputFiles[0]?.text;
  if (helperText === undefined) throw new Error('the file helper was not built');
  await build({
    entryPoints: [join(ROOT, 'src/main.ts')],
    // Where the list of packages finds the program's own name and version, wherever this is called from.
    absWorkingDir: ROOT,
    outfile: resolve(outfile),
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // Reading the file is most of a start on a slow host. Names stay as in the source, for stack traces in the field.
    minifyWhitespace: true,
    minifySyntax: true,
    plugins: [ENGLISH_ONLY, ...(sbom === undefined ? [] : [listPackages(sbom)])],
    sourcemap: false,
    legalComments: 'none',
    banner: { js: REQUIRE },
    define: {
      EMBEDDED_CSI_PROTO: JSON.stringify(readFileSync(join(ROOT, 'proto/csi.proto'), 'utf8')),
      EMBEDDED_VERSION: JSON.stringify(version),
      EMBEDDED_FILE_HELPER: JSON.stringify(helperText),
    },
    logLevel: 'warning',
  });
  chmodSync(outfile, 0o755);
  return statSync(outfile).size;
}

/** Files of docs/ with a generated part, and that part. */
export const GENERATED_DOCS: readonly { readonly path: string; readonly render: () => string }[] = [
  { path: join(ROOT, 'docs/configuration.md'), render: renderOptionsAsMarkdown },
  { path: join(ROOT, 'docs/metrics.md'), render: renderMetricsAsMarkdown },
];

/** The text with its generated part (between the two marks) replaced. */
export function withGenerated(text: string, generated: string): string {
  const marks = /(<!-- generated: begin[^>]*-->\n)[\s\S]*(<!-- generated: end -->)/;
  if (!marks.test(text)) throw new Error('no "<!-- generated: begin … -->" and "<!-- generated: end -->"');
  return text.replace(marks, (_, begin: string, end: string) => `${begin}\n${generated}\n${end}`);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { out: { type: 'string' }, sbom: { type: 'string' }, docs: { type: 'boolean' } },
  });
  if (values.docs === true) {
    for (const { path, render } of GENERATED_DOCS) {
      writeFileSync(path, withGenerated(readFileSync(path, 'utf8'), render()));
      console.log(`wrote ${path}`);
    }
  } else {
    const outfile = values.out ?? join(ROOT, 'dist/lvm-iscsi-csi.mjs');
    const bytes = await bundle(outfile, values.sbom);
    console.log(`${outfile}: ${(bytes / 1024).toFixed(0)} KiB`);
  }
}
