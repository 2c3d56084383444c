/**
 * `npm run sbom`: builds the image and writes what is in it to dist/image.cdx.json (CycloneDX): the npm packages of the
 * bundle, Debian's packages, and node with the libraries that it brings.
 *
 * Read from the image itself, not from what it should have been made of. The npm packages are listed by CycloneDX's plugin
 * for esbuild (build.ts), whose file lies in the image; Debian's are those that dpkg knows. What comes out is held against
 * CycloneDX's own schema.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Version } from '@cyclonedx/cyclonedx-library/Spec';
import { JsonStrictValidator } from '@cyclonedx/cyclonedx-library/Validation';
import { ensureDriverImage } from '../test/image/driver-image.ts';
import { insideReadOnly } from '../test/image/inside.ts';
import { createProgress } from '../test/lab/progress.ts';

/** Where the image keeps the list of what its bundle is made from. */
export const BUNDLE_SBOM = 'usr/local/share/lvm-iscsi-csi/lvm-iscsi-csi.cdx.json';
const OUTPUT = path.join(import.meta.dirname, '../dist/image.cdx.json');

/** The fields of CycloneDX's components that are used here. */
export interface Component {
  readonly type: string;
  readonly 'bom-ref': string;
  readonly group?: string;
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly cpe?: string;
  readonly licenses?: readonly { readonly license?: { readonly id?: string; readonly name?: string } }[];
  readonly components?: readonly Component[];
}

export interface Sbom {
  readonly specVersion: string;
  readonly metadata: { readonly component: Component };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
}

/**
 * @param root the image's root, mounted
 * @throws Error when the result does not follow CycloneDX's schema
 */
export async function imageSbom(root: string): Promise<Sbom> {
  const bundled = JSON.parse(readFileSync(path.join(root, BUNDLE_SBOM), 'utf8')) as Sbom;
  // Not of npm's registry: whatever has, or will have, its name there is another's.
  const { purl: _purl, ...program } = bundled.metadata.component;
  const node = nodeComponent(
    JSON.parse(await insideReadOnly(root, ['node', '-p', 'JSON.stringify(process.versions)'])),
  );
  const debian = debianComponents(root);
  const image: Component = { ...program, type: 'container', 'bom-ref': 'image' };
  const sbom: Sbom = {
    ...bundled,
    metadata: { ...bundled.metadata, component: image },
    components: [program, ...bundled.components, node, ...debian],
    dependencies: [
      { ref: image['bom-ref'], dependsOn: [program, node, ...debian].map((each) => each['bom-ref']) },
      ...bundled.dependencies,
    ],
  };
  const wrong = await new JsonStrictValidator(Version.v1dot6).validate(JSON.stringify(sbom));
  if (wrong !== null) throw new Error(`the SBOM does not follow CycloneDX's schema: ${JSON.stringify(wrong)}`);
  return sbom;
}

function nodeComponent({ node, modules: _abi, napi: _napi, ...libraries }: Record<string, string>): Component {
  if (node === undefined) throw new Error('node does not tell its version');
  return {
    type: 'application',
    'bom-ref': `node@${node}`,
    name: 'node',
    version: node,
    licenses: [{ license: { id: 'MIT' } }],
    // By its CPE, and not by a package, is how advisories name what came as a binary.
    cpe: `cpe:2.3:a:nodejs:node.js:${node}:*:*:*:*:*:*:*`,
    purl: `pkg:generic/node@${node}`,
    components: Object.entries(libraries).map(([name, version]) => ({
      type: 'library',
      'bom-ref': `node@${node}/${name}`,
      name,
      version,
    })),
  };
}

/** The system that packages belong to, without which their versions say nothing, and the packages. */
function debianComponents(root: string): Component[] {
  const release = readFileSync(path.join(root, 'etc/debian_version'), 'utf8').trim();
  const packages = readFileSync(path.join(root, 'var/lib/dpkg/status'), 'utf8')
    .split('\n\n')
    .map((stanza) => new Map(Array.from(stanza.matchAll(/^([\w-]+): (.*)$/gm), ([, key, value]) => [key, value])))
    .filter((fields) => fields.get('Status') === 'install ok installed');
  return [
    { type: 'operating-system', 'bom-ref': 'debian', name: 'debian', version: release },
    ...packages.map((fields): Component => {
      const [name, version, architecture] = ['Package', 'Version', 'Architecture'].map((key) => fields.get(key) ?? '');
      const [encodedName, encodedVersion] = [name, version].map((part) => encodeURIComponent(part ?? ''));
      const purl = `pkg:deb/debian/${encodedName}@${encodedVersion}?arch=${architecture}&distro=debian-${release}`;
      return { type: 'library', 'bom-ref': purl, name: name ?? '', version: version ?? '', purl };
    }),
  ];
}

if (import.meta.main) {
  const { buildah, archive } = await ensureDriverImage(createProgress('image'));
  const { root, remove } = await buildah.unpack(`docker-archive:${archive}`);
  const sbom = await imageSbom(root).finally(remove);
  mkdirSync(path.dirname(OUTPUT), { recursive: true });
  writeFileSync(OUTPUT, `${JSON.stringify(sbom, null, 2)}\n`);
  console.log(`wrote ${path.relative(process.cwd(), OUTPUT)}: ${sbom.components.length} components, of ${archive}`);
}
