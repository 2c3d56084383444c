import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { FileSystemError } from '../../../src/filesystem/errors.ts';
import { ext4Arguments, FileSystemMaker, parseVersion, xfsArguments } from '../../../src/filesystem/make.ts';
import { probeDevice } from '../../../src/filesystem/probe.ts';
import { readExt4Superblock, readXfsSuperblock } from '../../../src/filesystem/superblock.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { skip } from '../../support/skip.ts';
import { commandError, DirectCommands, hasProgram } from './support/direct-commands.ts';
import { run } from './support/loop-devices.ts';

const MIB = 1024 * 1024;

describe('making a file system, with the real mkfs on regular files', () => {
  const files = new BlockingFiles();
  let folder = '';
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'make-'));
  });
  after(async () => {
    await files.close();
    await rm(folder, { recursive: true });
  });

  function image(mebibytes: number): string {
    const path = join(folder, `${Math.random().toString(36).slice(2)}.img`);
    writeFileSync(path, '');
    truncateSync(path, mebibytes * MIB);
    return path;
  }
  const maker = (commands = new DirectCommands()): FileSystemMaker =>
    new FileSystemMaker({ commands, files, hostRoot: '' });
  const failure = async (action: Promise<unknown>): Promise<FileSystemError> => {
    const error = await action.then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).to.be.instanceOf(FileSystemError);
    return error as FileSystemError;
  };

  for (const everyByteIsZero of [true, false]) {
    it(`ext4 on a device ${everyByteIsZero ? 'of zeros' : 'full of old data'}: clean, 4 KiB blocks, nothing reserved`, async () => {
      const devicePath = image(64);
      if (!everyByteIsZero) writeFileSync(devicePath, Buffer.alloc(64 * MIB, 0xa5));
      await maker().make({ devicePath, fsType: 'ext4', everyByteIsZero });
      expect(run('e2fsck', '-f', '-n', devicePath)).to.match(/Pass 5/);
      const sizeBytes = 64 * MIB;
      const found = await probeDevice(
        { commands: new DirectCommands(), files },
        { devicePath, fileRoot: '', sizeBytes },
      );
      expect(found).to.deep.include({ kind: 'filesystem', type: 'ext4', label: undefined });
      expect(await readExt4Superblock(files, devicePath)).to.deep.equal({
        sizeBytes,
        blockSizeBytes: 4096,
        valid: true,
        hasErrors: false,
        needsRecovery: false,
      });
      const head = run('dumpe2fs', '-h', devicePath);
      expect(head).to.match(/Reserved block count: +0\n/);
      expect(head).to.match(/Errors behavior: +Remount read-only/);
      expect(head).to.match(/features:.*resize_inode.*64bit.*metadata_csum/);
      expect(head).not.to.match(/orphan_file|metadata_csum_seed/);
    });
  }

  it('ext4 on zeros writes next to nothing', async () => {
    const devicePath = image(2048);
    await maker().make({ devicePath, fsType: 'ext4', everyByteIsZero: true });
    expect(statSync(devicePath).blocks * 512).to.be.below(4 * MIB);
  });

  it('smallest ext4 still has a journal', async () => {
    const devicePath = image(16);
    await maker().make({ devicePath, fsType: 'ext4', everyByteIsZero: true });
    expect(run('dumpe2fs', '-h', devicePath)).to.match(/has_journal/);
  });

  it('xfs, and too small for it', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    const devicePath = image(300);
    await maker().make({ devicePath, fsType: 'xfs', everyByteIsZero: true });
    expect(await readXfsSuperblock(files, devicePath)).to.deep.equal({ sizeBytes: 300 * MIB, blockSizeBytes: 4096 });
    const small = await failure(maker().make({ devicePath: image(200), fsType: 'xfs', everyByteIsZero: true }));
    expect(small.kind).to.equal('too-small');
  });

  it('makes again over an attempt that was cut off', async () => {
    const devicePath = image(32);
    for (let attempt = 0; attempt < 2; attempt += 1) {
      await maker().make({ devicePath, fsType: 'ext4', everyByteIsZero: attempt === 0 });
    }
    run('e2fsck', '-f', '-n', devicePath);
  });

  it('a device that is not there is refused, and no file is made in its place', async () => {
    const devicePath = join(folder, 'none');
    expect((await failure(maker().make({ devicePath, fsType: 'ext4', everyByteIsZero: true }))).kind).to.equal('io');
    expect(readdirSync(folder)).not.to.include('none');
  });

  it('FAKE runner: lock held by another, tool missing', async () => {
    const devicePath = image(16);
    const commands = new DirectCommands();
    commands.overrides.set('flock', () => Promise.reject(commandError('flock', { exitCode: 75 })));
    expect((await failure(maker(commands).make({ devicePath, fsType: 'ext4', everyByteIsZero: true }))).kind).to.equal(
      'busy',
    );
    commands.overrides.set('mkfs.ext4', () => Promise.reject(commandError('mkfs.ext4', { missing: true })));
    const missing = await failure(maker(commands).make({ devicePath, fsType: 'ext4', everyByteIsZero: true }));
    expect(missing.kind).to.equal('tool-missing');
    expect(missing.message).to.match(/e2fsprogs/);
  });

  it('goes by the maker’s name, not by that of the flock that starts it', async () => {
    const commands = new DirectCommands();
    await maker(commands).make({ devicePath: image(16), fsType: 'ext4', everyByteIsZero: true });
    expect(commands.requests.map(({ file, program }) => program ?? file)).to.deep.equal([
      'mkfs.ext4',
      'mkfs.ext4',
      'sync',
    ]);
  });

  it('uses options only of versions that know them', () => {
    expect(parseVersion('mke2fs 1.47.0 (5-Feb-2023)')).to.deep.equal([1, 47, 0]);
    expect(parseVersion('mkfs.xfs version 6.1.0')).to.deep.equal([6, 1, 0]);
    expect(parseVersion('what')).to.deep.equal([0, 0, 0]);
    expect(ext4Arguments([1, 46, 5], true).join(' ')).not.to.match(/prezeroed|orphan/);
    expect(ext4Arguments([1, 47, 0], false).join(' ')).to.match(/lazy_itable_init=0.*\^orphan_file/);
    expect(xfsArguments([5, 10, 0]).join(' ')).to.equal('-q -f -K');
    expect(xfsArguments([6, 13, 0]).join(' ')).to.match(/nrext64=0,exchange=0 -n parent=0/);
  });

  it('nothing in the node plugin makes file systems', () => {
    const sources = new URL('../../../src/', import.meta.url);
    const seen = new Set<string>();
    const visit = (url: URL): void => {
      if (seen.has(url.href)) return;
      seen.add(url.href);
      const text = readFileSync(url, 'utf8');
      expect(text, url.pathname).not.to.match(/['"`]mkfs|mke2fs['"`]/);
      for (const [, path] of text.matchAll(/from '(\.[^']+)'/g)) visit(new URL(path as string, url));
    };
    for (const name of readdirSync(new URL('node/', sources))) {
      if (name.endsWith('.ts')) visit(new URL(`node/${name}`, sources));
    }
    expect([...seen].some((href) => href.endsWith('/filesystem/probe.ts'))).to.equal(true);
    expect([...seen].filter((href) => href.endsWith('/make.ts'))).to.deep.equal([]);
  });
});
