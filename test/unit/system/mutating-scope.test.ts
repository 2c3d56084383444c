/** What can be tested without systemd; test/integration/host-scope.test.ts has the rest, on a real one. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { isScopeGone, type ScopeEntry, throughScope } from '../../../src/system/mutating-scope.ts';
import { removeFolder, temporaryFolder } from './support.ts';

describe('entering the scope', () => {
  const folder = temporaryFolder();
  after(() => removeFolder(folder));

  async function run(entry: ScopeEntry, argv: readonly string[]) {
    const [file = '', ...args] = throughScope(entry, argv);
    return await execa(file, args, { reject: false });
  }

  it('writes 0 to cgroup.procs, then becomes the program with its arguments untouched', async () => {
    // A plain file in place of cgroup.procs.
    const procsPath = join(folder, "cgroup 'procs'");
    writeFileSync(procsPath, '');
    const result = await run({ kind: 'cgroup', procsPath }, ['printf', '%s|', '$HOME', "it's", '']);
    expect(result.stdout).to.equal("$HOME|it's||");
    expect(readFileSync(procsPath, 'utf8')).to.equal('0\n');
  });

  it('runs nothing when the scope is gone, and says so in a way that cannot be mistaken', async () => {
    const entry: ScopeEntry = { kind: 'cgroup', procsPath: join(folder, 'gone/cgroup.procs') };
    const witness = join(folder, 'witness');
    const result = await run(entry, ['sh', '-c', `echo run > '${witness}'`]);
    expect(isScopeGone(entry, result.exitCode, result.stderr)).to.equal(true);
    expect(() => readFileSync(witness)).to.throw(/ENOENT/);
    const other = await run({ kind: 'none' }, ['sh', '-c', 'exit 125']);
    expect(isScopeGone(entry, other.exitCode, other.stderr)).to.equal(false);
  });
});
