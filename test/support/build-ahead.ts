/** The Go programs of `npm test`, built before they are needed and at the lowest priority; see test/run.ts. */
import { writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { csiSanity } from '../sanity/tool.ts';
import { helm } from './helm.ts';

process.stdin.resume().once('close', () => process.kill(-process.pid, 'SIGKILL'));
setPriority(19);
try {
  // Where the kernel shares processors between sessions first, a process's own priority counts only inside its own.
  writeFileSync('/proc/self/autogroup', '19');
} catch {
  // A kernel without it goes by the process's priority.
}
await helm();
await csiSanity();
process.exit(0);
