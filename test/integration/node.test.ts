/** The node plugin's work on a real node against real LIO targets made by hand: kernel sessions, disks and mounts. */
import { expect } from 'chai';
import { Lab } from '../lab/lab.ts';
import { HandMadeTargets } from './support/hand-made-targets.ts';
import { NodeMachine, NodeVolume } from './support/node-machine.ts';

const MIB = 2 ** 20;
const CHAP = { user: 'user-of-this-attachment', password: 'secret-of-this-attachment' };
type Kind = 'ext4' | 'xfs' | 'raw';

describe('node plugin, without a controller', function () {
  this.timeout(600_000);

  let lab: Lab;
  let node: NodeMachine;
  let targets: HandMadeTargets;
  let count = 0;

  before('start a lab', async function () {
    this.timeout(1_200_000);
    lab = await Lab.start({ nodes: 1 });
    await prepare();
  });
  after(() => lab?.stop());
  afterEach('nothing is left on the node', async function () {
    const left = await node.leftovers();
    if (left.length === 0) return;
    await lab.reset();
    await prepare();
    if (this.currentTest?.state === 'passed') throw new Error(`left behind:\n${left.join('\n')}`);
  });

  async function prepare(): Promise<void> {
    node = new NodeMachine(lab.machine('node-1'));
    targets = new HandMadeTargets(lab.storage);
    await targets.makeWitness();
    await node.install();
  }

  async function make(kind: Kind, sizeMib: number, options: { chap?: boolean } = {}): Promise<NodeVolume> {
    count += 1;
    const chap = options.chap === false ? {} : { chap: CHAP };
    const name = `volume-00000000-0000-4000-8000-${String(count).padStart(12, '0')}`;
    const target = await targets.make(name, { initiatorIqn: node.machine.iqn, sizeMib, ...chap });
    // LIO and dm hold the devices; the file under them all is free, and their reads go through its page cache.
    if (kind !== 'raw') await lab.storage.exec(`mkfs.${kind} -q ${kind === 'xfs' ? '-f' : '-F'} /var/tmp/${name}.img`);
    return new NodeVolume(node, target, {
      content: kind === 'raw' ? { kind: 'raw' } : { kind: 'filesystem', fsType: kind },
      sizeBytes: sizeMib * MIB,
      ...chap,
    });
  }

  const sh = async (script: string): Promise<string> => (await node.machine.exec(script)).stdout;

  for (const pod of [false, true]) {
    describe(pod ? 'as in a pod' : 'on the host', () => {
      beforeEach(() => {
        node.pod = pod;
      });
      after(() => {
        node.pod = false;
      });

      for (const kind of ['ext4', 'xfs'] as const) {
        it(`${kind}: staged, published, written while it grows, unstaged, and the data is there the next time`, async () => {
          const volume = await (await make(kind, 320)).up();
          await node.run(volume.stage, volume.publish);
          const at = volume.targetPath;
          const mount = await sh(`findmnt -no FSTYPE,OPTIONS ${volume.stagingPath}; cat /run/mount/utab`);
          expect(mount).to.match(new RegExp(`^${kind} +rw,`));
          expect(mount, 'both mounts are known as network mounts').to.match(/_netdev(.|\n)*_netdev/);
          const writer = await node.machine.spawn(
            `i=0; while [ ! -e /run/stop-writer ]; do i=$((i+1)); dd if=/dev/zero of=${at}/w bs=64k count=4 conv=fsync status=none || exit 1; done; echo wrote $i`,
          );
          await targets.grow(volume.target, 640);
          const [expanded] = await node.run(volume.expand(640 * MIB), volume.expand(640 * MIB));
          expect(expanded?.value).to.equal(640 * MIB);
          await sh('touch /run/stop-writer');
          expect(await writer.wait(60_000)).to.equal(0);
          await sh(`rm /run/stop-writer; echo kept > ${at}/file`);
          const stats = await volume.stats();
          expect(stats.totalBytes).to.be.within(520 * MIB, 640 * MIB);
          await volume.down();
          expect(await node.leftovers()).to.deep.equal([]);
          await volume.up();
          expect(await sh(`cat ${at}/file`)).to.equal('kept');
          await volume.down();
        });
      }

      it('raw block: the device at the target, grown', async () => {
        const volume = await (await make('raw', 64)).up();
        expect(await sh(`blockdev --getsize64 ${volume.targetPath}`)).to.equal(String(64 * MIB));
        const early = await node.failure(volume.expand(128 * MIB));
        expect(early.code).to.equal('UNAVAILABLE');
        await targets.grow(volume.target, 128);
        await node.run(volume.expand(128 * MIB));
        expect(await volume.stats()).to.deep.equal({ kind: 'block', totalBytes: 128 * MIB });
        await volume.down();
      });
    });
  }

  it('a smaller file system than its disk is grown when it is staged', async () => {
    const volume = await make('ext4', 64);
    await targets.grow(volume.target, 256);
    await volume.up();
    expect((await volume.stats()).totalBytes).to.be.above(200 * MIB);
    await volume.down();
  });

  it('what has never been written of an earlier attachment never is, though its session works', async () => {
    // Without CHAP, so that the session of the first life goes on working whatever the nonce.
    const volume = await (await make('ext4', 64, { chap: false })).up();
    await sh('echo 6000 > /proc/sys/vm/dirty_writeback_centisecs; echo 600000 > /proc/sys/vm/dirty_expire_centisecs');
    const dirty = (name: string): Promise<string> =>
      sh(`head -c 4M /dev/zero | tr '\\0' D > ${volume.targetPath}/${name}`);
    await dirty('old');
    volume.nonce = 'b'.repeat(32);
    await node.run(volume.stage, volume.publish);
    // The journal has the file's name since its last regular commit; the data has never been on its way.
    expect(await sh(`cat ${volume.targetPath}/old 2>/dev/null | wc -c`)).to.equal('0');
    expect(await onDisk(volume)).to.equal('0');
    expect(await sh('dmesg | tail -40'), 'writes were made to fail').to.match(
      /rejecting I\/O to offline device|I\/O error|lost (async|sync) page write|delayed block allocation failed/i,
    );
    // The control: the same data is seen on the disk once the kernel writes it.
    await dirty('control');
    expect(await onDisk(volume)).to.equal('0');
    await sh(`sync -f ${volume.targetPath}`);
    expect(Number(await onDisk(volume))).to.be.above(1000);
    await node.run(volume.unpublish, volume.unstage);
  });

  /** 4 KiB blocks full of "D" on the storage host's own disk. */
  async function onDisk({ target }: NodeVolume): Promise<string> {
    const { stdout } = await lab.storage.exec(
      `sync; python3 -c "
import sys
d=open('/var/tmp/${target.name}.img','rb').read(); b=b'D'*4096
print(sum(d[i:i+4096]==b for i in range(0,len(d),4096)))"`,
    );
    return stdout;
  }

  it('revoked while written: unstaged at once, without a flush, also with a process in the mount', async () => {
    const volume = await (await make('ext4', 64)).up();
    await sh(`head -c 4M /dev/zero | tr '\\0' D > ${volume.targetPath}/old`);
    await targets.changePassword(volume.target, node.machine.iqn);
    const user = await node.machine.spawn(`cd ${volume.stagingPath} && echo there && exec sleep 600`);
    await user.waitForLine(/there/, 30_000);
    await sessionDown(volume);
    // In the middle of a fence, or a user's own password was changed: no proof, whatever the witness says.
    const barred = await node.failure(volume.unstage);
    expect(barred.code, barred.message).to.equal('UNAVAILABLE');
    expect(barred.message).to.match(/wrong credentials/);
    await targets.removeAcl(volume.target, node.machine.iqn);
    // A storage host that is not complete refuses live attachments as well: nothing is discarded without the witness.
    await targets.setWitness(false);
    const unproven = await node.failure(volume.unstage);
    expect(unproven.code, unproven.message).to.equal('UNAVAILABLE');
    expect(unproven.message).to.match(/does not say that all volumes are exported/);
    expect(await sh(`cat /sys/class/iscsi_session/session*/targetname`)).to.contain(volume.target.targetIqn);
    await targets.setWitness(true);
    const [, unstaged] = await node.run(volume.unpublish, volume.unstage);
    expect(unstaged?.durationMs).to.be.below(60_000);
    expect(await onDisk(volume)).to.equal('0');
    await user.kill('KILL');
    // The same, after the ACL is gone altogether, for a raw volume that is open.
    const raw = await (await make('raw', 64)).up();
    const open = await node.machine.spawn(`exec 3<>${raw.targetPath}; echo there; exec sleep 600`);
    await open.waitForLine(/there/, 30_000);
    await targets.removeAcl(raw.target, node.machine.iqn);
    await sessionDown(raw);
    await node.run(raw.unpublish, raw.unstage);
    await open.kill('KILL');
  });

  async function sessionDown({ target }: NodeVolume): Promise<void> {
    await node.machine.waitFor(
      `for s in /sys/class/iscsi_session/session*; do [ "$(cat $s/targetname)" = ${target.targetIqn} ] && grep -qv LOGGED_IN $s/state && exit 0; done; exit 1`,
      60_000,
    );
  }

  it('unreachable: nothing is changed; reachable again: everything written, and unstaged', async () => {
    const volume = await (await make('ext4', 64)).up();
    await sh(`echo precious > ${volume.targetPath}/file`);
    await node.machine.linkDown();
    await sessionDown(volume);
    const failure = await node.failure(volume.unstage);
    expect(failure.code, failure.message).to.equal('UNAVAILABLE');
    const publish = await node.failure(volume.publish);
    expect(publish.code, publish.message).to.equal('UNAVAILABLE');
    expect(await sh(`cat ${volume.targetPath}/file`)).to.equal('precious');
    await node.machine.linkUp();
    await node.machine.waitFor('grep -q LOGGED_IN /sys/class/iscsi_session/session*/state', 120_000);
    await volume.down();
    await volume.up();
    expect(await sh(`cat ${volume.targetPath}/file`)).to.equal('precious');
    await volume.down();
  });

  it('the disk behind a live session is swapped: seen by the next call, nothing mounted or torn down', async () => {
    const volume = await (await make('raw', 64)).up();
    await lab.storage.exec(`set -e
      B=/sys/kernel/config/target/core/iblock_0/${volume.id}; T=/sys/kernel/config/target/iscsi/${volume.target.targetIqn}/tpgt_1
      A=$T/acls/${node.machine.iqn}; echo 0 > $T/enable
      rm $A/lun_0/x; rmdir $A/lun_0; rm $T/lun/lun_0/x; rmdir $B; mkdir $B
      echo udev_path=/dev/mapper/${volume.id} > $B/control; echo ${'f'.repeat(32)} > $B/wwn/vpd_unit_serial; echo 1 > $B/enable
      ln -s $B $T/lun/lun_0/x; mkdir $A/lun_0; ln -s $T/lun/lun_0 $A/lun_0/x; echo 1 > $T/enable`);
    await node.machine.waitFor('grep -q LOGGED_IN /sys/class/iscsi_session/session*/state', 120_000);
    for (const call of [volume.stage, volume.publish, volume.expand(0)]) {
      const failure = await node.failure(call);
      expect(failure.code, failure.message).to.equal('FAILED_PRECONDITION');
      expect(failure.message).to.match(/serial number "f+"/);
    }
    await volume.down();
  });

  it('the session ends under a published raw volume: the dead device node goes from the target before a new disk can take its name', async () => {
    const volume = await (await make('raw', 64)).up();
    await sh(`iscsiadm -m node -T ${volume.target.targetIqn} --logout`);
    expect(await sh(`grep -c 'sd[a-z]//deleted ${volume.targetPath} ' /proc/self/mountinfo`)).to.equal('1');
    const failure = await node.failure(volume.publish);
    expect(failure.code).to.equal('FAILED_PRECONDITION');
    await node.run(volume.stage);
    expect(await sh(`grep -c ' ${volume.targetPath} ' /proc/self/mountinfo || true`)).to.equal('0');
    await node.run(volume.publish);
    await volume.down();
  });

  it('killed in the midst of each step of stage, and of unstage: the next call goes on', async () => {
    for (const point of [
      'after:node-record-write',
      'after:session-login',
      'before:iscsi-scan',
      'before:staging-mount',
      'after:staging-mount',
    ]) {
      const volume = await make('ext4', 64);
      await node.machine.exec(`mkdir -p ${volume.stagingPath}`);
      await node.dieAt(point, volume.stage);
      await node.run(['recover'], volume.stage, volume.publish);
      await volume.down();
    }
    for (const point of [
      'after:staging-unmount',
      'after:disk-remove',
      'after:session-logout',
      'before:node-record-remove',
    ]) {
      const volume = await (await make('ext4', 64)).up();
      await node.run(volume.unpublish);
      await node.dieAt(point, volume.unstage);
      await node.run(['recover'], volume.unstage);
      expect(await node.leftovers(), point).to.deep.equal([]);
    }
  });

  it('an ordinary reboot with staged and published volumes ends; what is left of them is forgotten', async () => {
    const volumes = [
      await (await make('ext4', 64)).up(),
      await (await make('xfs', 320)).up(),
      await (await make('raw', 64)).up(),
    ];
    const [ext4, xfs] = volumes;
    await sh(`echo written > ${ext4?.targetPath}/file; echo written > ${xfs?.targetPath}/file`);
    const { downMs } = await node.machine.reboot(300_000);
    expect(downMs, 'shut down without waiting for a dead disk').to.be.below(120_000);
    const [recovered] = await node.run(['recover']);
    expect(recovered?.value).to.deep.equal({
      forgotten: volumes.map(({ id }) => id),
      attached: [],
      unexplained: [],
    });
    for (const volume of volumes) await volume.up();
    for (const volume of [ext4, xfs]) expect(await sh(`cat ${volume?.targetPath}/file`)).to.equal('written');
    for (const volume of volumes) await volume.down();
  });
});
