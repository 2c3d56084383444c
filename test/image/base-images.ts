/**
 * The images that the Dockerfile begins with, under the names that it uses, made here from Debian's packages and from
 * Node and npm as npm's registry has them: what a build takes from a container registry otherwise.
 *
 * They are as near to the originals as the Dockerfile can tell: Debian's minimal system without documentation, and the
 * same with node, npm and node's licence in /usr/local.
 */
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { contentHash, touchAndPrune, withLock } from '../lab/cache.ts';
import { nodeBinary, run } from '../lab/image.ts';
import { DEBIAN_SUITE } from '../lab/image-files.ts';
import type { Progress } from '../lab/progress.ts';
import { Buildah, imagesFolder } from './buildah.ts';

/** Bump when the images are put together in another manner. */
const RECIPE = 1;
/** Of the kind that comes with Node 24. */
const NPM_VERSION = '11.21.2';
/** As Debian's own slim images: licences stay. */
const DPKG_OPTIONS = [
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/locale/*',
  // Packages need not survive a power cut of the build.
  'force-unsafe-io',
];

/** Merges /usr from the start: mmdebstrap would take usrmerge for it, and with that all of perl. */
const HOOKS = '/usr/share/mmdebstrap/hooks/merged-usr';

export interface BaseImages {
  readonly buildah: Buildah;
  /** of all that the images are made from */
  readonly hash: string;
}

/** The storage with both images, made now where they are missing (about two minutes, a Debian mirror and npm's registry). */
export async function ensureBaseImages(progress: Progress): Promise<BaseImages> {
  const node = await nodeBinary();
  // A machine whose way to npm's registry needs a certificate of its own says so to Node like this.
  const certificates = process.env['NODE_EXTRA_CA_CERTS'];
  const extraCertificates = certificates === undefined ? '' : await readFile(certificates, 'utf8');
  const hash = contentHash({
    RECIPE,
    DEBIAN_SUITE,
    DPKG_OPTIONS,
    HOOKS,
    NPM_VERSION,
    node: node.version,
    extraCertificates,
  });
  const storage = path.join(imagesFolder(), 'storage', hash);
  const buildah = await Buildah.open(storage, progress);
  const debian = `docker.io/library/debian:${DEBIAN_SUITE}-slim`;
  const withNode = `docker.io/library/node:${node.version}-${DEBIAN_SUITE}-slim`;
  await withLock(`${storage}.lock`, async () => {
    const scratch = await mkdtemp(path.join(imagesFolder(), 'base-'));
    try {
      if (!(await buildah.hasImage(debian))) {
        await progress.step(`making ${debian}`, () => makeDebian(buildah, debian, scratch));
      }
      if (!(await buildah.hasImage(withNode))) {
        await progress.step(`making ${withNode}`, () =>
          makeNode(buildah, withNode, debian, path.join(scratch, 'node'), node.file, extraCertificates),
        );
      }
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
  await touchAndPrune(storage);
  return { buildah, hash };
}

async function makeDebian(buildah: Buildah, name: string, scratch: string): Promise<void> {
  const mirror = process.env['LAB_MIRROR'];
  await run('mmdebstrap', [
    '--mode=root',
    '--variant=minbase',
    `--hook-dir=${HOOKS}`,
    ...DPKG_OPTIONS.map((option) => `--dpkgopt=${option}`),
    // What every build installs is as new as the mirror's, so that lists from here would only be in the way.
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/*',
    DEBIAN_SUITE,
    path.join(scratch, 'root.tar'),
    ...(mirror ? [mirror] : []),
  ]);
  await writeFile(path.join(scratch, 'Containerfile'), 'FROM scratch\nADD root.tar /\nCMD ["bash"]\n');
  await buildah.build(scratch, [`--tag=${name}`, '--file', path.join(scratch, 'Containerfile')]);
}

async function makeNode(
  buildah: Buildah,
  name: string,
  debian: string,
  folder: string,
  node: string,
  extraCertificates: string,
): Promise<void> {
  const modules = path.join(folder, 'local/lib/node_modules');
  const bin = path.join(folder, 'local/bin');
  for (const each of [modules, bin]) await mkdir(each, { recursive: true });
  await cp(node, path.join(bin, 'node'));
  await cp(path.join(path.dirname(node), '../LICENSE'), path.join(folder, 'local/LICENSE'));
  await execa('npm', ['pack', '--silent', '--pack-destination', folder, `npm@${NPM_VERSION}`]);
  await execa('tar', ['-C', modules, '--no-same-owner', '-xf', path.join(folder, `npm-${NPM_VERSION}.tgz`)]);
  await execa('mv', [path.join(modules, 'package'), path.join(modules, 'npm')]);
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', path.join(bin, 'npm'));
  await writeFile(path.join(folder, 'local/extra-certificates.pem'), extraCertificates);
  const containerfile = [
    `FROM ${debian}`,
    'COPY local /usr/local',
    ...(extraCertificates === '' ? [] : ['ENV NODE_EXTRA_CA_CERTS=/usr/local/extra-certificates.pem']),
    'CMD ["node"]',
  ];
  await writeFile(path.join(folder, 'Containerfile'), `${containerfile.join('\n')}\n`);
  await buildah.build(folder, [`--tag=${name}`, '--file', path.join(folder, 'Containerfile')]);
}
