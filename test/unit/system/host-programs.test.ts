import { expect } from 'chai';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { programProblems } from '../../../src/system/host-programs.ts';
import { removeFolder, temporaryFolder } from './support.ts';

describe('programs that the host must have', () => {
  const folder = temporaryFolder();
  const commands = new HostCommands({ host: { mode: 'direct' }, owner: 'test', outputFolder: folder });
  after(async () => {
    await commands.close();
    removeFolder(folder);
  });

  it('names those that are missing, by package, from a real shell', async () => {
    const problems = await programProblems(
      commands,
      [
        { name: 'cat', package: 'coreutils' },
        { name: 'no-such.program', package: 'one' },
        { name: 'nor-this', package: 'one' },
        { name: 'nor-that', package: 'two' },
        { name: 'sh', package: 'two' },
      ],
      'on this node',
    );
    expect(problems).to.deep.equal([
      'no-such.program and nor-this are not installed on this node; to do: install the package one',
      'nor-that is not installed on this node; to do: install the package two',
    ]);
    expect(await programProblems(commands, [{ name: 'cat', package: 'coreutils' }], 'here')).to.deep.equal([]);
  });

  it('says so when it cannot tell, instead of "all there"', async () => {
    const silent = { run: async () => ({ command: 'sh', exitCode: 0, stdout: '', stderr: '', durationMs: 1 }) };
    expect((await programProblems(silent, [], 'on this node')).join()).to.match(/cannot be told .* on this node/);
    const unreachable = new HostCommands({
      host: { mode: 'nsenter', targetPid: 2 ** 22 + 1 },
      owner: 'test',
      outputFolder: folder,
    });
    expect((await programProblems(unreachable, [], 'on this node')).join()).to.match(/cannot be told .* on this node/);
    await unreachable.close();
  });
});
