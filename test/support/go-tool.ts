/** Programs of others that tests need, each built once from its Go module into the user's cache folder. */
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { cacheFolder, exists, withLock } from '../lab/cache.ts';

export interface GoTool {
  /** The program's name, which is the last part of the package's path. */
  readonly name: string;
  /** Package path without the version. */
  readonly package: string;
  readonly version: string;
  /** Lowest Go version that builds it, for the message. */
  readonly go: string;
  /** How long a build takes about, for whoever waits. */
  readonly duration: string;
}

/** On two slow cores; a build that is stopped here begins where it was, with what Go has cached. */
const BUILD_TIMEOUT_MS = 1_800_000;

/**
 * @returns path of the program
 * @throws Error with what to install when it cannot be built
 */
export async function goTool(tool: GoTool): Promise<string> {
  const folder = path.join(cacheFolder(), tool.name);
  const program = path.join(folder, `${tool.name}-${tool.version}-${process.arch}`);
  if (await exists(program)) return program;
  await mkdir(folder, { recursive: true });
  return withLock(
    `${program}.lock`,
    async () => {
      if (!(await exists(program))) await build(tool, folder, program);
      return program;
    },
    () => console.log(`waiting for another process that builds ${tool.name}`),
  );
}

async function build(tool: GoTool, folder: string, program: string): Promise<void> {
  const versioned = `${tool.package}@${tool.version}`;
  // Built aside and renamed: a build that was interrupted is never taken for the program.
  const prefix = `${path.basename(program)}.building-`;
  for (const left of await readdir(folder)) {
    if (left.startsWith(prefix)) await rm(path.join(folder, left), { recursive: true, force: true });
  }
  const scratch = await mkdtemp(path.join(folder, prefix));
  try {
    console.log(`building ${tool.name} ${tool.version} (once, about ${tool.duration}) …`);
    const result = await execa('go', ['install', versioned], {
      cwd: scratch,
      env: { GOBIN: scratch, GOFLAGS: '', CGO_ENABLED: '0' },
      reject: false,
      timeout: BUILD_TIMEOUT_MS,
    });
    if (result.exitCode !== 0) {
      throw new Error(
        `${tool.name} cannot be built: "go install ${versioned}" failed\n${result.stderr ?? result.message ?? ''}\n` +
          `needed: Go ${tool.go} or newer in PATH, and a Go module proxy (go env GOPROXY)`,
      );
    }
    await rename(path.join(scratch, tool.name), program);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
