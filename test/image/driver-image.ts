/** The driver's image, built from the repository's own Dockerfile as it is, without any container registry. */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { buildOnce, contentHash, touchAndPrune } from '../lab/cache.ts';
import type { Progress } from '../lab/progress.ts';
import { ensureBaseImages } from './base-images.ts';
import { type Buildah, imagesFolder } from './buildah.ts';

export const ROOT = path.join(import.meta.dirname, '../..');
/** Any time will do, as long as it is always the same. */
const TIMESTAMP = '1735689600';

export interface DriverImage {
  readonly buildah: Buildah;
  /** `docker-archive` with the image under `name`: `ctr --namespace k8s.io images import FILE` loads it */
  readonly archive: string;
  /** the chart's name for it */
  readonly name: string;
  /** what it was told to put into its labels */
  readonly buildArguments: Readonly<Record<string, string>>;
}

/** From the cache or built now; the same as long as nothing changes of what the Dockerfile is given. */
export async function ensureDriverImage(progress: Progress): Promise<DriverImage> {
  const { buildah, hash: baseHash } = await ensureBaseImages(progress);
  const hash = contentHash({ baseHash, TIMESTAMP, context: await contextFiles() });
  const { version } = JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const name = `ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:${version}`;
  // No commit: one that changes nothing in the image would be built again all the same.
  const buildArguments = { VERSION: version, REVISION: hash, SOURCE: 'https://example.org/lvm-iscsi-csi' };
  const archives = path.join(imagesFolder(), 'archives');
  const folder = await buildOnce(
    path.join(archives, hash),
    (temporary) =>
      progress.step('building the driver image', async () => {
        await buildDockerfile(buildah, buildArguments, [`--tag=${name}`]);
        await buildah.run('push', name, `docker-archive:${temporary}/image.tar:${name}`);
      }),
    () => progress.line('waiting for another process that builds the driver image'),
  );
  await touchAndPrune(folder);
  return { buildah, archive: path.join(folder, 'image.tar'), name, buildArguments };
}

export async function buildDockerfile(
  buildah: Buildah,
  buildArguments: Readonly<Record<string, string>>,
  options: readonly string[],
): Promise<void> {
  await buildah.build(ROOT, [
    `--file=${ROOT}/Dockerfile`,
    // buildah does not look for it beside a Dockerfile that is named.
    `--ignorefile=${ROOT}/.dockerignore`,
    `--timestamp=${TIMESTAMP}`,
    ...Object.entries(buildArguments).map(([key, value]) => `--build-arg=${key}=${value}`),
    ...options,
  ]);
}

/** Every file that a build sees, with its content: those that .dockerignore lets in, and the Dockerfile. */
async function contextFiles(): Promise<Record<string, string>> {
  const ignore = await readFile(path.join(ROOT, '.dockerignore'), 'utf8');
  const allowed = ignore.split('\n').flatMap((line) => (line.startsWith('!') ? [line.slice(1)] : []));
  const files: Record<string, string> = {};
  for (const entry of ['Dockerfile', ...allowed]) {
    const inside = (await stat(path.join(ROOT, entry))).isDirectory()
      ? (await readdir(path.join(ROOT, entry), { recursive: true, withFileTypes: true })).flatMap((file) =>
          file.isFile() ? [path.join(path.relative(ROOT, file.parentPath), file.name)] : [],
        )
      : [entry];
    for (const file of inside) files[file] = await readFile(path.join(ROOT, file), 'utf8');
  }
  return files;
}
