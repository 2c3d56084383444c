import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { FileTimeoutError } from '../../../src/system/files.ts';
import { isAlive, removeFolder, startFixture, temporaryFolder, until } from './support.ts';

async function failure(work: Promise<unknown>): Promise<NodeJS.ErrnoException> {
  try {
    await work;
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error('it did not fail');
}

/** Opening it blocks for ever, as a call to a hung device would. */
function makeFifo(path: string): string {
  execFileSync('mkfifo', [path]);
  return path;
}

describe('BlockingFiles', () => {
  let folder: string;
  let files: BlockingFiles;
  const path = (name: string): string => join(folder, name);

  before(() => {
    folder = temporaryFolder();
    files = new BlockingFiles();
  });
  after(async () => {
    await files.close();
    removeFolder(folder);
  });

  it('reads text and byte ranges, fewer at the end', async () => {
    writeFileSync(path('text'), 'grüße');
    expect(await files.readText(path('text'))).to.equal('grüße');
    expect(Buffer.from(await files.readBytes(path('text'), 5, 100)).toString()).to.equal(
      'ße'.slice(0, 0) + Buffer.from('grüße').subarray(5).toString(),
    );
    expect(await files.readBytes(path('text'), 100, 4)).to.have.length(0);
  });

  it('fails with Node’s own codes', async () => {
    const error = await failure(files.readText(path('absent')));
    expect(error).to.include({ code: 'ENOENT', syscall: 'open', path: path('absent') });
    expect(error.stack).to.contain('blocking-files.test.ts');
    expect((await failure(files.rmdir('/proc/self'))).code).to.be.oneOf([
      'EPERM',
      'EBUSY',
      'ENOTEMPTY',
      'EACCES',
      'ENOTDIR',
    ]);
    expect((await failure(files.createExclusive(path('text')))).code).to.equal('EEXIST');
    expect((await failure(files.link(path('text'), path('text')))).code).to.equal('EEXIST');
  });

  it('writes an attribute in place and never creates one', async () => {
    writeFileSync(path('attribute'), 'abcdef');
    await files.writeAttribute(path('attribute'), 'XY');
    expect(readFileSync(path('attribute'), 'utf8')).to.equal('XYcdef');
    expect((await failure(files.writeAttribute(path('absent'), '1'))).code).to.equal('ENOENT');
  });

  it('replaces a file durably, with exactly the mode asked for, leaving nothing beside it', async () => {
    mkdirSync(path('durable'));
    await files.writeDurably(path('durable/key'), 'one', { mode: 0o600 });
    await files.writeDurably(path('durable/key'), 'two', { mode: 0o666 });
    expect(readFileSync(path('durable/key'), 'utf8')).to.equal('two');
    expect(statSync(path('durable/key')).mode & 0o777).to.equal(0o666);
    expect((await failure(files.writeDurably(path('absent/key'), 'x'))).code).to.equal('ENOENT');
    // A folder cannot be replaced by a file: the temporary file goes again.
    expect((await failure(files.writeDurably(path('durable'), 'x'))).code).to.equal('EISDIR');
    expect(readdirSync(path('durable'))).to.deep.equal(['key']);
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).to.deep.equal([]);
  });

  it('makes, lists and removes', async () => {
    await files.mkdir(path('a/b'), { recursive: true, mode: 0o700 });
    await files.createExclusive(path('a/z'));
    await files.symlink('z', path('a/l'));
    await files.link(path('a/z'), path('a/h'));
    expect(await files.readdir(path('a'))).to.deep.equal(['b', 'h', 'l', 'z']);
    expect(await files.readlink(path('a/l'))).to.equal('z');
    expect(await files.realpath(path('a/l'))).to.equal(path('a/z'));
    for (const name of ['h', 'l', 'z']) await files.unlink(path(`a/${name}`));
    await files.rmdir(path('a/b'));
    expect(await files.readdir(path('a'))).to.deep.equal([]);
  });

  it('stat: kinds, sizes and device numbers; absent is undefined, anything else is thrown', async () => {
    writeFileSync(path('s'), '12345', { mode: 0o640 });
    symlinkSync('nowhere', path('dangling'));
    symlinkSync('loop', path('loop'));
    linkSync(path('s'), path('s2'));
    const real = statSync(path('s'));
    const stat = await files.stat(path('s'));
    expect(stat).to.include({ kind: 'file', sizeBytes: 5, mode: 0o640, inode: real.ino, rdev: undefined });
    expect(stat?.dev).to.match(/^[0-9]+:[0-9]+$/);
    expect(await files.stat('/dev/null')).to.include({ kind: 'character', rdev: '1:3' });
    expect(await files.stat(folder)).to.include({ kind: 'directory' });
    expect(await files.lstat(path('dangling'))).to.include({ kind: 'symlink' });
    expect(await files.stat(path('dangling'))).to.equal(undefined);
    expect(await files.stat(path('s/below'))).to.equal(undefined);
    expect(await files.lstat(path('absent'))).to.equal(undefined);
    expect((await failure(files.stat(path('loop')))).code).to.equal('ELOOP');
  });

  it('statfs: bytes and inodes, as df says', async () => {
    const stat = await files.statfs(folder);
    const [, total] = execFileSync('df', ['-B1', '--output=size', folder], { encoding: 'utf8' }).split('\n');
    expect(stat.totalBytes).to.equal(Number(total));
    expect(stat.usedBytes).to.be.within(0, stat.totalBytes);
    expect(stat.totalInodes - stat.freeInodes).to.equal(stat.usedInodes);
  });

  it('a call that blocks ends at its deadline while others go on', async () => {
    const fifo = makeFifo(path('fifo'));
    const stuck = failure(files.readText(fifo, { timeoutMs: 400 }));
    const startedAt = Date.now();
    for (let count = 0; count < 20; count += 1) await files.readdir(folder);
    expect(Date.now() - startedAt).to.be.lessThan(400);
    const error = await stuck;
    expect(error).to.be.instanceOf(FileTimeoutError);
    expect(error).to.include({ code: 'ETIMEDOUT', operation: 'readText', path: fifo });
  });

  it('a durable write that was given up does not replace what was written since', async () => {
    // The name of the temporary file is not known, so the block is in the helper's threads: all 64 of them.
    const fifo = makeFifo(path('fifo-threads'));
    const own = new BlockingFiles({ stuckLimit: 1_000 });
    writeFileSync(path('late'), 'old');
    const blockers = Array.from({ length: 64 }, () => failure(own.readText(fifo, { timeoutMs: 500 })));
    const late = failure(own.writeDurably(path('late'), 'late', { timeoutMs: 500 }));
    await Promise.all(blockers);
    expect(await late).to.be.instanceOf(FileTimeoutError);
    writeFileSync(path('late'), 'new');
    execFileSync('timeout', ['5', 'sh', '-c', `: > ${fifo}`]);
    // Answered only after the queue before it: the given-up write has run by now, up to where it looks.
    await own.readdir(folder);
    await until('no temporary file is left', () => readdirSync(folder).every((name) => !name.endsWith('.tmp')));
    expect(readFileSync(path('late'), 'utf8')).to.equal('new');
    await own.close();
  });

  it('too many stuck calls: a new helper takes over, the old one ends when they have come back', async () => {
    const fifo = makeFifo(path('fifo-takeover'));
    const own = new BlockingFiles({ stuckLimit: 3, abandonedLimit: 2 });
    const block = (): Promise<unknown> =>
      Promise.all([1, 2, 3].map(() => failure(own.readText(fifo, { timeoutMs: 200 }))));
    await block();
    expect(own.abandonedHelpers).to.equal(0);
    await own.readdir(folder);
    expect(own.abandonedHelpers).to.equal(1);
    await block();
    await own.readdir(folder);
    await block();
    // The limit: no third one is left behind, the last is used on.
    await own.readdir(folder);
    expect(own.abandonedHelpers).to.equal(2);
    execFileSync('timeout', ['5', 'sh', '-c', `: > ${fifo}`]);
    await until('abandoned helpers have ended', () => own.abandonedHelpers === 0);
    expect(await own.readdir(folder)).to.be.an('array');
    await own.close();
  });

  it('the death of the helper rejects what was pending, and the next call starts another', async () => {
    const fifo = makeFifo(path('fifo-death'));
    const own = new BlockingFiles();
    await own.readdir(folder);
    const pid = Number(await own.realpath('/proc/self').then((real) => real.replace('/proc/', '')));
    const pending = failure(own.readText(fifo));
    process.kill(pid, 'SIGKILL');
    expect((await pending).message).to.match(/helper process ended \(signal SIGKILL\)/);
    expect(await own.readdir(folder)).to.be.an('array');
    await own.close();
    expect((await failure(own.readdir(folder))).message).to.contain('closed');
  });

  it('the helper ignores SIGTERM and ends with its parent, stuck calls or not', async () => {
    const fixture = startFixture('files-parent', [makeFifo(path('fifo-parent'))]);
    await until('the helper runs', () => fixture.stdout() !== '' || fixture.stderr() !== '');
    const helper = Number(fixture.stdout());
    expect(isAlive(helper), fixture.stderr()).to.equal(true);
    process.kill(helper, 'SIGTERM');
    expect(isAlive(helper)).to.equal(true);
    fixture.child.kill('SIGKILL');
    await until('the helper has ended', () => !isAlive(helper));
  });
});
