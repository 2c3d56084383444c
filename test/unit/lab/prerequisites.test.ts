import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { LabError } from '../../lab/errors.ts';
import { ensureDiskSpace, ensurePrograms } from '../../lab/prerequisites.ts';
import { createProgress } from '../../lab/progress.ts';

async function messageOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).to.be.instanceOf(LabError);
  return (error as LabError).message;
}

describe('what the lab needs of this machine', () => {
  let folder: string;
  const searchPath = process.env['PATH'];

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'prerequisites-'));
  });
  afterEach(async () => {
    process.env['PATH'] = searchPath;
    await rm(folder, { recursive: true });
  });

  it('names the packages that are missing, and the command, where it may not install them', async () => {
    // A machine with nothing but a shell and locks: no apt-get, no QEMU.
    for (const program of ['sh', 'flock', 'cat']) await symlink(`/usr/bin/${program}`, path.join(folder, program));
    process.env['PATH'] = folder;
    const message = await messageOf(ensurePrograms(path.join(folder, 'lock'), createProgress('lab')));
    expect(message).to.contain('qemu-system-x86').and.to.contain('nbdkit').and.to.contain('sudo apt-get install');
  });

  it('says how much disk space is needed, where, and how much there is', async () => {
    const message = await messageOf(ensureDiskSpace(folder, 10 ** 12, 'a lab'));
    expect(message)
      .to.match(/^a lab needs 1000000000000 MiB in \S+, \d+ MiB are free/)
      .and.to.contain('XDG_CACHE_HOME');
    await ensureDiskSpace(folder, 1, 'a lab');
  });
});
