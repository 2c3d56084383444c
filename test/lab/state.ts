import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { cacheFolder, exists, withLock } from './cache.ts';
import type { DiskSpec } from './disk.ts';
import { LabError } from './errors.ts';
import type { Image } from './image.ts';
import type { ReadyState } from './machine.ts';
import { type Hardware, shellQuote } from './qemu-arguments.ts';

/** What another process needs to use a lab that is up; kept in its folder as state.json. */
export interface LabState {
  readonly name: string;
  readonly keeperPid: number;
  readonly keeperStartTime: string;
  readonly socketFolder: string;
  readonly image: Image;
  readonly machines: ReadonlyArray<{ hardware: Hardware; disks: readonly DiskSpec[]; ready: ReadyState }>;
}

export function labsFolder(): string {
  return path.join(cacheFolder(), 'labs');
}

export function labFolder(name: string): string {
  if (!/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) {
    throw new LabError(`lab name "${name}": small letters, digits and "-", at most 32`);
  }
  return path.join(labsFolder(), name);
}

/** Held by a lab's keeper as long as it lives. Beside the folder, so that it stays when the folder goes. */
export function labLock(name: string): string {
  return path.join(labsFolder(), `${name}.lock`);
}

/** Socket paths may have 107 characters only, so sockets are not kept in the cache. */
export function labSocketFolder(name: string): string {
  const runtime = process.env['XDG_RUNTIME_DIR'];
  const base = runtime && path.isAbsolute(runtime) && runtime.length < 40 ? runtime : tmpdir();
  return path.join(base, `lvm-iscsi-lab-${userInfo().uid}`, name);
}

export async function writeState(state: LabState): Promise<void> {
  const file = path.join(labFolder(state.name), 'state.json');
  await writeFile(`${file}.new`, `${JSON.stringify(state, undefined, 2)}\n`);
  await rename(`${file}.new`, file);
}

/** @throws LabError when there is no such lab */
export async function readState(name: string): Promise<LabState> {
  const text = await readFile(path.join(labFolder(name), 'state.json'), 'utf8').catch(() => undefined);
  if (text === undefined) throw new LabError(`no lab "${name}" is up (npm run lab -- up)`);
  return JSON.parse(text) as LabState;
}

/** Asks for a lab's lock: shared, so that those who ask are not taken for a keeper by one another. */
const PROBE = ['--shared', '--nonblock'];

async function isUp(name: string): Promise<boolean> {
  const probe = await execa('flock', [...PROBE, labLock(name), 'true'], { reject: false });
  return probe.exitCode !== 0;
}

/** Names of the labs that are up, sorted. */
export async function labsUp(): Promise<string[]> {
  const entries = await readdir(labsFolder(), { withFileTypes: true }).catch(() => []);
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const up = await Promise.all(names.map(isUp));
  return names.filter((_, index) => up[index]).sort();
}

function sweepLock(): string {
  return path.join(labsFolder(), '.sweep.lock');
}

/** Removes the folders of labs whose keeper was killed. Their processes ended with it; files have no such luck. */
export async function sweep(): Promise<void> {
  await mkdir(labsFolder(), { recursive: true });
  // A lab that is just being made has a folder and no keeper yet.
  await withLock(sweepLock(), async () => {
    const up = new Set(await labsUp());
    for (const entry of await readdir(labsFolder(), { withFileTypes: true })) {
      if (entry.isDirectory() && !up.has(entry.name)) await removeFolders(entry.name);
    }
  });
}

/** sh that removes a lab's files unless a lab of that name is up: for after its keeper, when its maker is dead too. */
export function sweepingScript(name: string): string {
  const folders = [labFolder(name), labSocketFolder(name)].map(shellQuote).join(' ');
  const lock = shellQuote(labLock(name));
  // The lab's lock is not held meanwhile, for the lab would seem to be up: as long as nobody else sweeps, none is made.
  const remove = `flock ${PROBE.join(' ')} ${lock} true && rm -rf ${folders} ${lock}`;
  return `flock ${shellQuote(sweepLock())} sh -c ${shellQuote(remove)}`;
}

/** Runs `work`, which makes folders and keeper of a lab, while nobody sweeps. */
export async function withoutSweeping<T>(work: () => Promise<T>): Promise<T> {
  return withLock(sweepLock(), work);
}

export async function makeFolders(name: string): Promise<void> {
  await mkdir(labFolder(name), { recursive: true });
  await mkdir(labSocketFolder(name), { recursive: true, mode: 0o700 });
}

export async function removeFolders(name: string): Promise<void> {
  await rm(labFolder(name), { recursive: true, force: true });
  await rm(labSocketFolder(name), { recursive: true, force: true });
  if (await exists(labLock(name))) await rm(labLock(name), { force: true });
}
