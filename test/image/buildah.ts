/** buildah with a storage of its own: no daemon, no registry, and nothing under /var/lib/containers. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { cacheFolder } from '../lab/cache.ts';
import { LabError } from '../lab/errors.ts';
import { DEBIAN_KEYS, ensurePrograms, type Needs } from '../lab/prerequisites.ts';
import type { Progress } from '../lab/progress.ts';

const NEEDS: Needs = {
  who: 'building the image',
  programs: { buildah: 'buildah', mmdebstrap: 'mmdebstrap', flock: 'util-linux', unshare: 'util-linux' },
  files: DEBIAN_KEYS,
};

/** Everything of images that is kept between runs. */
export const imagesFolder = (): string => path.join(cacheFolder(), 'container-images');

export interface ImageConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[] | null;
  readonly User?: string;
  readonly Env?: readonly string[];
  readonly Labels?: Readonly<Record<string, string>>;
}

export interface UnpackedImage {
  /** mounted: a change stays in it, and is gone with it */
  readonly root: string;
  readonly config: ImageConfig;
  remove(): Promise<void>;
}

export class Buildah {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * @param folder of the storage: whoever has the same base images shares it
   * @throws LabError without root: chroot and the mounts of a build need it
   */
  static async open(folder: string, progress: Progress): Promise<Buildah> {
    if (process.getuid?.() !== 0) throw new LabError('building the image needs root');
    await ensurePrograms(path.join(cacheFolder(), 'install.lock'), progress, NEEDS);
    // Where buildah keeps what a Dockerfile's cache mounts hold.
    for (const name of ['tmp', 'run']) await mkdir(path.join(folder, name), { recursive: true });
    return new Buildah(folder);
  }

  /** @throws LabError with the last lines of what buildah wrote, when it fails */
  async run(...args: readonly string[]): Promise<string> {
    return await this.#execute('buildah', [], args);
  }

  async #execute(program: string, before: readonly string[], args: readonly string[]): Promise<string> {
    const storage = [`--root=${this.#folder}/root`, `--runroot=${this.#folder}/run`, '--storage-driver=overlay'];
    const result = await execa(program, [...before, ...storage, ...args], {
      all: true,
      reject: false,
      env: { TMPDIR: path.join(this.#folder, 'tmp') },
    });
    if (result.exitCode === 0) return result.stdout;
    const tail = (result.all ?? '').split('\n').slice(-40).join('\n');
    throw new LabError(`buildah ${args.join(' ')} ended with ${result.exitCode ?? result.signal}:\n${tail}`);
  }

  async hasImage(name: string): Promise<boolean> {
    return (await this.run('images', '--format={{.Name}}:{{.Tag}}')).split('\n').includes(name);
  }

  /** Commands run in a chroot, with this machine's network; base images are those that are there, and no other. */
  async build(context: string, options: readonly string[]): Promise<void> {
    const build = ['build', '--isolation=chroot', '--pull-never', '--layers', ...options, context];
    // buildah 1.28 leaves a stage that is only copied from mounted, for good, and counts it in its run folder: both of
    // the build alone, so that they end with it and the storage can be removed one day.
    const alone = 'mount -t tmpfs none "$0" && exec buildah "$@"';
    await this.#execute('unshare', ['--mount', 'sh', '-c', alone, `${this.#folder}/run`], build);
  }

  /**
   * Unpacks an image.
   *
   * @param image a name in the storage, or `docker-archive:FILE`
   */
  async unpack(image: string): Promise<UnpackedImage> {
    const container = (await this.run('from', '--pull-never', image)).trim();
    const remove = async (): Promise<void> => {
      await this.run('rm', container);
    };
    try {
      const inspected = await this.run('inspect', '--type=container', container);
      const { OCIv1 } = JSON.parse(inspected) as { OCIv1: { config: ImageConfig } };
      return { root: (await this.run('mount', container)).trim(), config: OCIv1.config, remove };
    } catch (error) {
      await remove();
      throw error;
    }
  }
}
