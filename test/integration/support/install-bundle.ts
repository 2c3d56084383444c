/** Puts a program from our sources, as they are, onto a machine of the lab: one bundled file. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { build } from 'esbuild';
import type { Machine } from '../../lab/machine.ts';

/** @param source absolute path of the entry point; @param target absolute path on the machine, ending in .mjs */
export async function installBundle(machine: Machine, source: string, target: string): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), 'lvm-iscsi-csi-bundle-'));
  try {
    const outfile = path.join(folder, path.basename(target));
    await build({
      entryPoints: [source],
      outfile,
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      // CommonJS dependencies (pino) call require.
      banner: { js: "import { createRequire as r } from 'node:module';\nconst require = r(import.meta.url);" },
      logLevel: 'warning',
    });
    await machine.copyTo(outfile, target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
