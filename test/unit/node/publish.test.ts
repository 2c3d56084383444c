import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { skip } from '../../support/skip.ts';
import { canGrowExt4, run } from '../filesystem/support/loop-devices.ts';
import { failure, MIB, type NodeBench, useNodeBench } from './support/node-bench.ts';

describe('publish, unpublish, statistics, expansion: real mounts on loop devices, FAKE initiator', () => {
  const suite = useNodeBench();
  let bench: NodeBench;
  before(() => {
    bench = suite.bench;
  });

  it('mount: the data is seen at the target, the flags of the staging mount hold, twice is once', async () => {
    const volume = bench.ext4();
    await volume.stage({ capability: volume.capability('SINGLE_NODE_WRITER', ['noexec']) });
    await volume.publish();
    await volume.publish();
    expect(volume.mounts).to.have.length(2);
    expect(volume.mounts[1]).to.match(/noexec/);
    const bind = bench.commands.requests.findLast(({ args }) => args.includes(volume.targetPath()));
    expect(bind?.args.join(' ')).to.match(/bind,_netdev/);
    volume.sh(`echo x > '${volume.targetPath()}/f'`);
    expect(volume.sh(`cat '${volume.stagingPath}/f'`)).to.equal('x\n');
    await volume.unpublish();
    await volume.unpublish();
    expect(existsSync(volume.targetPath())).to.equal(false);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('read-only beside writable; other arguments at the same target are refused', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    await volume.publish({ targetPath: volume.targetPath('b'), readonly: true });
    expect(volume.mounts.find((line) => line.includes('-b '))).to.match(/ ro,/);
    expect(() => volume.sh(`echo x > '${volume.targetPath('b')}/f' 2>/dev/null`)).to.throw();
    await failure(volume.publish({ readonly: true }), 'ALREADY_EXISTS', /for writing; asked: mount, read-only/);
    await failure(
      volume.publish({ targetPath: volume.targetPath('b') }),
      'ALREADY_EXISTS',
      /asked: mount, for writing/,
    );
    for (const name of ['a', 'b']) await volume.unpublish(name);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('SINGLE_NODE_SINGLE_WRITER: one target at a time; other modes: several', async () => {
    const volume = bench.ext4();
    const capability = volume.capability('SINGLE_NODE_SINGLE_WRITER');
    await volume.stage({ capability });
    await volume.publish({ capability });
    await volume.publish({ capability });
    const second = { capability, targetPath: volume.targetPath('b') };
    await failure(volume.publish(second), 'FAILED_PRECONDITION', /one target at a time.*target/);
    await volume.unpublish();
    await volume.publish(second);
    await volume.unpublish('b');
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('the access mode counts: staged for writing and published for reading, another kind of access, another mode', async () => {
    const volume = bench.ext4();
    await volume.stage();
    const reader = { capability: volume.capability('MULTI_NODE_READER_ONLY') };
    await failure(volume.publish(reader), 'FAILED_PRECONDITION', /staged for writing.*MULTI_NODE_READER_ONLY/);
    await volume.publish();
    await failure(volume.publish(reader), 'ALREADY_EXISTS', /MULTI_NODE_READER_ONLY/);
    const single = { capability: volume.capability('SINGLE_NODE_SINGLE_WRITER') };
    await failure(volume.publish(single), 'ALREADY_EXISTS', /SINGLE_NODE_WRITER; asked: .*SINGLE_NODE_SINGLE_WRITER/);
    await volume.publish({ capability: volume.capability('SINGLE_NODE_MULTI_WRITER') });
    const block = { access: { kind: 'block' }, mode: 'SINGLE_NODE_WRITER' } as const;
    await failure(volume.publish({ capability: block }), 'ALREADY_EXISTS', /mount, for writing; asked: block/);
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('a target that is only remembered, with nothing mounted there, is no publish', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    volume.sh(`umount '${volume.targetPath()}'`);
    await volume.publish({ readonly: true });
    expect(volume.record?.['targets']).to.have.length(1);
    expect(volume.mounts[1]).to.match(/ ro,/);
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('without staging, with another staging path, with another kind of access', async () => {
    const volume = bench.ext4();
    await failure(volume.publish(), 'FAILED_PRECONDITION', /NodeStageVolume first/);
    await failure(volume.publish({ stagingPath: '' }), 'FAILED_PRECONDITION', /no staging path/);
    await volume.stage();
    await failure(volume.publish({ stagingPath: '/nowhere/else' }), 'FAILED_PRECONDITION', /it is staged at/);
    const block = { access: { kind: 'block' }, mode: 'SINGLE_NODE_WRITER' } as const;
    await failure(volume.publish({ capability: block }), 'FAILED_PRECONDITION', /staged for mount/);
    bench.initiator.dropSession(volume.targetIqn);
    await failure(volume.publish(), 'FAILED_PRECONDITION', /session \d+ has ended/);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('something else at the target is refused with what was found, and left alone', async () => {
    const volume = bench.ext4();
    await volume.stage();
    const target = volume.targetPath();
    volume.sh(`mkdir '${target}' && mount -t tmpfs tmpfs '${target}'`);
    await failure(volume.publish(), 'FAILED_PRECONDITION', /something else is mounted.*tmpfs/);
    await failure(volume.unpublish(), 'FAILED_PRECONDITION', /not this volume.*tmpfs/);
    volume.sh(`umount '${target}'; rmdir '${target}'; echo data > '${target}'`);
    await failure(volume.publish(), 'FAILED_PRECONDITION', /a file in the place of a folder/);
    await failure(volume.unpublish(), 'FAILED_PRECONDITION', /never deleted/);
    rmSync(target);
    expect(volume.record).to.deep.include({ targets: [] });
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('files beneath the target are never deleted', async () => {
    const volume = bench.ext4();
    const target = volume.targetPath();
    volume.sh(`mkdir '${target}'; echo mine > '${target}/file'`);
    await failure(volume.unpublish(), 'FAILED_PRECONDITION', /folder with files/);
    expect(readFileSync(`${target}/file`, 'utf8')).to.equal('mine\n');
    rmSync(target, { recursive: true });
  });

  it('without a record: a disk of the volume alone is unmounted, not whatever file system is there', async () => {
    const [volume, other] = [bench.ext4(), bench.ext4()];
    await volume.stage();
    await volume.publish();
    run('rm', volume.recordPath);
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
    await other.stage();
    await other.publish();
    await failure(
      bench.plugin.unpublish(volume.id, other.targetPath()),
      'FAILED_PRECONDITION',
      /not this volume.*ext4/,
    );
    expect(other.mounts).to.have.length(2);
    await other.unpublish();
    await other.unstage();
    other.expectNothingLeft();
  });

  it('a full disk under the record does not keep a pod from ending; what is remembered then does no harm', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    const { writeDurably } = bench.files;
    bench.files.writeDurably = () =>
      Promise.reject(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' }));
    await volume.unpublish();
    bench.files.writeDurably = writeDurably;
    expect(volume.record?.['targets']).to.have.length(1);
    expect(existsSync(volume.targetPath())).to.equal(false);
    await volume.publish({ readonly: true });
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('in use: unpublish is refused, and the mount stays', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    const user = await bench.namespace.enter(volume.targetPath());
    await failure(volume.unpublish(), 'FAILED_PRECONDITION', /in use/);
    expect(volume.mounts).to.have.length(2);
    await user.leave();
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('block: the right device node at the target, after a rescan', async () => {
    const volume = bench.raw();
    await volume.stage();
    await volume.publish();
    await volume.publish();
    expect(volume.mounts).to.have.length(1);
    expect(volume.sh(`stat -c '%F %Hr:%Lr' '${volume.targetPath()}'`)).to.equal(
      `block special file ${volume.loop.majorMinor}\n`,
    );
    expect(bench.initiator.calls.at(-1)).to.equal(`rescan ${volume.loop.name}`);
    await failure(volume.unstage(), 'FAILED_PRECONDITION', /still published.*device node loop/);
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('block: read-only needs a read-only attachment', async () => {
    const volume = bench.raw();
    await volume.stage();
    await failure(volume.publish({ readonly: true }), 'FAILED_PRECONDITION', /attach it read-only/);
    volume.expectNothingLeftButStaging();
    await volume.unstage();
    volume.target.readOnly = true;
    await volume.stage({ capability: volume.capability('MULTI_NODE_READER_ONLY') });
    await volume.publish({ readonly: true, capability: volume.capability('MULTI_NODE_READER_ONLY') });
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('block: another disk under the same session is refused', async () => {
    const volume = bench.raw();
    await volume.stage();
    volume.target.serial = 'e'.repeat(32);
    await failure(volume.publish(), 'FAILED_PRECONDITION', /serial number/);
    volume.target.serial = volume.serial;
    await volume.unstage();
  });

  it('unpublish after a reboot: the empty leftovers of both kinds go, whatever the record says', async () => {
    const volume = bench.ext4();
    run('mkdir', volume.targetPath('a'));
    writeFileSync(volume.targetPath('b'), '');
    for (const name of ['a', 'b', 'none']) await volume.unpublish(name);
    volume.expectNothingLeft();
  });

  describe('statistics', () => {
    it('file system, at staging and target path', async () => {
      const volume = bench.ext4();
      await volume.stage();
      await volume.publish();
      for (const path of [volume.stagingPath, volume.targetPath()]) {
        const stats = await bench.plugin.stats(volume.id, path, undefined);
        if (stats.kind !== 'mount') throw new Error(stats.kind);
        expect(stats.totalBytes).to.be.within(10 * MIB, 16 * MIB);
        expect(stats.usedBytes + stats.availableBytes).to.be.at.most(stats.totalBytes);
        expect(stats.totalInodes).to.equal(stats.usedInodes + stats.freeInodes);
      }
      await volume.unpublish();
      await volume.unstage();
    });

    it('block: size of the disk', async () => {
      const volume = bench.raw();
      await volume.stage();
      await volume.publish();
      expect(await bench.plugin.stats(volume.id, volume.targetPath(), undefined)).to.deep.equal({
        kind: 'block',
        totalBytes: 16 * MIB,
      });
      await volume.unpublish();
      await volume.unstage();
    });

    it('unknown volume or path: NOT_FOUND, also for paths and ids of no sensible shape', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const { plugin } = bench;
      await failure(
        plugin.stats('fake-vol-id-1', volume.stagingPath, undefined),
        'NOT_FOUND',
        /is not staged on this node; to do: call NodeStageVolume/,
      );
      for (const path of ['some/path', '/some/path', '/', volume.targetPath()]) {
        await failure(
          plugin.stats(volume.id, path, undefined),
          'NOT_FOUND',
          /is not at .*staged at.*; to do: name one of these/,
        );
        const request = { volumeId: volume.id, volumePath: path, stagingPath: undefined, requiredBytes: 0 };
        await failure(plugin.expand(request), 'NOT_FOUND');
      }
      await volume.unstage();
      await failure(plugin.stats(volume.id, volume.stagingPath, undefined), 'NOT_FOUND');
    });
  });

  describe('expansion', () => {
    it('ext4 grows online, to the whole disk; once more changes nothing', async function () {
      if (!canGrowExt4())
        skip(this, 'EXT4_IOC_RESIZE_FS needs CAP_SYS_RESOURCE, which this process has not (the lab tests it)');
      const volume = bench.ext4(64 * MIB);
      await volume.stage();
      await volume.publish();
      bench.loops.grow(volume.loop, 200 * MIB);
      volume.target.sizeBytes = 200 * MIB;
      const request = {
        volumeId: volume.id,
        volumePath: volume.targetPath(),
        stagingPath: undefined,
        requiredBytes: 200 * MIB,
      };
      expect(await bench.plugin.expand(request)).to.equal(200 * MIB);
      expect(await bench.plugin.expand(request)).to.equal(200 * MIB);
      const stats = await bench.plugin.stats(volume.id, volume.stagingPath, undefined);
      expect(stats.totalBytes).to.be.above(150 * MIB);
      await volume.unpublish();
      await volume.unstage();
    });

    it('block: the new size; not there yet: UNAVAILABLE', async () => {
      const volume = bench.raw();
      await volume.stage();
      await volume.publish();
      const request = {
        volumeId: volume.id,
        volumePath: volume.targetPath(),
        stagingPath: undefined,
        requiredBytes: 32 * MIB,
      };
      await failure(bench.plugin.expand(request), 'UNAVAILABLE', /smaller than it must be.*16777216 bytes of 33554432/);
      bench.loops.grow(volume.loop, 32 * MIB);
      volume.target.sizeBytes = 32 * MIB;
      expect(await bench.plugin.expand(request)).to.equal(32 * MIB);
      await volume.unpublish();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('the file system is grown only where it is: at the staging path, on this disk', async () => {
      const volume = bench.ext4();
      await volume.stage();
      await volume.publish();
      bench.loops.grow(volume.loop, 32 * MIB);
      volume.target.sizeBytes = 32 * MIB;
      const request = {
        volumeId: volume.id,
        volumePath: volume.targetPath(),
        stagingPath: undefined,
        requiredBytes: 32 * MIB,
      };
      const programs = bench.commands.requests.length;
      volume.sh(`mount -t tmpfs tmpfs '${volume.stagingPath}'`);
      await failure(bench.plugin.expand(request), 'FAILED_PRECONDITION', /cannot be grown.*tmpfs/);
      volume.sh(`umount '${volume.stagingPath}' && umount '${volume.stagingPath}'`);
      await failure(bench.plugin.expand(request), 'FAILED_PRECONDITION', /nothing mounted/);
      expect(bench.commands.programs.slice(programs)).not.to.include('resize2fs');
      await volume.unpublish();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('staged for reading: the disk is looked at, the file system left as it is', async () => {
      const volume = bench.ext4();
      await volume.stage({ capability: volume.capability('MULTI_NODE_READER_ONLY') });
      bench.loops.grow(volume.loop, 32 * MIB);
      volume.target.sizeBytes = 32 * MIB;
      const request = { volumeId: volume.id, volumePath: volume.stagingPath, stagingPath: undefined, requiredBytes: 0 };
      expect(await bench.plugin.expand(request)).to.equal(32 * MIB);
      expect(bench.commands.programs).not.to.include('resize2fs');
      await volume.unstage();
    });
  });
});
