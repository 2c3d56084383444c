import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { checkExt4 } from '../../../src/filesystem/check.ts';
import { FileSystemError } from '../../../src/filesystem/errors.ts';
import { growFileSystem, parseXfsGeometry } from '../../../src/filesystem/grow.ts';
import { Mounts } from '../../../src/filesystem/mount.ts';
import { readExt4Superblock } from '../../../src/filesystem/superblock.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { skip } from '../../support/skip.ts';
import { commandError, type DirectCommands, hasProgram } from './support/direct-commands.ts';
import { canGrowExt4, type LoopDevice, Loops, MountNamespace, noLoopsReason, run } from './support/loop-devices.ts';

const MIB = 1024 * 1024;

describe('file systems mounted for real, on loop devices in a mount namespace of their own', () => {
  const files = new BlockingFiles();
  let loops: Loops;
  let namespace: MountNamespace;
  let commands: DirectCommands;
  let mounts: Mounts;
  let folder = '';

  before(async function () {
    const reason = noLoopsReason();
    if (reason !== undefined) skip(this, reason);
    loops = new Loops();
    namespace = await MountNamespace.create();
    commands = namespace.commands();
    mounts = new Mounts({ commands, files, mountInfoPath: namespace.mountInfoPath });
    folder = mkdtempSync(join(tmpdir(), 'mounted '));
    namespace.run('mount', '-t', 'tmpfs', 'tmpfs', folder);
    for (const name of ['a', 'b']) namespace.run('mkdir', join(folder, name));
  });
  after(async () => {
    await files.close();
    await namespace?.close();
    loops?.close();
    if (folder !== '') rmSync(folder, { recursive: true });
  });
  afterEach(async () => {
    commands?.overrides.clear();
    if (mounts === undefined) return;
    for (const path of [at('b'), at('a')]) {
      while ((await mounts.at(path)) !== undefined) await mounts.unmount(path, { lazy: true });
    }
  });

  const at = (name: string): string => join(folder, name);
  const failure = async (action: Promise<unknown>): Promise<FileSystemError> => {
    const error = await action.then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).to.be.instanceOf(FileSystemError);
    return error as FileSystemError;
  };
  function ext4(mebibytes: number): LoopDevice {
    const loop = loops.make(mebibytes * MIB);
    run('mkfs.ext4', '-q', '-F', '-b', '4096', '-T', 'default', loop.path);
    return loop;
  }

  it('mounts, binds, binds read-only, makes read-only, syncs, unmounts; each seen in the mount table', async () => {
    const loop = ext4(16);
    await mounts.mountDevice({
      devicePath: loop.path,
      fsType: 'ext4',
      mountPoint: at('a'),
      options: ['_netdev', 'noatime'],
    });
    expect(await mounts.at(at('a'))).to.deep.include({ majorMinor: loop.majorMinor, fsType: 'ext4', root: '/' });
    expect((await mounts.at(at('a')))?.options).to.include('noatime');
    await mounts.bind(at('a'), at('b'), ['_netdev', 'ro']);
    expect((await mounts.at(at('b')))?.options).to.include('ro');
    expect((await mounts.at(at('a')))?.options).to.include('rw');
    await mounts.unmount(at('b'));
    await mounts.bind(at('a'), at('b'), []);
    expect((await mounts.at(at('b')))?.options).to.include('rw');
    await mounts.remountReadOnly(at('b'));
    expect((await mounts.at(at('b')))?.options).to.include('ro');
    await mounts.sync(at('a'), 10_000);
    await mounts.unmount(at('b'));
    await mounts.unmount(at('a'));
    await mounts.unmount(at('a'));
    expect(await mounts.at(at('a'))).to.equal(undefined);
    loops.detach(loop);
  });

  it('a mount in use is "busy" and stays; a lazy unmount takes it away', async () => {
    const loop = ext4(16);
    await mounts.mountDevice({ devicePath: loop.path, fsType: 'ext4', mountPoint: at('a'), options: [] });
    const user = await namespace.enter(at('a'));
    expect((await failure(mounts.unmount(at('a')))).kind).to.equal('busy');
    expect(await mounts.at(at('a'))).not.to.equal(undefined);
    await mounts.unmount(at('a'), { lazy: true });
    expect(await mounts.at(at('a'))).to.equal(undefined);
    await user.leave();
    loops.detach(loop);
  });

  it('what the kernel refuses is told apart from what is in use', async () => {
    const loop = loops.make(16 * MIB);
    const spec = { devicePath: loop.path, fsType: 'ext4', mountPoint: at('a'), options: [] };
    expect((await failure(mounts.mountDevice(spec))).kind).to.be.oneOf(['other', 'io']);
    run('mkfs.ext4', '-q', '-F', loop.path);
    expect((await failure(mounts.mountDevice({ ...spec, options: ['nonsense'] }))).message).to.match(
      /options nonsense: the kernel refuses/,
    );
    loops.detach(loop);
  });

  it('FAKE runner: a sync that fails is an I/O error', async () => {
    commands.overrides.set('sync', () => Promise.reject(commandError('sync', { exitCode: 1 })));
    expect((await failure(mounts.sync(at('a'), 1_000))).kind).to.equal('io');
  });

  it('ext4 grows while it is mounted, once, and keeps its data', async function () {
    if (!canGrowExt4())
      skip(this, 'EXT4_IOC_RESIZE_FS needs CAP_SYS_RESOURCE, which this process has not (the lab tests it)');
    const loop = ext4(32);
    await mounts.mountDevice({ devicePath: loop.path, fsType: 'ext4', mountPoint: at('a'), options: [] });
    namespace.run('sh', '-c', `echo kept > '${at('a')}/file'`);
    const tools = { commands, files };
    const spec = { fsType: 'ext4', devicePath: loop.path, fileRoot: '', mountPoint: at('a') } as const;
    const before = commands.programs.length;
    expect(await growFileSystem(tools, { ...spec, deviceSizeBytes: 32 * MIB })).to.deep.equal({
      beforeBytes: 32 * MIB,
      afterBytes: 32 * MIB,
    });
    expect(commands.programs.slice(before)).to.deep.equal([]);
    loops.grow(loop, 256 * MIB);
    expect(await growFileSystem(tools, { ...spec, deviceSizeBytes: 256 * MIB })).to.deep.equal({
      beforeBytes: 32 * MIB,
      afterBytes: 256 * MIB,
    });
    expect((await growFileSystem(tools, { ...spec, deviceSizeBytes: 256 * MIB })).afterBytes).to.equal(256 * MIB);
    expect(namespace.run('cat', join(at('a'), 'file'))).to.equal('kept\n');
    await mounts.unmount(at('a'));
    run('e2fsck', '-f', '-n', loop.path);
    loops.detach(loop);
  });

  it('xfs grows while it is mounted; once more changes nothing', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    const loop = loops.make(300 * MIB);
    run('mkfs.xfs', '-q', '-f', loop.path);
    await mounts.mountDevice({ devicePath: loop.path, fsType: 'xfs', mountPoint: at('a'), options: ['nouuid'] });
    loops.grow(loop, 600 * MIB);
    const tools = { commands, files };
    const spec = {
      fsType: 'xfs',
      devicePath: loop.path,
      fileRoot: '',
      mountPoint: at('a'),
      deviceSizeBytes: 600 * MIB,
    } as const;
    expect(await growFileSystem(tools, spec)).to.deep.equal({ beforeBytes: 300 * MIB, afterBytes: 600 * MIB });
    expect(await growFileSystem(tools, spec)).to.deep.equal({ beforeBytes: 600 * MIB, afterBytes: 600 * MIB });
    await mounts.unmount(at('a'));
    loops.detach(loop);
  });

  it('xfs mounted over another file system does not shrink to that one (as xfs_growfs would by itself)', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    const beneath = ext4(256);
    await mounts.mountDevice({ devicePath: beneath.path, fsType: 'ext4', mountPoint: at('a'), options: [] });
    const loop = loops.make(300 * MIB);
    run('mkfs.xfs', '-q', '-f', loop.path);
    await mounts.mountDevice({ devicePath: loop.path, fsType: 'xfs', mountPoint: at('a'), options: [] });
    const spec = {
      fsType: 'xfs',
      devicePath: loop.path,
      fileRoot: '',
      mountPoint: at('a'),
      deviceSizeBytes: 300 * MIB,
    } as const;
    expect((await growFileSystem({ commands, files }, spec)).afterBytes).to.equal(300 * MIB);
    await mounts.unmount(at('a'));
    await mounts.unmount(at('a'));
    loops.detach(loop);
    loops.detach(beneath);
  });

  it('xfs_growfs that says nothing of sizes is an error', () => {
    expect(() => parseXfsGeometry('', '/a')).to.throw(FileSystemError);
  });

  describe('the check before a mount', () => {
    const check = (path: string): Promise<string> => checkExt4({ commands, files }, { devicePath: path, fileRoot: '' });

    function image(): string {
      const path = join(tmpdir(), `check-${Math.random().toString(36).slice(2)}.img`);
      writeFileSync(path, '');
      truncateSync(path, 32 * MIB);
      run('mkfs.ext4', '-q', '-F', '-b', '4096', path);
      return path;
    }

    it('clean: e2fsck is not even started', async () => {
      const path = image();
      const before = commands.programs.length;
      expect(await check(path)).to.equal('clean');
      expect(commands.programs.slice(before)).to.deep.equal([]);
      rmSync(path);
    });

    it('marked as damaged, and repairable: repaired', async () => {
      const path = image();
      run('debugfs', '-w', '-R', 'ssv state 2', path);
      run('debugfs', '-w', '-R', 'ssv free_blocks_count 1', path);
      expect(await check(path)).to.be.oneOf(['repaired', 'checked']);
      expect((await readExt4Superblock(files, path))?.hasErrors).to.equal(false);
      rmSync(path);
    });

    it('damage that needs a decision: refused', async () => {
      const path = image();
      run('debugfs', '-w', '-R', 'ssv state 2', path);
      // The root folder is cleared: only a human may let e2fsck make a new one.
      run('debugfs', '-w', '-R', 'clri <2>', path);
      expect((await failure(check(path))).kind).to.equal('needs-repair');
      rmSync(path);
    });

    it('FAKE runner: e2fsck not installed, e2fsck that fails otherwise', async () => {
      const path = image();
      run('debugfs', '-w', '-R', 'ssv state 2', path);
      commands.overrides.set('e2fsck', () => Promise.reject(commandError('e2fsck', { missing: true })));
      expect((await failure(check(path))).kind).to.equal('tool-missing');
      commands.overrides.set('e2fsck', () => Promise.reject(commandError('e2fsck', { exitCode: 8 })));
      expect((await failure(check(path))).kind).to.equal('other');
      rmSync(path);
    });
  });
});
