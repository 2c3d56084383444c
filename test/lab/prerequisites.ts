import { constants } from 'node:fs';
import { access, readFile, statfs } from 'node:fs/promises';
import { ExecaError, execa } from 'execa';
import { withLock } from './cache.ts';
import { LabError } from './errors.ts';
import type { Progress } from './progress.ts';

/** What somebody runs, and the Debian package that brings it. */
export interface Needs {
  /** for the message, as "the lab" */
  readonly who: string;
  readonly programs: Readonly<Record<string, string>>;
  /** Files of packages without a program of their own. */
  readonly files: Readonly<Record<string, string>>;
}

const LAB_PROGRAMS: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  mmdebstrap: 'mmdebstrap',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  nbdkit: 'nbdkit',
  ip: 'iproute2',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  flock: 'util-linux',
  'mkfs.ext4': 'e2fsprogs',
};

/** Without root, mmdebstrap maps the user's sub-uids with these. */
const ROOTLESS_PROGRAMS: Readonly<Record<string, string>> = { newuidmap: 'uidmap' };

/** mmdebstrap recommends it, and trusts no mirror without it. */
export const DEBIAN_KEYS: Readonly<Record<string, string>> = {
  '/usr/share/keyrings/debian-archive-keyring.gpg': 'debian-archive-keyring',
};

const LAB: Needs = {
  who: 'the lab',
  programs: process.getuid?.() === 0 ? LAB_PROGRAMS : { ...LAB_PROGRAMS, ...ROOTLESS_PROGRAMS },
  files: DEBIAN_KEYS,
};

/**
 * Installs what is missing when we are root on a machine with apt; elsewhere throws a LabError that names the packages.
 */
export async function ensurePrograms(lockFile: string, progress: Progress, needs: Needs = LAB): Promise<void> {
  if ((await missingPackages(needs)).length === 0) return;
  await withLock(lockFile, async () => {
    const packages = await missingPackages(needs);
    if (packages.length === 0) return;
    const list = packages.join(' ');
    const hasApt = (await execa('sh', ['-c', 'command -v apt-get'], { reject: false })).exitCode === 0;
    if (process.getuid?.() !== 0 || !hasApt) {
      throw new LabError(
        `${needs.who} needs these Debian packages: ${list}. Install them: sudo apt-get install ${list}`,
      );
    }
    await progress.step(`installing ${list}`, async () => {
      const env = { DEBIAN_FRONTEND: 'noninteractive' };
      try {
        await execa('apt-get', ['update', '-qq'], { env });
        await execa('apt-get', ['install', '-qq', '-y', '--no-install-recommends', ...packages], { env });
      } catch (cause) {
        const said = cause instanceof ExecaError ? cause.stderr : String(cause);
        throw new LabError(
          `${needs.who} needs these Debian packages, and apt-get cannot install them: ${list}\n${said}\n` +
            'is there a way to a Debian mirror? Then try again, or install them by hand',
          { cause },
        );
      }
    });
    const still = await missingPackages(needs);
    if (still.length > 0)
      throw new LabError(`apt-get install ended well, yet this is still missing: ${still.join(' ')}`);
  });
}

async function missingPackages({ programs, files }: Needs): Promise<string[]> {
  // One shell for all of them: sbin is not in every user's PATH, although the programs work from there.
  const script = [
    'PATH=$PATH:/usr/sbin:/sbin',
    ...Object.entries(programs).map(([program, pkg]) => `command -v ${program} >/dev/null || echo ${pkg}`),
    ...Object.entries(files).map(([file, pkg]) => `[ -e ${file} ] || echo ${pkg}`),
  ].join('\n');
  const { stdout } = await execa('sh', ['-c', script]);
  return [...new Set(stdout.split('\n').filter(Boolean))];
}

/** @throws LabError when we may not make the taps that join machines to the lab's network */
export async function ensureTaps(): Promise<void> {
  try {
    await access('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch (cause) {
    throw new LabError(
      `the lab's network needs /dev/net/tun (${(cause as Error).message}): run as root, load the kernel's tun module ` +
        'or allow this user to open it',
      { cause },
    );
  }
}

/** QEMU's own needs beside the guest's memory: code cache, device state, nbdkit. */
const OVERHEAD_MIB = 160;

/**
 * @param machinesMib memory of each machine, MiB
 * @throws LabError when the machines would not fit into the memory that is available now
 */
export async function ensureMemory(machinesMib: readonly number[]): Promise<void> {
  const neededMib = machinesMib.reduce((sum, mib) => sum + mib + OVERHEAD_MIB, 0);
  const availableMib = parseMemAvailableMib(await readFile('/proc/meminfo', 'utf8'));
  if (availableMib === undefined || neededMib <= availableMib) return;
  throw new LabError(
    `${machinesMib.length} machines need ${neededMib} MiB of memory, ${availableMib} MiB are available: ` +
      'start fewer nodes, give them less memory, or end another lab (npm run lab -- status)',
  );
}

/** @returns MiB, or undefined when the kernel does not say */
export function parseMemAvailableMib(meminfo: string): number | undefined {
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1];
  return kib === undefined ? undefined : Math.floor(Number(kib) / 1024);
}

/** @throws LabError when the folder's file system has less than `neededMib` MiB to give */
export async function ensureDiskSpace(folder: string, neededMib: number, purpose: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const freeMib = Math.floor((bavail * bsize) / 1024 / 1024);
  if (freeMib >= neededMib) return;
  throw new LabError(
    `${purpose} needs ${neededMib} MiB in ${folder}, ${freeMib} MiB are free: ` +
      'make room, or point XDG_CACHE_HOME at a larger disk',
  );
}
