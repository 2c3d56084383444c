/** What can be tested without systemd; test/integration/host-scope.test.ts has the rest, on a real one. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { CommandError } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import type { Keeper } from '../../../src/system/keeper.ts';
import {
  isLockGone,
  isScopeGone,
  MutatingScope,
  NoScopeError,
  type ScopeEntry,
  throughScope,
} from '../../../src/system/mutating-scope.ts';
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

  it('runs nothing once the lock file has the words of a successor, or none', async () => {
    const procsPath = join(folder, 'procs');
    writeFileSync(procsPath, '');
    const path = join(folder, "lock's file");
    const lock = { path, words: `{"instance":"it's $me"}` };
    for (const entry of [{ kind: 'cgroup', procsPath }, { kind: 'none' }] as const) {
      const argv = (words: string) => throughScope(entry, ['printf', '%s|', words, ''], lock);
      const start = async (words: string) => {
        const [file = '', ...args] = argv(words);
        return await execa(file, args, { reject: false });
      };
      writeFileSync(path, `${lock.words}\n`);
      expect((await start('$HOME')).stdout).to.equal('$HOME||');
      for (const text of ['{"instance":"successor"}\n', '', undefined]) {
        if (text === undefined) rmSync(path);
        else writeFileSync(path, text);
        const refused = await start('x');
        expect(refused.stdout).to.equal('');
        expect(isLockGone(refused.exitCode, refused.stderr)).to.equal(true);
        expect(isScopeGone(entry, refused.exitCode, refused.stderr)).to.equal(false);
      }
    }
  });
});

describe('a host with systemd that gives no scope', () => {
  const folder = temporaryFolder();
  after(() => removeFolder(folder));

  const keeper = (firstLine: string): Keeper => ({
    firstLine,
    exited: new Promise(() => undefined),
    stop: async () => undefined,
  });
  const refuse = (): Promise<never> =>
    Promise.reject(new CommandError({ command: 'systemd-run', shortMessage: 'no reply on D-Bus', durationMs: 1 }));
  const isProbe = (argv: readonly string[]): boolean => argv.join(' ').includes('/run/systemd/system');

  for (const [what, start] of [
    ['its answer', async (argv: readonly string[]) => (isProbe(argv) ? keeper('yes') : await refuse())],
    ['even the look whether it is there', refuse],
  ] as const) {
    it(`is given no mutating command, when ${what} fails; reads go on`, async () => {
      const host = { mode: 'direct' } as const;
      const scope = new MutatingScope(host, 'test', start);
      expect(await scope.entry().catch((error: unknown) => error)).to.be.instanceOf(NoScopeError);
      const commands = new HostCommands({ host, owner: 'test', outputFolder: join(folder, 'run'), scope });
      await commands.prepare();
      const witness = join(folder, 'witness');
      const touch = { file: 'touch', args: [witness], kind: 'mutate' } as const;
      const error = await commands.run(touch).catch((refusal: unknown) => refusal);
      expect(error).to.be.instanceOf(CommandError).and.include({ missing: false, exitCode: undefined });
      expect((error as CommandError).shortMessage).to.match(/^touch could not be started: .*unprotected/);
      expect(() => readFileSync(witness)).to.throw(/ENOENT/);
      await commands.run({ file: 'true', args: [], kind: 'read' });
      await commands.close();
    });
  }

  it('is asked again, and a host without systemd runs them all the same', async () => {
    const scope = new MutatingScope({ mode: 'direct' }, 'test', async () => keeper('no'));
    expect(await scope.entry()).to.deep.equal({ kind: 'none' });
    let answers = 0;
    const recovering = new MutatingScope({ mode: 'direct' }, 'test', async (argv) => {
      answers += 1;
      if (answers <= 3) return isProbe(argv) ? keeper('yes') : await refuse();
      return keeper(isProbe(argv) ? 'yes' : '/sys/fs/cgroup/x/cgroup.procs');
    });
    const now = Date.now;
    try {
      await recovering.entry().catch(() => undefined);
      expect(answers).to.equal(3);
      await recovering.entry().catch(() => undefined);
      expect(answers, 'not at once').to.equal(3);
      Date.now = () => now() + 6_000;
      expect(await recovering.entry()).to.deep.equal({ kind: 'cgroup', procsPath: '/sys/fs/cgroup/x/cgroup.procs' });
    } finally {
      Date.now = now;
    }
  });
});
