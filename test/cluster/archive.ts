/** Image archives as containerd imports them: a tar of the OCI image layout, with as many of the layers as are needed. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { link, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { execa } from 'execa';

export interface Layer {
  /** of the tar file, not compressed: in the layout and in the list of layers it has the same name then */
  readonly digest: string;
  readonly size: number;
  /** undefined: whoever imports the archive has it already */
  readonly file?: string;
}

/** What a container of the image runs, and how. */
export interface RunConfig {
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[] | null;
  readonly Env?: readonly string[];
}

/** The layer that a tar file is. */
export async function layerOf(file: string): Promise<Layer> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return { digest: `sha256:${hash.digest('hex')}`, size: (await stat(file)).size, file };
}

/**
 * @param name with its tag; what containerd then calls the image
 * @param layers from the lowest on
 * @param scratch a folder on the file system of the layers
 */
export async function writeArchive(
  archive: string,
  name: string,
  config: RunConfig,
  layers: readonly Layer[],
  scratch: string,
): Promise<void> {
  const layout = await mkdtemp(path.join(scratch, 'layout-'));
  try {
    const blobs = path.join(layout, 'blobs/sha256');
    await mkdir(blobs, { recursive: true });
    const blob = async (mediaType: string, content: object) => {
      const text = JSON.stringify(content);
      const hex = createHash('sha256').update(text).digest('hex');
      await writeFile(path.join(blobs, hex), text);
      return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(text) };
    };
    for (const { digest, file } of layers) {
      if (file !== undefined) await link(file, path.join(blobs, digest.replace('sha256:', '')));
    }
    const manifest = await blob('application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: await blob('application/vnd.oci.image.config.v1+json', {
        architecture: 'amd64',
        os: 'linux',
        config,
        rootfs: { type: 'layers', diff_ids: layers.map(({ digest }) => digest) },
      }),
      layers: layers.map(({ digest, size }) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size })),
    });
    const index = {
      schemaVersion: 2,
      manifests: [{ ...manifest, annotations: { 'io.containerd.image.name': name } }],
    };
    await writeFile(path.join(layout, 'index.json'), JSON.stringify(index));
    await writeFile(path.join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
    await tar(layout, archive);
  } finally {
    await rm(layout, { recursive: true, force: true });
  }
}

/** The same bytes for the same content. */
export async function tar(folder: string, file: string): Promise<void> {
  const owner = ['--owner=0', '--group=0', '--numeric-owner', '--sort=name', '--mtime=@0'];
  await execa('tar', ['-C', folder, ...owner, '--hard-dereference', '-cf', file, '.']);
}
