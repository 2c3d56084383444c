/**
 * csi-sanity runs on this machine and the node plugin on another: the folders that a client of CSI makes, removes and
 * looks at are made, removed and looked at there, by small programs that csi-sanity calls with the path.
 */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

export interface PathCommands {
  readonly create: string;
  readonly remove: string;
  readonly check: string;
}

/** Each prints what csi-sanity expects; the path is $1. An ssh that fails exits non-zero and is never "not_found". */
const REMOTE = {
  create: 'mkdir -p -- "$1" && printf %s "$1"',
  // csi-sanity's own removal fails, too, when something is left in the folder.
  remove: 'if [ -d "$1" ]; then rmdir -- "$1"; fi',
  check:
    'if [ -L "$1" ]; then echo other; elif [ -f "$1" ]; then echo file; elif [ -d "$1" ]; then echo directory; ' +
    'elif [ -e "$1" ]; then echo other; else echo not_found; fi',
} as const;

/** @param ssh arguments of the ssh program up to and with the host */
export async function writePathCommands(folder: string, ssh: readonly string[]): Promise<PathCommands> {
  const write = async (name: keyof typeof REMOTE): Promise<string> => {
    const file = path.join(folder, `${name}-path`);
    // Quoted twice: ssh hands one string to the remote shell.
    const script = `#!/bin/bash\nexec ${['ssh', ...ssh].map(quote).join(' ')} "sh -c $(printf %q ${quote(REMOTE[name])}) sh $(printf %q "$1")"\n`;
    await writeFile(file, script, { mode: 0o700 });
    return file;
  };
  return { create: await write('create'), remove: await write('remove'), check: await write('check') };
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
