/** What removes a dead lab's files, beside others who ask whether it is up. Keepers are stood in for by holders of the lock. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { exists } from '../../lab/cache.ts';
import { labFolder, labLock, labsUp, makeFolders, sweepingScript } from '../../lab/state.ts';

describe('lab/state: the files of a lab whose keeper has ended', () => {
  let folder: string;
  let holder: ChildProcess | undefined;
  const saved = { cache: process.env['XDG_CACHE_HOME'], runtime: process.env['XDG_RUNTIME_DIR'] };

  function restore(name: string, value: string | undefined): void {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }

  beforeEach(async () => {
    // Short: sockets are kept in a part of it.
    folder = await mkdtemp(path.join(tmpdir(), 'sw-'));
    process.env['XDG_CACHE_HOME'] = folder;
    process.env['XDG_RUNTIME_DIR'] = folder;
    await makeFolders('one');
    await writeFile(labLock('one'), '');
  });

  afterEach(async () => {
    holder?.stdin?.destroy();
    if (holder !== undefined) await once(holder, 'close');
    holder = undefined;
    restore('XDG_CACHE_HOME', saved.cache);
    restore('XDG_RUNTIME_DIR', saved.runtime);
    await rm(folder, { recursive: true });
  });

  async function hold(mode: '--exclusive' | '--shared'): Promise<void> {
    holder = spawn('flock', [mode, labLock('one'), 'sh', '-c', 'echo held; exec cat >/dev/null'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await once(holder.stdout as NonNullable<ChildProcess['stdout']>, 'data');
  }

  it('are removed', async () => {
    await execa('sh', ['-c', sweepingScript('one')]);
    expect([await exists(labFolder('one')), await exists(labLock('one'))]).to.deep.equal([false, false]);
  });

  it('are kept when a lab of that name is up', async () => {
    await hold('--exclusive');
    await execa('sh', ['-c', sweepingScript('one')], { reject: false });
    expect(await exists(labFolder('one'))).to.equal(true);
    expect(await labsUp()).to.deep.equal(['one']);
  });

  it('are removed though somebody asks just then whether it is up', async () => {
    await hold('--shared');
    expect(await labsUp()).to.deep.equal([]);
    await execa('sh', ['-c', sweepingScript('one')]);
    expect(await exists(labFolder('one'))).to.equal(false);
  });

  it('do not make it seem to be up while they are being removed', async () => {
    // A FAKE rm, which tells whether a keeper could have the lock meanwhile: the real one is done in a moment.
    const answer = path.join(folder, 'answer');
    await writeFile(
      path.join(folder, 'rm'),
      `#!/bin/sh\nflock --exclusive --nonblock '${labLock('one')}' true; echo $? >'${answer}'\n`,
      { mode: 0o755 },
    );
    await execa('sh', ['-c', `${sweepingScript('one')}; cat '${answer}'`], {
      env: { PATH: `${folder}:${process.env['PATH']}` },
    }).then(({ stdout }) => expect(stdout).to.equal('0'));
  });
});
