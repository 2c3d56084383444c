/** Files that the driver keeps for programs of the host: units of systemd, rules of udev. */
import { posix } from 'node:path';
import type { Files } from './files.ts';
import { step } from './step.ts';

/**
 * Makes the file hold that text; one that does already is left alone. Replaced as a whole, so that nobody reads half of
 * it, also after a crash.
 * @param path as this process sees it, with the host's root before it
 * @param stepName of the write
 * @returns whether it was written
 */
export async function keepHostFile(files: Files, path: string, text: string, stepName: string): Promise<boolean> {
  if ((await readIfPresent(files, path)) === text) return false;
  await step(stepName, async () => {
    await files.mkdir(posix.dirname(path), { recursive: true });
    await files.writeDurably(path, text);
  });
  return true;
}

async function readIfPresent(files: Files, path: string): Promise<string | undefined> {
  try {
    return await files.readText(path);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
