/**
 * The driver's image in two archives: what changes only with Debian and Node, which a host of the cluster loads before
 * its state is saved, and the little on top that changes with each edit. 200 MB take an emulated host minutes.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { imagesFolder } from '../image/buildah.ts';
import { ensureDriverImage } from '../image/driver-image.ts';
import { buildOnce, contentHash, touchAndPrune } from '../lab/cache.ts';
import { LabError } from '../lab/errors.ts';
import type { Progress } from '../lab/progress.ts';
import { type Layer, layerOf, type RunConfig, writeArchive } from './archive.ts';

/** Bump when they are divided in another manner. */
const RECIPE = 1;

export interface DriverLayers {
  /** To be loaded first; the image in it is none to run. */
  readonly base: string;
  /** stands for the content of `base` */
  readonly baseKey: string;
  /** the rest, under the chart's name for the image */
  readonly driver: string;
  readonly name: string;
}

/** What containerd calls the image of a base. */
export const baseName = (baseKey: string): string => `lab.test/driver-base:${baseKey}`;

interface DockerManifest {
  readonly Config: string;
  readonly Layers: readonly string[];
}

interface DockerConfig {
  readonly config: RunConfig;
  readonly rootfs: { readonly diff_ids: readonly string[] };
}

/** From the cache or made now. */
export async function ensureDriverLayers(progress: Progress): Promise<DriverLayers> {
  const { archive, name } = await ensureDriverImage(progress);
  const [manifest] = (await member(archive, 'manifest.json')) as [DockerManifest];
  const folder = await buildOnce(
    path.join(imagesFolder(), 'layers', contentHash({ RECIPE, name, config: manifest.Config })),
    (temporary) => divide(archive, name, manifest, temporary),
  );
  await touchAndPrune(folder);
  const baseKey = await readFile(path.join(folder, 'base-key'), 'utf8');
  return { base: path.join(folder, 'base.tar'), baseKey, driver: path.join(folder, 'driver.tar'), name };
}

async function divide(archive: string, name: string, manifest: DockerManifest, folder: string): Promise<void> {
  const { config, rootfs } = (await member(archive, manifest.Config)) as DockerConfig;
  const scratch = path.join(folder, 'scratch');
  await mkdir(scratch);
  await execa('tar', ['-C', scratch, '-xf', archive, ...manifest.Layers]);
  const layers: Layer[] = [];
  for (const file of manifest.Layers) layers.push(await layerOf(path.join(scratch, file)));
  if (layers.some(({ digest }, index) => digest !== rootfs.diff_ids[index])) {
    throw new LabError(`${archive}: its layers are not those that ${manifest.Config} lists`);
  }
  // Node itself is the largest; what is above it is ours.
  const sizes = layers.map(({ size }) => size);
  const above = sizes.indexOf(Math.max(...sizes)) + 1;
  const base = layers.slice(0, above);
  const baseKey = contentHash({ RECIPE, base: base.map(({ digest }) => digest) });
  await writeArchive(path.join(folder, 'base.tar'), baseName(baseKey), {}, base, scratch);
  const known = base.map(({ digest, size }) => ({ digest, size }));
  await writeArchive(path.join(folder, 'driver.tar'), name, config, [...known, ...layers.slice(above)], scratch);
  await writeFile(path.join(folder, 'base-key'), baseKey);
  await rm(scratch, { recursive: true });
}

/** A JSON file of the archive. */
async function member(archive: string, name: string): Promise<unknown> {
  const { stdout } = await execa('tar', ['-xOf', archive, name]);
  return JSON.parse(stdout);
}
