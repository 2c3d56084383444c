import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { LabError } from './errors.ts';

/** Where everything that may be kept between runs lives; safe to delete whenever no lab is up. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  // The XDG specification says that a relative path is to be ignored.
  const configured = env['XDG_CACHE_HOME'];
  const base = configured && path.isAbsolute(configured) ? configured : path.join(homedir(), '.cache');
  return path.join(base, 'lvm-iscsi-csi');
}

/**
 * A short name for what something is made from: 16 hex digits of SHA-256 over the value's JSON with sorted keys, so that
 * the order in which an object was written changes nothing.
 */
export function contentHash(value: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify(sortKeys(value)))
    .digest('hex')
    .slice(0, 16);
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, field]) => field !== undefined)
      .sort(([left], [right]) => (left < right ? -1 : 1))
      .map(([key, field]) => [key, sortKeys(field)]),
  );
}

export async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/**
 * Runs `work` while holding an exclusive lock between processes. The lock belongs to a helper process that ends with
 * ours, however ours ends, so that a killed build never leaves a lock behind.
 *
 * @param onWait called once when another process holds the lock
 */
export async function withLock<T>(lockFile: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  await mkdir(path.dirname(lockFile), { recursive: true });
  const holder = spawn('flock', ['--exclusive', lockFile, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    // Ctrl-C must not take the lock away while the caller still cleans up.
    detached: true,
  });
  const waiting = onWait && setTimeout(onWait, 1000);
  try {
    await firstOutput(holder, `flock ${lockFile}`);
  } finally {
    clearTimeout(waiting);
  }
  try {
    return await work();
  } finally {
    const ended = new Promise((resolve) => holder.once('close', resolve));
    holder.stdin?.end();
    await ended;
  }
}

function firstOutput(child: ChildProcess, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new LabError(`cannot run ${what}`, { cause })));
    child.once('exit', (code) => reject(new LabError(`${what} ended with ${code}`)));
    child.stdout?.once('data', () => resolve());
  });
}

/** What a killed build left behind. Whoever holds the folder's lock is the only one that builds it. */
async function removeLeftovers(folder: string): Promise<void> {
  const parent = path.dirname(folder);
  for (const name of await readdir(parent)) {
    if (name.startsWith(`${path.basename(folder)}.building-`)) {
      await rm(path.join(parent, name), { recursive: true, force: true });
    }
  }
}

const UNUSED_MS = 14 * 24 * 60 * 60 * 1000;

/** Marks a cached folder as used now, and removes those beside it that nobody has used for two weeks. */
export async function touchAndPrune(folder: string): Promise<void> {
  const now = new Date();
  await utimes(folder, now, now);
  const parent = path.dirname(folder);
  for (const entry of await readdir(parent, { withFileTypes: true })) {
    const other = path.join(parent, entry.name);
    const used = entry.isDirectory() ? (await stat(other).catch(() => undefined))?.mtimeMs : undefined;
    if (used !== undefined && now.getTime() - used > UNUSED_MS) await rm(other, { recursive: true, force: true });
  }
}

/**
 * Makes a folder once, for every process: `build` fills a temporary folder, which is renamed into place only when it is
 * complete. What is in place is therefore always whole, and a killed build is simply made again.
 */
export async function buildOnce(
  folder: string,
  build: (temporaryFolder: string) => Promise<void>,
  onWait?: () => void,
): Promise<string> {
  if (await exists(folder)) return folder;
  return withLock(
    `${folder}.lock`,
    async () => {
      if (await exists(folder)) return folder;
      await removeLeftovers(folder);
      const temporary = `${folder}.building-${randomUUID().slice(0, 8)}`;
      await mkdir(temporary, { recursive: true });
      try {
        await build(temporary);
        await rename(temporary, folder);
      } finally {
        await rm(temporary, { recursive: true, force: true });
      }
      return folder;
    },
    onWait,
  );
}
