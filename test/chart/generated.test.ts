/** What "npm run deploy:render" makes is in step with what it is made from. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { renderManifests } from '../../deploy/manifests.ts';
import { MANIFESTS, README, readmeText, readValues, SCHEMA, schemaText } from '../../deploy/render.ts';
import { OPTIONS, type OptionKey } from '../../src/config/options.ts';
import { CHART } from '../support/helm.ts';
import { parseManifests } from '../support/manifests.ts';

const HOW = 'run: npm run deploy:render';
const read = (...parts: string[]) => readFileSync(path.join(...parts), 'utf8');

describe('generated files of deploy/', () => {
  it("the schema has the program's options", () => {
    expect(read(SCHEMA), HOW).to.equal(schemaText());
  });

  it("the chart's README has the values", () => {
    expect(read(README), HOW).to.equal(readmeText());
  });

  it('deploy/kubernetes is what the chart renders', async () => {
    const rendered = await renderManifests();
    const byHand = ['kustomization.yaml', 'namespace.yaml'];
    expect(readdirSync(MANIFESTS).sort(), HOW).to.deep.equal([...byHand, ...rendered.keys()].sort());
    for (const [name, text] of rendered) expect(read(MANIFESTS, name), `${name}; ${HOW}`).to.equal(text);
  });

  it('deploy/kubernetes applies every file, into the namespace that it makes', () => {
    const { resources } = parse(read(MANIFESTS, 'kustomization.yaml')) as { resources: string[] };
    const files = readdirSync(MANIFESTS).filter((name) => name !== 'kustomization.yaml');
    expect([...resources].sort()).to.deep.equal(files.sort());
    const [namespace] = parseManifests(read(MANIFESTS, 'namespace.yaml'));
    for (const name of files) {
      const text = read(MANIFESTS, name);
      expect(text, name).to.not.match(/managed-by|helm\.sh/);
      for (const { metadata } of parseManifests(text)) {
        expect(metadata.namespace ?? 'lvm-iscsi-csi', `${name}: ${metadata.name}`).to.equal(namespace?.metadata.name);
      }
    }
  });

  it("the chart's defaults are the program's, and its version the package's", () => {
    const { options, controller, node } = readValues() as { options: object } & Record<
      'controller' | 'node',
      { options: object }
    >;
    for (const [key, value] of Object.entries({ ...options, ...controller.options, ...node.options })) {
      if (key !== 'portals') expect(value, key).to.equal(OPTIONS[key as OptionKey].default);
    }
    const { version } = JSON.parse(read(CHART, '../../../package.json')) as { version: string };
    expect(parse(read(CHART, 'Chart.yaml'))).to.include({ appVersion: version });
  });
});
