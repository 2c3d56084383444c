/** Container images without a registry: one static program in each, as an archive that containerd imports. */
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { parse } from 'yaml';
import { buildOnce, cacheFolder, contentHash, touchAndPrune } from '../lab/cache.ts';
import { run } from '../lab/image.ts';
import { DEBIAN_SUITE } from '../lab/image-files.ts';
import type { Progress } from '../lab/progress.ts';
import { CHART } from '../support/helm.ts';
import { layerOf, type RunConfig, tar, writeArchive } from './archive.ts';
import type { Programs } from './programs.ts';

/** Bump when images are put together in another manner. */
const RECIPE = 2;

export const PAUSE_IMAGE = 'lab.test/pause:1';
/** What test pods run, and what deploy/examples calls `busybox:1.37`: here with the busybox that Debian has. */
export const POD_IMAGE = 'docker.io/library/busybox:1.37';

export interface ClusterImages {
  /** archives that every host needs */
  readonly everywhere: readonly string[];
  /** archives that only the host with the controller's pod needs */
  readonly controller: readonly string[];
  /** Stands for the content of all of them. */
  readonly key: string;
}

interface ProgramImage {
  readonly name: string;
  readonly program: string;
  readonly everywhere: boolean;
}

/** Images of the sidecars under the names that the chart gives them, of pods' first process, and of test pods. */
export async function ensureClusterImages(programs: Programs, progress: Progress): Promise<ClusterImages> {
  const chart = parse(await readFile(path.join(CHART, 'values.yaml'), 'utf8')) as ChartValues;
  const sidecar = (name: keyof ChartValues['sidecars']): string => {
    const { repository, tag } = chart.sidecars[name].image;
    return `${repository}:${tag}`;
  };
  const images: readonly ProgramImage[] = [
    { name: PAUSE_IMAGE, program: 'pause', everywhere: true },
    { name: sidecar('registrar'), program: 'registrar', everywhere: true },
    { name: sidecar('livenessprobe'), program: 'livenessprobe', everywhere: true },
    { name: sidecar('provisioner'), program: 'csi-provisioner', everywhere: false },
    { name: sidecar('attacher'), program: 'csi-attacher', everywhere: false },
    { name: sidecar('resizer'), program: 'csi-resizer', everywhere: false },
  ];
  const key = contentHash({ RECIPE, images, programs: path.basename(programs.folders.sidecars), POD_IMAGE });
  const folder = await buildOnce(path.join(cacheFolder(), 'cluster-images', key), (temporary) =>
    progress.step('making the images of sidecars and test pods', async () => {
      for (const image of images) {
        const program = path.join(programs.folders.sidecars, image.program);
        const entryPoint = [`/${image.program}`];
        const root = async (folder: string): Promise<void> => {
          await copyFile(program, path.join(folder, image.program));
        };
        await imageArchive(image.name, { Entrypoint: entryPoint }, root, path.join(temporary, `${image.program}.tar`));
      }
      await imageArchive(POD_IMAGE, { Cmd: ['sh'], Env: ['PATH=/bin'] }, busybox, path.join(temporary, 'pod.tar'));
    }),
  );
  await touchAndPrune(folder);
  const archives = (everywhere: boolean): string[] =>
    images.filter((image) => image.everywhere === everywhere).map(({ program }) => path.join(folder, `${program}.tar`));
  return { everywhere: [...archives(true), path.join(folder, 'pod.tar')], controller: archives(false), key };
}

/** busybox of Debian's static package, under the name of each of its commands. */
async function busybox(root: string): Promise<void> {
  const mirror = process.env['LAB_MIRROR'];
  const unpacked = `${root}.tar`;
  const options = ['--variant=extract', '--include=busybox-static', DEBIAN_SUITE, unpacked];
  await run('mmdebstrap', [
    `--mode=${process.getuid?.() === 0 ? 'root' : 'unshare'}`,
    ...options,
    ...(mirror ? [mirror] : []),
  ]);
  await run('tar', ['-C', root, '--no-same-owner', '-xf', unpacked, './bin/busybox']);
  await rm(unpacked);
  const program = path.join(root, 'bin/busybox');
  const { stdout } = await execa(program, ['--list']);
  for (const command of stdout.split('\n')) {
    if (command !== 'busybox') await symlink('busybox', path.join(root, 'bin', command));
  }
}

interface ChartValues {
  readonly sidecars: Readonly<
    Record<
      'provisioner' | 'attacher' | 'resizer' | 'registrar' | 'livenessprobe',
      { readonly image: { readonly repository: string; readonly tag: string } }
    >
  >;
}

/** An image of one layer. @param fill puts everything into the folder that becomes its root */
async function imageArchive(
  name: string,
  config: RunConfig,
  fill: (root: string) => Promise<void>,
  archive: string,
): Promise<void> {
  const scratch = await mkdtemp(`${archive}-`);
  try {
    const root = path.join(scratch, 'root');
    for (const each of [root, path.join(root, 'tmp')]) await mkdir(each);
    await fill(root);
    const layer = path.join(scratch, 'layer.tar');
    await tar(root, layer);
    await writeArchive(archive, name, config, [await layerOf(layer)], scratch);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}
