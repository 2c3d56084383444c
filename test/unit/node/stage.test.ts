import { closeSync, constants, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { IscsiError } from '../../../src/iscsi/initiator/errors.ts';
import { skip } from '../../support/skip.ts';
import { hasProgram } from '../filesystem/support/direct-commands.ts';
import { MountNamespace, run } from '../filesystem/support/loop-devices.ts';
import { REFUSED } from './support/fake-initiator.ts';
import { type BenchVolume, failure, MIB, type NodeBench, PORTAL, useNodeBench } from './support/node-bench.ts';

describe('stage and unstage: real mounts on loop devices, FAKE initiator', () => {
  const suite = useNodeBench();
  let bench: NodeBench;
  before(() => {
    bench = suite.bench;
  });
  beforeEach(() => {
    const { initiator } = bench;
    initiator.calls.length = 0;
    initiator.loginError = undefined;
    initiator.flushError = undefined;
    initiator.logoutError = undefined;
    initiator.reachAnswer = { kind: 'unreachable' };
    initiator.reachAnswers.clear();
    initiator.witnessAnswers = ['authorization'];
    initiator.hidesDisk = false;
  });

  const hash = (volume: BenchVolume): string => run('sha256sum', volume.loop.image).slice(0, 64);

  it('ext4: mounted with the flags asked for and _netdev; unstaged without a trace', async () => {
    const volume = bench.ext4();
    await volume.stage({ capability: volume.capability('SINGLE_NODE_WRITER', ['noatime']) });
    expect(volume.mounts).to.have.length(1);
    expect(volume.mounts[0]).to.match(/rw,noatime .* ext4 \/dev\/loop/);
    const mount = bench.commands.requests.findLast(({ file }) => file === 'mount');
    expect(mount?.args.join(' ')).to.match(/-t ext4 -o _netdev,noatime --/);
    volume.sh(`echo data > '${volume.stagingPath}/file'`);
    await volume.unstage();
    expect(bench.initiator.calls).to.deep.equal([
      'login 10.0.0.1:3260',
      'remove flushed',
      'logout running',
      'delete record',
    ]);
    volume.expectNothingLeft();
  });

  it('mount flags in one string, as mount(8) takes them', async () => {
    const volume = bench.ext4();
    await volume.stage({ capability: volume.capability('SINGLE_NODE_WRITER', ['noatime,ro']) });
    expect(volume.mounts[0]).to.match(/ ro,noatime .* ext4 /);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('the record is 0600 and holds no secret', async () => {
    const volume = bench.ext4();
    await volume.stage();
    expect(statSync(volume.recordPath).mode & 0o777).to.equal(0o600);
    expect(readFileSync(volume.recordPath, 'utf8')).not.to.match(/not-to-be-seen|user-/);
    expect(volume.record).to.deep.include({ nonce: volume.nonce, phase: 'staged', access: 'mount', targets: [] });
    await volume.unstage();
  });

  it('xfs, with nouuid', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    const volume = bench.volume((loop) => run('mkfs.xfs', '-q', '-f', loop.path), {
      content: { kind: 'filesystem', fsType: 'xfs' },
      sizeBytes: 300 * MIB,
    });
    await volume.stage();
    expect(volume.mounts[0]).to.match(/ xfs .*nouuid/);
    await volume.stage();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('xfs smaller than its disk is grown', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    const volume = bench.volume((loop) => run('mkfs.xfs', '-q', '-f', '-d', 'size=300m', loop.path), {
      content: { kind: 'filesystem', fsType: 'xfs' },
      sizeBytes: 500 * MIB,
    });
    await volume.stage();
    expect(bench.namespace.run('xfs_growfs', '-n', volume.stagingPath)).to.match(/^data.*blocks=128000/m);
    await volume.unstage();
  });

  it('twice: the second call changes nothing, and verifies the disk again', async () => {
    const volume = bench.ext4();
    await volume.stage();
    const written = statSync(volume.recordPath).ino;
    const programs = bench.commands.requests.length;
    bench.initiator.calls.length = 0;
    await volume.stage();
    expect(bench.initiator.calls).to.deep.equal([`rescan ${volume.loop.name}`]);
    expect(bench.commands.requests.length).to.equal(programs);
    expect(statSync(volume.recordPath).ino).to.equal(written);
    await volume.unstage();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('block: nothing is mounted', async () => {
    const volume = bench.raw();
    await volume.stage();
    expect(volume.mounts).to.deep.equal([]);
    expect(volume.record).to.deep.include({ phase: 'staged', access: 'block' });
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('readers: ro and noload, no check, no growth, not one byte written, also with a dirty journal', async () => {
    const volume = bench.ext4();
    run('debugfs', '-w', '-R', 'feature needs_recovery', volume.loop.path);
    const before = hash(volume);
    await volume.stage({ capability: volume.capability('MULTI_NODE_READER_ONLY') });
    expect(volume.mounts[0]).to.match(/ ro,relatime .*norecovery|ro,.*noload/);
    expect(bench.commands.programs).not.to.include('e2fsck');
    await volume.unstage();
    expect(hash(volume)).to.equal(before);
    volume.expectNothingLeft();
  });

  describe('what the disk holds is not what the controller made: refused, bytes unchanged, nothing left', () => {
    const cases: [string, (path: string) => void, RegExp][] = [
      ['another file system', (path) => run('mkfs.ext2', '-q', '-F', path), /file system of type ext2/],
      ['swap', (path) => run('mkswap', path), /found: swap/],
      ['a LUKS header', (path) => writeHead(path, Buffer.from('LUKS\xba\xbe\x00\x01', 'latin1')), /LUKS/],
      ['raw data', (path) => writeHead(path, Buffer.alloc(4096, 'x')), /data without any known signature/],
      ['nothing', () => undefined, /nothing: no signature/],
    ];
    for (const [name, make, words] of cases) {
      it(name, async () => {
        const volume = bench.volume((loop) => make(loop.path));
        const before = hash(volume);
        const error = await failure(volume.stage(), 'FAILED_PRECONDITION', words);
        expect(error.message).to.match(/never formatted/);
        expect(hash(volume)).to.equal(before);
        expect(bench.initiator.calls.slice(-2)).to.deep.equal(['logout running', 'delete record']);
        volume.expectNothingLeft();
      });
    }
    it('a file system larger than the disk', async () => {
      const volume = bench.ext4(32 * MIB);
      bench.loops.grow(volume.loop, 16 * MIB);
      volume.target.sizeBytes = 16 * MIB;
      await failure(volume.stage(), 'FAILED_PRECONDITION', /does not fit its disk.*33554432/);
      volume.expectNothingLeft();
    });
  });

  describe('the wrong disk', () => {
    it('another serial number', async () => {
      const volume = bench.ext4();
      volume.target.serial = 'f'.repeat(32);
      await failure(volume.stage(), 'FAILED_PRECONDITION', /serial number "f+" instead of "0123/);
      volume.expectNothingLeft();
    });
    it('a serial number that cannot be read may be retried', async () => {
      const volume = bench.ext4();
      volume.target.serial = undefined;
      await failure(volume.stage(), 'UNAVAILABLE', /0x80/);
      volume.expectNothingLeft();
    });
    it('swapped under a staged volume: the repeated call sees it, and tears nothing down', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.target.serial = 'f'.repeat(32);
      await failure(volume.stage(), 'FAILED_PRECONDITION', /serial/);
      expect(volume.mounts).to.have.length(1);
      volume.target.serial = volume.serial;
      await volume.unstage();
    });
    it('too small, or not there: may be retried', async () => {
      const volume = bench.ext4();
      const publishContext = { ...volume.context, sizeBytes: 32 * MIB };
      await failure(volume.stage({ publishContext }), 'UNAVAILABLE', /smaller/);
      bench.initiator.hidesDisk = true;
      await failure(volume.stage(), 'UNAVAILABLE', /did not appear/);
      volume.expectNothingLeft();
    });
    it('taken by a device-mapper device of this node', async () => {
      const volume = bench.ext4();
      const { findDisk } = bench.initiator;
      bench.initiator.findDisk = async (session, lun) => {
        bench.initiator.hold(volume.targetIqn, 'dm-7');
        bench.initiator.findDisk = findDisk;
        return await findDisk.call(bench.initiator, session, lun);
      };
      await failure(volume.stage(), 'FAILED_PRECONDITION', /dm-7/);
      volume.expectNothingLeft();
    });
    it('mounted elsewhere by somebody else', async () => {
      const volume = bench.ext4();
      volume.sh(`mkdir '${volume.targetPath('x')}' && mount ${volume.loop.path} '${volume.targetPath('x')}'`);
      const programs = bench.commands.requests.length;
      await failure(volume.stage(), 'ABORTED', /mounted already.*target/);
      expect(bench.commands.programs.slice(programs)).to.deep.equal([]);
      // It is not logged out under somebody's mount.
      expect(volume.session.state).to.equal('LOGGED_IN');
      volume.sh(`umount '${volume.targetPath('x')}'; rmdir '${volume.targetPath('x')}'`);
      await volume.stage();
      await volume.unstage();
      volume.expectNothingLeft();
    });
  });

  describe('somebody has the disk exclusively: a check or mount of an earlier call that still runs', () => {
    const hold = (volume: BenchVolume): (() => void) => {
      const fd = openSync(volume.loop.path, constants.O_RDONLY | constants.O_EXCL);
      return () => closeSync(fd);
    };
    const words = /held exclusively.*e2fsck.*still runs/;

    it('no second check, no mount, no logout; the retry goes on', async () => {
      const volume = bench.ext4();
      run('debugfs', '-w', '-R', 'feature needs_recovery', volume.loop.path);
      const release = hold(volume);
      const programs = bench.commands.requests.length;
      for (const attempt of [1, 2]) {
        await failure(volume.stage(), 'ABORTED', words);
        expect(bench.commands.programs.slice(programs), `attempt ${attempt}`).to.deep.equal([]);
        expect(volume.session.state).to.equal('LOGGED_IN');
      }
      await failure(volume.stage({ capability: volume.capability('SINGLE_NODE_READER_ONLY') }), 'ABORTED', words);
      expect(volume.session.state).to.equal('LOGGED_IN');
      release();
      await volume.stage();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a failure of another kind does not log out under it', async () => {
      const volume = bench.ext4();
      const release = hold(volume);
      volume.target.serial = undefined;
      await failure(volume.stage(), 'ABORTED', /0x80.*held exclusively/);
      expect(volume.session.state).to.equal('LOGGED_IN');
      expect(volume.record).to.deep.include({ phase: 'attaching' });
      release();
      volume.target.serial = volume.serial;
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('unstage neither removes the disk nor logs out', async () => {
      const volume = bench.raw();
      await volume.stage();
      const release = hold(volume);
      bench.initiator.calls.length = 0;
      await failure(volume.unstage(), 'ABORTED', words);
      expect(bench.initiator.calls).to.deep.equal([]);
      release();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('unstage: the file system lives on in another mount namespace', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const other = await MountNamespace.create();
      other.run('mount', '-t', 'ext4', volume.loop.path, bench.folder);
      const sysfs = `${bench.folder}/sys/fs/ext4/${volume.loop.name}`;
      mkdirSync(sysfs, { recursive: true });
      bench.initiator.calls.length = 0;
      await failure(volume.unstage(), 'ABORTED', /ext4 is mounted.*another mount namespace/);
      expect(volume.mounts).to.deep.equal([]);
      expect(bench.initiator.calls).to.deep.equal([]);
      await other.close();
      rmSync(sysfs, { recursive: true });
      await volume.unstage();
      volume.expectNothingLeft();
    });
  });

  it('the staging mount has gone while a target stays: mounted anew, without a repair', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await volume.publish();
    volume.sh(`umount '${volume.stagingPath}'`);
    const programs = bench.commands.requests.length;
    await volume.stage();
    expect(bench.commands.programs.slice(programs)).to.deep.equal(['blkid', 'mount']);
    expect(volume.mounts).to.have.length(2);
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('a staging path with something else on it is refused with what was found', async () => {
    const volume = bench.ext4();
    volume.sh(`mount -t tmpfs tmpfs '${volume.stagingPath}'`);
    await failure(volume.stage(), 'FAILED_PRECONDITION', /tmpfs/);
    volume.sh(`umount '${volume.stagingPath}'`);
    volume.expectNothingLeft();
  });

  it('a staging path that is not there', async () => {
    const volume = bench.ext4();
    run('rmdir', volume.stagingPath);
    await failure(volume.stage(), 'FAILED_PRECONDITION', /no such folder/);
    volume.expectNothingLeft();
  });

  it('a failed mount keeps its error and leaves nothing', async () => {
    const volume = bench.ext4();
    const capability = volume.capability('SINGLE_NODE_WRITER', ['nonsense']);
    await failure(volume.stage({ capability }), 'INTERNAL', /refuses it.*mount option/);
    volume.expectNothingLeft();
  });

  it('an undo that fails: the rest is taken back, and the answer is one after which kubelet comes to unstage', async () => {
    const volume = bench.ext4();
    const capability = volume.capability('SINGLE_NODE_WRITER', ['nonsense']);
    bench.initiator.logoutError = new IscsiError('timeout', 'iscsid does not let it go');
    await failure(volume.stage({ capability }), 'ABORTED', /refuses it.*not taken back: iSCSI session.*let it go/);
    expect(volume.record).to.deep.include({ phase: 'attaching' });
    bench.initiator.logoutError = undefined;
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('damage that e2fsck -p does not repair: refused', async () => {
    const volume = bench.ext4();
    run('debugfs', '-w', '-R', 'ssv state 2', volume.loop.path);
    run('debugfs', '-w', '-R', 'clri <2>', volume.loop.path);
    await failure(volume.stage(), 'FAILED_PRECONDITION', /damage/);
    volume.expectNothingLeft();
  });

  it('a dirty journal is replayed before the mount', async () => {
    const volume = bench.ext4();
    run('debugfs', '-w', '-R', 'feature needs_recovery', volume.loop.path);
    await volume.stage();
    expect(bench.commands.programs).to.include('e2fsck');
    await volume.unstage();
  });

  it('login fails: the code says whether to wait, and nothing is left', async () => {
    const volume = bench.ext4();
    for (const [kind, code] of [
      ['unreachable', 'UNAVAILABLE'],
      ['timeout', 'UNAVAILABLE'],
      ['auth-failed', 'FAILED_PRECONDITION'],
      ['target-not-found', 'FAILED_PRECONDITION'],
      ['missing', 'FAILED_PRECONDITION'],
    ] as const) {
      bench.initiator.loginError = new IscsiError(kind, `fake ${kind}`);
      await failure(volume.stage(), code, new RegExp(`could not be staged; found: fake ${kind}`));
      volume.expectNothingLeft();
    }
  });

  it('several portals: the first that answers', async () => {
    const volume = bench.ext4();
    const login = bench.initiator.login.bind(bench.initiator);
    const tried: string[] = [];
    bench.initiator.login = async (spec) => {
      tried.push(spec.portal);
      if (spec.portal !== '10.0.0.2:3260') throw new IscsiError('unreachable', 'no answer');
      return await login(spec);
    };
    await volume.stage({
      publishContext: { ...volume.context, portals: ['10.0.0.1:3260', '10.0.0.2:3260', '[fd::1]:3260'] },
    });
    bench.initiator.login = login;
    expect(tried).to.deep.equal(['10.0.0.1:3260', '10.0.0.2:3260']);
    // What a login that died at the first portal has left there.
    bench.initiator.iscsiRecords.add(`${volume.targetIqn} 10.0.0.1:3260`);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('requests that cannot be right are refused before anything is done', async () => {
    const volume = bench.ext4();
    const other = bench.ext4();
    const access = { kind: 'mount', fsType: 'xfs', mountFlags: [] } as const;
    await failure(volume.stage({ publishContext: other.context }), 'INVALID_ARGUMENT', /target named/);
    await failure(
      volume.stage({ capability: { access, mode: 'SINGLE_NODE_WRITER' } }),
      'FAILED_PRECONDITION',
      /made ext4/,
    );
    await failure(
      volume.stage({ capability: volume.capability('MULTI_NODE_MULTI_WRITER') }),
      'INVALID_ARGUMENT',
      /several nodes/,
    );
    for (const flag of ['bind', 'remount', 'loop', 'x-mount.mkdir', 'offset=5', 'a b', 'noatime,bind']) {
      const capability = volume.capability('SINGLE_NODE_WRITER', [flag]);
      await failure(volume.stage({ capability }), 'INVALID_ARGUMENT', /mount flag/);
    }
    const raw = bench.raw();
    await failure(
      raw.stage({ capability: { access: { ...access, fsType: '' }, mode: 'SINGLE_NODE_WRITER' } }),
      'FAILED_PRECONDITION',
      /raw block/,
    );
    expect(bench.initiator.calls).to.deep.equal([]);
  });

  it('staged with one capability, asked with another; staged at one path, asked at another', async () => {
    const volume = bench.ext4();
    await volume.stage();
    await failure(
      volume.stage({ capability: volume.capability('SINGLE_NODE_READER_ONLY') }),
      'ALREADY_EXISTS',
      /reading only/,
    );
    const other = `${volume.stagingPath} other`;
    run('mkdir', other);
    await failure(volume.stage({ stagingPath: other }), 'FAILED_PRECONDITION', /it is staged at/);
    await failure(bench.plugin.unstage(volume.id, other), 'FAILED_PRECONDITION', /it is staged at/);
    expect(volume.mounts).to.have.length(1);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  it('a read-only attachment of a writer is staged for reading', async () => {
    const volume = bench.ext4();
    volume.target.readOnly = true;
    await volume.stage();
    expect(volume.mounts[0]).to.match(/ ro,/);
    // kubelet does not pass the PersistentVolume's csi.readOnly on to the publish.
    await volume.publish();
    await volume.publish();
    expect(volume.mounts[1]).to.match(/target.* ro,/);
    await volume.publish({ readonly: true, targetPath: volume.targetPath('b') });
    for (const name of ['a', 'b']) await volume.unpublish(name);
    await volume.unstage();
    volume.expectNothingLeft();
  });

  describe('unstage under stress', () => {
    it('published still: refused, and names the mount', async () => {
      const volume = bench.ext4();
      await volume.stage();
      await volume.publish();
      await failure(volume.unstage(), 'FAILED_PRECONDITION', /still published.*target/);
      expect(volume.mounts).to.have.length(2);
      await volume.unpublish();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a device of this node on top of the disk: refused', async () => {
      const volume = bench.raw();
      await volume.stage();
      bench.initiator.hold(volume.targetIqn, 'dm-3');
      await failure(volume.unstage(), 'FAILED_PRECONDITION', /dm-3/);
      expect(bench.initiator.live).to.have.length(1);
      run('rmdir', `${bench.folder}/sys/block/${volume.loop.name}/holders/dm-3`);
      await volume.unstage();
    });

    it('the data cannot be written: nothing is torn down, the retry goes on', async () => {
      const volume = bench.ext4();
      await volume.stage();
      bench.commands.overrides.set('sync', (request) =>
        bench.namespace.commands().run({ ...request, args: ['-f', '--', '/nowhere'] }),
      );
      await failure(volume.unstage(), 'UNAVAILABLE', /could not be written/);
      bench.commands.overrides.clear();
      expect(volume.mounts).to.have.length(1);
      bench.initiator.flushError = new IscsiError('flush-failed', 'writing back failed');
      await failure(volume.unstage(), 'UNAVAILABLE', /writing back failed/);
      expect(bench.initiator.calls).not.to.include('logout running');
      expect(bench.initiator.live).to.have.length(1);
      bench.initiator.flushError = undefined;
      // The kernel has reported both errors once: from now on each sync succeeds. The loss must be said nevertheless.
      expect(volume.record?.['lostData']).to.have.length(2);
      bench.restart();
      expect(bench.lostData).to.equal(0);
      await volume.unstage();
      expect(bench.lostData).to.equal(1);
      volume.expectNothingLeft();
    });

    it('a file system that has turned read-only by itself: unstaged, and said', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const before = bench.lostData;
      // The superblock alone, as after an error.
      volume.sh(`mount -o remount,ro '${volume.stagingPath}' && mount -o remount,bind,rw '${volume.stagingPath}'`);
      expect(volume.mounts[0]).to.match(/ rw,.* ext4 \S+ ro/);
      await volume.unstage();
      expect(bench.lostData).to.equal(before + 1);
      const reader = bench.ext4();
      await reader.stage({ capability: reader.capability('SINGLE_NODE_WRITER', ['ro']) });
      await reader.unstage();
      expect(bench.lostData).to.equal(before + 1);
    });

    it('a file system that has shut itself down can still be unstaged', async function () {
      if (!hasProgram('xfs_io')) skip(this, 'xfs_io is not installed (package xfsprogs)');
      const volume = bench.volume((loop) => run('mkfs.xfs', '-q', '-f', loop.path), {
        content: { kind: 'filesystem', fsType: 'xfs' },
        sizeBytes: 300 * MIB,
      });
      await volume.stage();
      bench.namespace.run('xfs_io', '-x', '-c', 'shutdown', volume.stagingPath);
      await volume.unstage();
      volume.expectNothingLeft();
      await volume.stage();
      await volume.unstage();
    });

    it('session down when looked at, and back when asked: as if it had never been down', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.session.state = 'FAILED';
      bench.initiator.reachAnswer = { kind: 'logged-in' };
      await volume.publish();
      await volume.unpublish();
      await volume.unstage();
      expect(bench.initiator.calls).to.include('remove flushed');
      volume.expectNothingLeft();
    });

    it('in use: refused, and stays mounted', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const user = await bench.namespace.enter(volume.stagingPath);
      await failure(volume.unstage(), 'FAILED_PRECONDITION', /in use/);
      expect(volume.mounts).to.have.length(1);
      await user.leave();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('session down, target unreachable: nothing is changed', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.session.state = 'FAILED';
      await failure(volume.unstage(), 'UNAVAILABLE', /session \d+ is FAILED/);
      await failure(volume.publish(), 'UNAVAILABLE', /session of volume .* is down/);
      expect(volume.mounts).to.have.length(1);
      expect(bench.initiator.calls).not.to.include('logout running');
      volume.session.state = 'LOGGED_IN';
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('session down, target refuses: I/O failed first, session ended, then unmounted; never flushed', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.sh(`echo unwritten > '${volume.stagingPath}/file'`);
      volume.session.state = 'FAILED';
      bench.initiator.reachAnswer = REFUSED;
      bench.initiator.calls.length = 0;
      const programs = bench.commands.requests.length;
      await volume.unstage();
      expect(bench.initiator.calls).to.deep.equal([
        'knock portal-cinder-volumes',
        'reach',
        'knock portal-cinder-volumes',
        'logout offline',
        'delete record',
      ]);
      expect(bench.commands.programs.slice(programs)).to.deep.equal(['umount']);
      volume.expectNothingLeft();
    });

    it('refused without proof that all volumes are exported: waited for, nothing discarded', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.session.state = 'FAILED';
      const { initiator } = bench;
      initiator.reachAnswer = REFUSED;
      initiator.calls.length = 0;
      for (const answers of [
        ['unavailable'],
        ['no-answer'],
        ['not-found'],
        ['accepted'],
        ['unavailable', 'authorization'],
        ['authorization', 'unavailable'],
      ] as const) {
        initiator.witnessAnswers = [...answers];
        await failure(volume.unstage(), 'UNAVAILABLE', /refuses.*does not say that all volumes are exported/);
      }
      await failure(volume.publish(), 'UNAVAILABLE', /refuses/);
      initiator.witnessAnswers = ['authorization'];
      // Credentials change in the course of a fence, and a user's own may be wrong: that proves nothing.
      initiator.reachAnswer = { kind: 'refused', reason: 'authentication', forMs: 5_000 };
      await failure(volume.unstage(), 'UNAVAILABLE', /wrong credentials/);
      expect(initiator.calls.filter((call) => !/^(knock|reach)/.test(call))).to.deep.equal([]);
      expect(volume.mounts).to.have.length(1);
      initiator.reachAnswer = { kind: 'refused', reason: 'authorization', forMs: 5_000 };
      await failure(volume.publish(), 'FAILED_PRECONDITION', /has been revoked/);
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('several portals: the others of the record are asked too', async () => {
      const volume = bench.raw();
      const publishContext = { ...volume.context, portals: [PORTAL, '10.0.0.2:3260', '10.0.0.3:3260'] };
      const { initiator } = bench;
      await volume.stage({ publishContext });
      volume.session.state = 'FAILED';
      initiator.reachAnswers.set('10.0.0.2:3260', { kind: 'accepted' });
      initiator.reachAnswers.set('10.0.0.3:3260', REFUSED);
      await failure(volume.unstage(), 'UNAVAILABLE', /10.0.0.2:3260 lets this node in/);
      initiator.reachAnswers.delete('10.0.0.2:3260');
      await volume.unstage();
      expect(initiator.calls).to.include('logout offline');
      volume.expectNothingLeft();
    });

    it('an attachment without a witness: ten minutes of refusals alone', async () => {
      const volume = bench.raw();
      await volume.stage({ publishContext: { ...volume.context, witnessIqn: undefined } });
      volume.session.state = 'FAILED';
      const { initiator } = bench;
      initiator.calls.length = 0;
      initiator.reachAnswer = REFUSED;
      await failure(volume.unstage(), 'UNAVAILABLE', /for 5 s of the 600.*no witness/);
      initiator.reachAnswer = { kind: 'refused', reason: 'unavailable', forMs: 600_000 };
      await volume.unstage();
      expect(initiator.calls).to.deep.equal(['reach', 'reach', 'logout offline', 'delete record']);
      volume.expectNothingLeft();
    });

    it('revoked and in use: the mount goes lazily', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const user = await bench.namespace.enter(volume.stagingPath);
      volume.session.state = 'FREE';
      bench.initiator.reachAnswer = REFUSED;
      await volume.unstage();
      volume.expectNothingLeft();
      await user.leave();
    });

    it('a logout that answers "done" while the session stays is not believed', async () => {
      const volume = bench.raw();
      await volume.stage();
      const { logout } = bench.initiator;
      bench.initiator.logout = async () => undefined;
      await failure(volume.unstage(), 'ABORTED', /has not ended/);
      expect(volume.record).not.to.equal(undefined);
      bench.initiator.logout = logout;
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('after a lost record: found by session and mount', async () => {
      const volume = bench.ext4();
      await volume.stage();
      run('rm', volume.recordPath);
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('after a session that was lost: the dead mount and the iSCSI record go', async () => {
      const volume = bench.ext4();
      await volume.stage();
      bench.initiator.dropSession(volume.targetIqn);
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('lost session and lost record: still the dead mount goes', async () => {
      const volume = bench.ext4();
      await volume.stage();
      bench.initiator.dropSession(volume.targetIqn);
      bench.initiator.iscsiRecords.clear();
      run('rm', volume.recordPath);
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a record that is not understood is an error, not "nothing to do"', async () => {
      const volume = bench.ext4();
      await volume.stage();
      const text = readFileSync(volume.recordPath, 'utf8');
      writeFileSync(volume.recordPath, text.replace('"format": 1', '"format": 2'));
      await failure(volume.unstage(), 'FAILED_PRECONDITION', /not understood.*newer driver/);
      await failure(volume.stage(), 'FAILED_PRECONDITION', /not understood/);
      writeFileSync(volume.recordPath, text);
      await volume.unstage();
    });

    it('what was never staged, and ids that are not ours: OK', async () => {
      const volume = bench.ext4();
      await volume.unstage();
      await bench.plugin.unstage('fake-vol-id-../../x', volume.stagingPath);
    });

    it("somebody else's mount at the staging path is left alone", async () => {
      const volume = bench.ext4();
      volume.sh(`mount -t tmpfs tmpfs '${volume.stagingPath}'`);
      await failure(volume.unstage(), 'FAILED_PRECONDITION', /not a disk of this volume/);
      volume.sh(`umount '${volume.stagingPath}'`);
    });
  });
});

function writeHead(path: string, bytes: Buffer): void {
  writeFileSync(path, bytes, { flag: 'r+' });
}
