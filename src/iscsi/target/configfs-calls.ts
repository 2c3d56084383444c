/** The reads and changes that LIO's configfs tree knows. "Already so" (a folder that exists, one that is gone) is accepted. */
import type { FileStat } from '../../system/files.ts';
import type { Mutation, Query } from './configfs.ts';

/** The attribute without the newline that the kernel adds; undefined only when there is none (older kernel, object gone). */
export function attribute(path: string): Query<string | undefined> {
  return {
    call: { operation: 'readText', path, accept: ['ENOENT'] },
    meaning: (answer) => {
      if (answer.code !== undefined) return undefined;
      const text = answer.value as string;
      return text.endsWith('\n') ? text.slice(0, -1) : text;
    },
  };
}

/** undefined when the folder does not exist. */
export function folderIfPresent(path: string): Query<string[] | undefined> {
  return {
    call: { operation: 'readdir', path, accept: ['ENOENT'] },
    meaning: (answer) => (answer.code === undefined ? (answer.value as string[]) : undefined),
  };
}

/** [] when the folder does not exist. */
export function folder(path: string): Query<string[]> {
  const { call, meaning } = folderIfPresent(path);
  return { call, meaning: (answer) => meaning(answer) ?? [] };
}

/** Where a link leads; undefined when it is no link or has gone. */
export function linkTarget(path: string): Query<string | undefined> {
  return {
    call: { operation: 'readlink', path, accept: ['ENOENT', 'EINVAL'] },
    meaning: (answer) => (answer.code === undefined ? (answer.value as string) : undefined),
  };
}

/** As Files.stat: undefined when there is nothing. */
export function node(path: string): Query<FileStat | undefined> {
  return {
    call: { operation: 'stat', path },
    meaning: (answer) => (answer.code === undefined ? (answer.value as FileStat | undefined) : undefined),
  };
}

export function write(step: string, path: string, text: string): Mutation {
  return { step, call: { operation: 'writeAttribute', path, text } };
}

/** Not on every kernel. */
export function writeIfPresent(step: string, path: string, text: string): Mutation {
  return { step, call: { operation: 'writeAttribute', path, text, accept: ['ENOENT'] } };
}

export function makeFolder(step: string, path: string): Mutation {
  return { step, call: { operation: 'mkdir', path, accept: ['EEXIST'] } };
}

export function removeFolder(step: string, path: string): Mutation {
  return { step, call: { operation: 'rmdir', path, accept: ['ENOENT'] } };
}

export function makeLink(step: string, target: string, path: string): Mutation {
  return { step, call: { operation: 'symlink', path, target } };
}

export function removeLink(step: string, path: string): Mutation {
  return { step, call: { operation: 'unlink', path, accept: ['ENOENT'] } };
}

/** A write for each value that is there and differs. */
export async function differences(
  fs: { askAll<T>(queries: readonly Query<T>[]): Promise<T[]> },
  wanted: readonly { readonly path: string; readonly text: string; readonly step: string }[],
): Promise<Mutation[]> {
  const found = await fs.askAll(wanted.map(({ path }) => attribute(path)));
  return wanted
    .filter(({ text }, index) => found[index] !== undefined && found[index] !== text)
    .map(({ step, path, text }) => write(step, path, text));
}
