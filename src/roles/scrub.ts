/** `lvm-iscsi-csi scrub`: zeroes the free extents of the volume group once and records it in a VG tag (why: src/lvm/scrub.ts). */
import type { ScrubFlags } from '../command-line.ts';
import type { Config } from '../config/types.ts';
import { scrub } from '../lvm/scrub.ts';
import { LvmError } from '../lvm/types.ts';
import { formatBytes } from '../volumes/sizes.ts';
import type { RoleDependencies } from './role.ts';
import { storageHost } from './storage.ts';
import { keepUdevRules } from './udev-rules.ts';

const REPORT_EVERY_MS = 2_000;

/** Answers the exit code. Progress goes to stderr, for people. */
export async function runScrub(
  config: Extract<Config, { role: 'controller' }>,
  dependencies: RoleDependencies,
  { again }: ScrubFlags,
): Promise<number> {
  const host = storageHost(config, dependencies);
  const say = (text: string) => process.stderr.write(`scrub of ${config.controller.volumeGroup}: ${text}\n`);
  let lastMs = 0;
  // Free space holds what tenants have written, and perhaps no controller has run here yet.
  await keepUdevRules({ ...dependencies, hostRoot: config.hostRoot, vgName: config.controller.volumeGroup });
  try {
    // No rate limit: an administrator asked for it and waits.
    const { alreadyDone, scrubbedBytes } = await scrub({
      lvm: host.lvm,
      commands: dependencies.commands,
      isOurs: host.isOurs,
      again,
      signal: dependencies.stopping,
      onProgress: ({ doneBytes, totalBytes, etaSeconds }) => {
        const now = performance.now();
        if (now - lastMs < REPORT_EVERY_MS && doneBytes < totalBytes) return;
        lastMs = now;
        const left = etaSeconds === undefined || doneBytes === totalBytes ? '' : `, about ${etaSeconds} s left`;
        say(`${formatBytes(doneBytes)} of ${formatBytes(totalBytes)} zeroed${left}`);
      },
    });
    say(
      alreadyDone
        ? 'free extents are known to be blank already; --again zeroes them all the same'
        : `done, ${formatBytes(scrubbedBytes)} are blank now`,
    );
    return 0;
  } catch (error) {
    if (dependencies.stopping.aborted) {
      say('interrupted; it holds the free space of the volume group until it is run again and has finished');
      return 130;
    }
    if (!(error instanceof LvmError)) throw error;
    say(`failed: ${error.message}`);
    return 1;
  }
}
