/** The image as users get it: what its Dockerfile makes, looked at from inside. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { bundle } from '../../build.ts';
import { BUNDLE_SBOM, type Component, imageSbom, type Sbom } from '../../deploy/sbom.ts';
import { nodeBinary } from '../lab/image.ts';
import { createProgress } from '../lab/progress.ts';
import type { ImageConfig, UnpackedImage } from './buildah.ts';
import { type DriverImage, ensureDriverImage, ROOT } from './driver-image.ts';
import { insideReadOnly } from './inside.ts';

/** node is 121 MiB of it, Debian about 75. */
const MAX_MIB = 220;
const PROGRAM = 'usr/local/lib/lvm-iscsi-csi/lvm-iscsi-csi.mjs';

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly version: string; readonly dev?: boolean }>>;
}

const readJson = <T>(file: string): T => JSON.parse(readFileSync(path.join(ROOT, file), 'utf8')) as T;
const digest = async (file: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(file))
    .digest('hex');

describe('the image', () => {
  let image: DriverImage;
  let unpacked: UnpackedImage | undefined;
  let root: string;
  let config: ImageConfig;

  before('build it, from the repository as it is', async () => {
    image = await ensureDriverImage(createProgress('image'));
    // What is looked at is what was exported, not what the builder has in its storage.
    unpacked = await image.buildah.unpack(`docker-archive:${image.archive}`);
    ({ root, config } = unpacked);
  });

  after(async () => {
    await unpacked?.remove();
  });

  it('starts the program by its entry point, on a root that is read-only', async () => {
    const environment = Object.fromEntries((config.Env ?? []).map((line) => line.split(/=(.*)/s, 2)));
    const start = (...args: string[]) => insideReadOnly(root, [...(config.Entrypoint ?? []), ...args], environment);
    expect(config.Entrypoint).to.deep.equal(['tini', '-s', '--', 'lvm-iscsi-csi']);
    expect(await start('--version')).to.equal(readJson<{ version: string }>('package.json').version);
    expect(await start('--help')).to.match(/^Usage: lvm-iscsi-csi/);
    const write = insideReadOnly(root, ['node', '-e', 'fs.writeFileSync("/etc/x", "")']);
    expect(await write.then(String, String)).to.contain('EROFS');
  });

  it('has what the chart calls by its name: lvm-iscsi-csi, node, nsenter', async () => {
    expect(await insideReadOnly(root, ['lvm-iscsi-csi', 'scrub', '--help'])).to.contain('scrub');
    expect(await insideReadOnly(root, ['nsenter', '--version'])).to.contain('util-linux');
    const { version } = await nodeBinary();
    expect(await insideReadOnly(root, ['node', '--version']))
      .to.equal(`v${version}`)
      .and.to.match(/^v24\./);
  });

  it('is labelled', () => {
    const name = 'org.opencontainers.image';
    const { version, description, license } = readJson<Record<string, string>>('package.json');
    expect(config.Labels).to.include({
      [`${name}.title`]: 'lvm-iscsi-csi',
      [`${name}.description`]: description,
      [`${name}.licenses`]: license,
      [`${name}.version`]: version,
      [`${name}.revision`]: image.buildArguments['REVISION'],
      [`${name}.source`]: image.buildArguments['SOURCE'],
    });
    // Who builds without build arguments gets the right version all the same.
    expect(readFileSync(path.join(ROOT, 'Dockerfile'), 'utf8')).to.contain(`\nARG VERSION=${version}\n`);
    expect(image.name).to.equal(`ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:${version}`);
  });

  it('has no npm, compiler, development dependency, script of ours or package list', async () => {
    const files = (await readdir(root, { recursive: true, withFileTypes: true }))
      .filter((entry) => !entry.isDirectory())
      .map((entry) => path.join(path.relative(root, entry.parentPath), entry.name));
    // The link to its manual pages is Debian's.
    const local = files.filter((file) => file.startsWith('usr/local/') && file !== 'usr/local/man').sort();
    expect(local).to.deep.equal([
      'usr/local/bin/lvm-iscsi-csi',
      'usr/local/bin/node',
      PROGRAM,
      'usr/local/share/lvm-iscsi-csi/LICENSE',
      BUNDLE_SBOM,
      'usr/local/share/node/LICENSE',
    ]);
    const unwanted =
      /\/(npm|npx|corepack|yarn|esbuild|tsc|biome|mocha|gcc|g\+\+|cc|c\+\+|ld|as|make|go|python3?|curl|wget)$|\/node_modules\/|\.ts$/;
    expect(files.filter((file) => unwanted.test(`/${file}`))).to.deep.equal([]);
    expect(files.filter((file) => /^var\/(lib\/apt\/lists|cache\/apt)\//.test(file))).to.deep.equal([]);
  });

  it(`is not larger than ${MAX_MIB} MiB`, () => {
    const mib = statSync(image.archive).size / 2 ** 20;
    console.log(`      uncompressed: ${mib.toFixed(0)} MiB`);
    expect(mib).to.be.lessThan(MAX_MIB);
  });

  it('has the bundle that "npm run build" makes here, byte for byte, and the same list of packages', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'lvm-iscsi-csi-image-'));
    try {
      const [program, sbom] = [path.join(folder, 'lvm-iscsi-csi.mjs'), path.join(folder, 'sbom.json')];
      await bundle(program, sbom);
      expect(await digest(program)).to.equal(await digest(path.join(root, PROGRAM)));
      expect(await digest(sbom)).to.equal(await digest(path.join(root, BUNDLE_SBOM)));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  describe('its bill of materials', () => {
    let sbom: Sbom;
    const withPurl = (prefix: string): Component[] =>
      sbom.components.filter(({ purl }) => purl?.startsWith(prefix) === true);

    before(async () => {
      sbom = await imageSbom(root);
    });

    it('names the npm packages of the bundle, each as locked, none for development, all with a licence', () => {
      const { packages } = readJson<LockFile>('package-lock.json');
      const npm = withPurl('pkg:npm/');
      for (const { group, name, version, licenses } of npm) {
        const fullName = group === undefined ? name : `${group}/${name}`;
        const locked = Object.entries(packages).find(
          ([where, entry]) => where.endsWith(`node_modules/${fullName}`) && entry.version === version,
        );
        expect(locked?.[1], `${fullName} ${version}`).to.not.equal(undefined);
        expect(locked?.[1].dev, `${fullName} is for development`).to.equal(undefined);
        expect(licenses, `${fullName}'s licence`).to.be.an('array').that.is.not.empty;
      }
      expect(npm.map(({ name }) => name)).to.include.members(['grpc-js', 'execa', 'pino', 'zod', 'protobufjs']);
    });

    it("names Debian's packages as dpkg does", async () => {
      const listed = (await insideReadOnly(root, ['dpkg-query', '--show'])).split('\n');
      const named = withPurl('pkg:deb/debian/').map(({ name, version }) => `${name}\t${version}`);
      expect(named.sort()).to.deep.equal(listed.map((line) => line.replace(/:\w+\t/, '\t')).sort());
      expect(withPurl('pkg:deb/debian/').map(({ name }) => name)).to.include.members(['tini', 'util-linux', 'libc6']);
    });

    it('names node, and the libraries inside it', async () => {
      const node = sbom.components.find(({ name }) => name === 'node');
      expect(`v${node?.version}`).to.equal(await insideReadOnly(root, ['node', '--version']));
      expect(node?.components?.map(({ name }) => name)).to.include.members(['openssl', 'v8', 'uv', 'zlib']);
    });
  });
});
