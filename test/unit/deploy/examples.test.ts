/** deploy/examples, as far as the driver itself can tell: what they name exists, and what they ask for is accepted. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { parseAllDocuments } from 'yaml';
import { OPTIONS } from '../../../src/config/options.ts';
import { userCredentials } from '../../../src/volumes/chap.ts';
import { parseParameters } from '../../../src/volumes/parameters.ts';

interface Example {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly provisioner?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly stringData?: Readonly<Record<string, string>>;
  readonly spec?: {
    readonly storageClassName?: string;
    readonly volumes?: readonly { readonly persistentVolumeClaim: { readonly claimName: string } }[];
    readonly volumeClaimTemplates?: readonly Example[];
  };
}

const FOLDER = path.join(import.meta.dirname, '../../../deploy/examples');

function read(name: string): Example[] {
  return parseAllDocuments(readFileSync(path.join(FOLDER, name), 'utf8')).map((document) => {
    expect(document.errors, name).to.deep.equal([]);
    return document.toJS() as Example;
  });
}

describe('deploy/examples', () => {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.yaml'));
  const classes = new Set(
    files.flatMap(read).flatMap((each) => (each.kind === 'StorageClass' ? each.metadata.name : [])),
  );

  it('are all in the README', () => {
    const text = readFileSync(path.join(FOLDER, 'README.md'), 'utf8');
    expect(Array.from(text.matchAll(/^\| `(\S+\.yaml)` /gm), ([, name]) => name).sort()).to.deep.equal(files.sort());
  });

  for (const name of files) {
    it(`${name} names what exists, with parameters that the driver takes`, () => {
      const examples = read(name);
      const claims = examples.flatMap((each) => (each.kind === 'PersistentVolumeClaim' ? each.metadata.name : []));
      for (const { kind, provisioner, parameters, stringData, spec } of examples) {
        if (kind === 'StorageClass') {
          expect(provisioner).to.equal(OPTIONS.driverName.default);
          // external-provisioner keeps what it understands itself.
          const own = Object.entries(parameters ?? {}).filter(([key]) => !key.startsWith('csi.storage.k8s.io/'));
          parseParameters(Object.fromEntries(own), 'cinder-volumes');
          const fsType = parameters?.['csi.storage.k8s.io/fstype'];
          if (fsType !== undefined) expect(OPTIONS.defaultFsType.kind.schema.safeParse(fsType).success).to.equal(true);
        }
        if (stringData !== undefined) expect(userCredentials(stringData)).to.not.equal(undefined);
        for (const claim of [spec, ...(spec?.volumeClaimTemplates ?? []).map((each) => each.spec)]) {
          if (claim?.storageClassName !== undefined) expect([...classes]).to.include(claim.storageClassName);
        }
        for (const { persistentVolumeClaim } of spec?.volumes ?? []) {
          expect(claims).to.include(persistentVolumeClaim.claimName);
        }
      }
    });
  }
});
