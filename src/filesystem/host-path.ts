/**
 * Paths that the container orchestrator gives are paths on the host, and may lead through symlinks (a kubelet folder on
 * another disk). The mount table names only resolved paths, and under a prefix such as /proc/1/root an absolute symlink
 * would lead into the driver's own root: so links are resolved here, each against the host's root.
 */
import { posix } from 'node:path';
import type { Files } from '../system/files.ts';

/** As the kernel's own limit (path_lookup, MAXSYMLINKS). */
const MAX_LINKS = 40;

/**
 * The path as the mount table would name it: every symlink of its parent folder resolved, the last component taken as
 * it is (it may be a mount point whose device is dead: looking at it could block or fail). Parts that do not exist stay
 * as given.
 */
export async function resolveHostPath(files: Files, hostRoot: string, path: string): Promise<string> {
  const normal = posix.normalize(path).replace(/(?<=.)\/$/, '');
  if (!posix.isAbsolute(normal)) throw new Error(`path "${path}" is not absolute`);
  if (normal === '/') return normal;
  const parent = await resolveFolder(files, hostRoot, posix.dirname(normal));
  return posix.join(parent, posix.basename(normal));
}

/**
 * As resolveHostPath, of a path that is no mount point: the last component's symlink is followed too. For the driver's
 * own folder and open-iscsi's files, which an administrator, or the distribution, may keep elsewhere.
 */
export async function followHostPath(files: Files, hostRoot: string, path: string): Promise<string> {
  // Our own root: the kernel does it.
  return hostRoot === '' ? path : await resolveFolder(files, hostRoot, path);
}

async function resolveFolder(files: Files, hostRoot: string, folder: string): Promise<string> {
  let resolved = '/';
  const pending = folder.split('/').filter((part) => part !== '');
  for (let links = 0; ; ) {
    const part = pending.shift();
    if (part === undefined) return resolved;
    if (part === '..') {
      resolved = posix.dirname(resolved);
      continue;
    }
    const next = posix.join(resolved, part);
    const stat = await files.lstat(`${hostRoot}${next}`);
    if (stat === undefined) return posix.join(next, ...pending);
    if (stat.kind !== 'symlink') {
      resolved = next;
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new Error(`path "${folder}" has more than ${MAX_LINKS} symlinks`);
    const target = await files.readlink(`${hostRoot}${next}`);
    if (posix.isAbsolute(target)) resolved = '/';
    pending.unshift(...target.split('/').filter((item) => item !== '' && item !== '.'));
  }
}
