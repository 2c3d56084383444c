/** csi-sanity itself: built once from its Go module into the user's cache folder. */
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { cacheFolder, exists } from '../lab/cache.ts';

export const VERSION = 'v5.5.0';
const PACKAGE = `github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@${VERSION}`;
const BUILD_TIMEOUT_MS = 900_000;

/**
 * @returns path of the program
 * @throws Error with what to install when it cannot be built
 */
export async function csiSanity(): Promise<string> {
  const folder = path.join(cacheFolder(), 'csi-sanity');
  const program = path.join(folder, `csi-sanity-${VERSION}-${process.arch}`);
  if (await exists(program)) return program;
  await mkdir(folder, { recursive: true });
  // Built aside and renamed: a build that was interrupted, or one beside us, is never taken for the program.
  const scratch = await mkdtemp(path.join(folder, 'build-'));
  try {
    console.log(`building csi-sanity ${VERSION} (once, about a minute) …`);
    const result = await execa('go', ['install', PACKAGE], {
      cwd: scratch,
      env: { GOBIN: scratch, GOFLAGS: '', CGO_ENABLED: '0' },
      reject: false,
      timeout: BUILD_TIMEOUT_MS,
    });
    if (result.exitCode !== 0) {
      throw new Error(
        `csi-sanity cannot be built: "go install ${PACKAGE}" failed\n${result.stderr ?? result.message ?? ''}\n` +
          'needed: Go 1.25 or newer in PATH, and a Go module proxy (go env GOPROXY)',
      );
    }
    await rename(path.join(scratch, 'csi-sanity'), program);
    return program;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
