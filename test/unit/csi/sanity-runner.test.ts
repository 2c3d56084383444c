/** The parts of test/sanity/run.ts that decide what is counted. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { COMBINATIONS, SPECS } from '../../sanity/combinations.ts';
import { addSkips, differences } from '../../sanity/expected.ts';
import { parseReport, type Spec } from '../../sanity/junit.ts';
import { type PathCommands, writePathCommands } from '../../sanity/path-commands.ts';

const testcase = (status: string, body: string) =>
  `<testcase name="[It] Node &quot;a&quot; &lt;b&gt; ${status}" classname="x" status="${status}" time="0.5">${body}</testcase>\n`;

describe("csi-sanity's report", () => {
  it('is read with reasons, escapes and line breaks', () => {
    const xml = [
      '<testsuites><testsuite><testcase name="[ReportAfterSuite] x" status="passed" time="0"></testcase>',
      testcase('passed', '<system-err>&gt; Enter</system-err>'),
      testcase('skipped', '<skipped message="skipped - not supported"></skipped>'),
      testcase('pending', '<skipped message="pending"></skipped>'),
      testcase('failed', '<failure message="Expected&#xA;  &lt;nil&gt;" type="failed">more</failure>'),
      testcase('panicked', '<error message="boom" type="panicked"/>'),
      '<testcase name="[It] short" status="passed" time="1"/></testsuite></testsuites>',
    ].join('');
    const specs = parseReport(xml);
    expect(specs.map(({ outcome, reason }) => [outcome, reason])).to.deep.equal([
      ['passed', ''],
      ['skipped', 'not supported'],
      ['skipped', 'csi-sanity itself has it switched off (pending)'],
      ['failed', 'Expected\n  <nil>'],
      ['failed', 'boom'],
      ['passed', ''],
    ]);
    expect(specs[0]).to.include({ name: 'Node "a" <b> passed', seconds: 0.5 });
  });

  it('is refused when it says something unknown', () => {
    expect(() => parseReport(testcase('flaked', ''))).to.throw(/unknown status "flaked"/);
  });
});

describe('what csi-sanity has run', () => {
  const spec = (name: string, reason?: string): Spec => ({
    name,
    outcome: reason === undefined ? 'passed' : 'skipped',
    reason: reason ?? '',
    seconds: 0,
  });
  const expected = { specs: 4, skips: { 'no clones': 2 } };
  const asExpected = [spec('a'), spec('b'), spec('c', 'no clones'), spec('d', 'no clones')];

  it('is as expected', () => {
    expect(differences(asExpected, expected)).to.deep.equal([]);
  });

  it('is not, when a capability has got lost: its specs are skipped, and named', () => {
    const [, ...others] = asExpected;
    expect(differences([spec('a', 'ListVolumes not supported'), ...others], expected)).to.deep.equal([
      'skipped for "ListVolumes not supported": expected 0, found 1\n  a',
    ]);
  });

  it('is not, when a skip that is expected is none any more, or a spec is missing', () => {
    const [a, b, c] = asExpected as [Spec, Spec, Spec];
    expect(differences([a, b, c], expected)).to.deep.equal([
      'all specs: expected 4, found 3',
      'skipped for "no clones": expected 2, found 1\n  c',
    ]);
    expect(differences([a, b, a, b], expected)).to.deep.equal(['skipped for "no clones": expected 2, found 0']);
  });

  it('may be less on a target that cannot do something', () => {
    expect(addSkips({ a: 1, b: 2 }, { b: 1, c: 1 })).to.deep.equal({ a: 1, b: 3, c: 1 });
  });

  it('is most of it, in each combination', () => {
    for (const { name, skips } of COMBINATIONS) {
      const skipped = Object.values(skips).reduce((sum, count) => sum + count, 0);
      expect([name, SPECS - skipped]).to.deep.equal([name, 59]);
    }
  });
});

describe('path commands', () => {
  let folder: string;
  let commands: PathCommands;
  const run = async (program: string, path: string) =>
    await execa(program, [path], { reject: false, env: { PATH: `${folder}:${process.env['PATH']}` } });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'path-commands-'));
    // Stands for ssh: the remote shell gets the last argument as one string.
    writeFileSync(
      join(folder, 'ssh'),
      '#!/bin/bash\n[ -e "$(dirname "$0")/down" ] && exit 255\nfor last; do :; done\nexec sh -c "$last"\n',
      {
        mode: 0o700,
      },
    );
    commands = await writePathCommands(folder, ['-S', '/a b/control', 'lab']);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  for (const name of ['plain', "with space, 'quotes' and $(touch x)"]) {
    it(`make, look at and remove a folder ${name}`, async () => {
      const path = join(folder, 'deep', name);
      expect((await run(commands.check, path)).stdout).to.equal('not_found');
      expect((await run(commands.create, path)).stdout).to.equal(path);
      expect((await run(commands.check, path)).stdout).to.equal('directory');
      expect((await run(commands.remove, path)).exitCode).to.equal(0);
      expect((await run(commands.check, path)).stdout).to.equal('not_found');
    });
  }

  it('tell files and others', async () => {
    writeFileSync(join(folder, 'file'), '');
    expect((await run(commands.check, join(folder, 'file'))).stdout).to.equal('file');
    expect((await run(commands.check, '/dev/null')).stdout).to.equal('other');
  });

  it('do not remove a folder with something in it', async () => {
    expect((await run(commands.remove, folder)).exitCode).to.not.equal(0);
  });

  it('fail when the machine does not answer, and never say "not_found"', async () => {
    writeFileSync(join(folder, 'down'), '');
    const { exitCode, stdout } = await run(commands.check, '/x');
    expect([exitCode, stdout]).to.deep.equal([255, '']);
  });
});
