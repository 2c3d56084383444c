/** Over a real folder tree that looks like sysfs; nvme-cli is a FAKE (with a real one: test/faults/write-cache.test.ts). */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { DiskCaches } from '../../../src/lvm/disk-caches.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { CommandError, type CommandRequest, type Commands } from '../../../src/system/commands.ts';
import type { Files } from '../../../src/system/files.ts';
import { captureLog } from './captured-log.ts';

describe('lvm/disk-caches', () => {
  let root: string;
  /** Of each controller's device the feature's value; undefined: nvme-cli is not installed. */
  let features: Map<string, number> | undefined;
  let stubbornController = '';
  let ran: string[] = [];
  const commands: Commands = {
    run: async ({ file, args }: CommandRequest) => {
      const command = [file, ...args].join(' ');
      ran.push(command);
      const [verb, device = ''] = args;
      const failed = (shortMessage: string, missing: boolean) =>
        new CommandError({ command, shortMessage, missing, durationMs: 1 });
      if (features === undefined) throw failed(`${file}: not found`, true);
      const value = features.get(device);
      if (file !== 'nvme' || value === undefined) throw failed(`${command} ended with 1`, false);
      if (verb === 'set-feature' && device !== stubbornController) features.set(device, 0);
      const stdout =
        verb === 'get-feature'
          ? `get-feature:0x6 (Volatile Write Cache), Current value:${value.toString(16).padStart(8, '0')}\n`
          : 'set-feature:0x6 (Volatile Write Cache), value:0000000000, cdw12:00000000, save:0\n';
      return { command, exitCode: 0, stdout, stderr: '', durationMs: 1 };
    },
  };
  const real = new BlockingFiles();
  /** As sysfs does: the switch of the device changes what its queue says. */
  const files = {
    readdir: (path: string) => real.readdir(path),
    readText: (path: string) => real.readText(path),
    readlink: (path: string) => real.readlink(path),
    stat: (path: string) => real.stat(path),
    writeAttribute: async (path: string, text: string) => {
      await real.writeAttribute(path, text);
      if (!path.includes('stubborn')) attribute(queueOf(path), text);
    },
  } as Files;

  const queueOf = (path: string): string =>
    `${path.slice(root.length + 1).split(/\/(?:cache_type|device)/)[0]}/queue/write_cache`;

  function attribute(path: string, text: string): void {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${text}\n`);
  }

  /** /sys/class/block has links only, of partitions too. */
  function disk(name: string, more: Record<string, string>, partitions: readonly string[] = []): void {
    const path = `sys/devices/pci/block/${name}`;
    for (const [file, text] of Object.entries(more)) attribute(`${path}/${file}`, text);
    mkdirSync(join(root, 'sys/class/block'), { recursive: true });
    symlinkSync(join(root, path), join(root, `sys/class/block/${name}`));
    for (const [index, partition] of partitions.entries()) {
      attribute(`${path}/${partition}/partition`, String(index + 1));
      symlinkSync(join(root, `${path}/${partition}`), join(root, `sys/class/block/${partition}`));
    }
  }

  /** To the controller, or to the subsystem that has some. */
  function link(name: string, target: string, controllers: readonly string[] = []): void {
    for (const each of ['', ...controllers])
      mkdirSync(join(root, 'sys/devices/pci', target, each), { recursive: true });
    symlinkSync(`../../${target}`, join(root, `sys/devices/pci/block/${name}/device`));
  }

  const cache = (name: string): string =>
    readFileSync(join(root, `sys/class/block/${name}/queue/write_cache`), 'utf8').trim();
  const VOLATILE = { 'queue/write_cache': 'write back' };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'lvm-caches-'));
    disk('vda', { ...VOLATILE, cache_type: 'write back' }, ['vda1']);
    disk('sda', { ...VOLATILE, 'device/scsi_disk/0:0:0:0/cache_type': 'write back' });
    disk('sdb', { 'queue/write_cache': 'write through', 'device/scsi_disk/1:0:0:0/cache_type': 'write through' });
    disk('nvme0n1', VOLATILE, ['nvme0n1p2']);
    link('nvme0n1', 'nvme0');
    disk('nvme1n1', VOLATILE);
    link('nvme1n1', 'nvme-subsys1', ['nvme1', 'nvme2', 'nvme1c1n1']);
    features = undefined;
    stubbornController = '';
    ran = [];
    disk('md0', { ...VOLATILE, 'slaves/sda/x': '', 'slaves/nvme0n1p2/x': '' });
    disk('dm-0', { ...VOLATILE, 'slaves/md0/x': '' });
    disk('stubborn', { ...VOLATILE, cache_type: 'write back' });
  });

  afterEach(() => rmSync(root, { recursive: true }));
  after(() => real.close());

  const caches = (policy: 'off' | 'keep') => new DiskCaches({ commands, files, hostRoot: root, policy });

  it('turns off the cache of the disk that a partition is on, by the switch of virtio', async () => {
    const some = caches('off');
    await some.watch(['vda1']);
    expect(cache('vda')).to.equal('write through');
    expect(some.volatile).to.deep.equal([]);
  });

  it('finds the disks below RAID and maps; SCSI has its switch, NVMe without nvme-cli has none and is told', async () => {
    const some = caches('off');
    await some.watch(['dm-0', 'sdb']);
    expect(cache('sda')).to.equal('write through');
    expect(some.volatile).to.deep.equal(['nvme0n1']);
    // Nothing but disks is touched: what stands on them follows.
    expect([cache('md0'), cache('dm-0')]).to.deep.equal(['write back', 'write back']);
  });

  it('does not believe a switch that changes nothing', async () => {
    const some = caches('off');
    await some.watch(['stubborn']);
    expect(some.volatile).to.deep.equal(['stubborn']);
  });

  it('turns it off again when the disk has been reset', async () => {
    const some = caches('off');
    await some.watch(['vda1']);
    attribute('sys/class/block/vda/queue/write_cache', 'write back');
    await some.look();
    expect(cache('vda')).to.equal('write through');
  });

  it('touches nothing when told to keep them, and counts them', async () => {
    const some = caches('keep');
    await some.watch(['vda1', 'sda', 'sdb']);
    expect([cache('vda'), cache('sda')]).to.deep.equal(['write back', 'write back']);
    expect(some.volatile).to.deep.equal(['sda', 'vda']);
  });

  it('what stays volatile must be flushed, and what could not be looked at', async () => {
    const [fine, left, kept, broken] = [caches('off'), caches('off'), caches('keep'), caches('off')];
    await fine.watch(['vda1']);
    await left.watch(['nvme0n1p2']);
    await kept.watch(['nvme0n1p2']);
    const path = 'sys/devices/pci/block/sdb/queue/write_cache';
    rmSync(join(root, path));
    mkdirSync(join(root, path));
    await broken.watch(['sdb']);
    expect([fine, left, kept, broken].map(({ mustFlush }) => mustFlush)).to.deep.equal([false, true, false, true]);
  });

  describe('of NVMe, which only nvme-cli can ask for', () => {
    const sets = () => ran.filter((command) => command.includes('set-feature'));

    it('is turned off at its controller, once, though the kernel goes on calling it volatile', async () => {
      features = new Map([['/dev/nvme0', 1]]);
      const some = caches('off');
      await some.watch(['nvme0n1p2']);
      await some.look();
      expect(sets()).to.deep.equal(['nvme set-feature /dev/nvme0 --feature-id=0x6 --namespace-id=0 --value=0']);
      expect([some.volatile, some.mustFlush]).to.deep.equal([[], false]);
      expect(cache('nvme0n1')).to.equal('write back');
    });

    it('is turned off again after a reset of the controller', async () => {
      features = new Map([['/dev/nvme0', 0]]);
      const some = caches('off');
      await some.watch(['nvme0n1']);
      expect(sets()).to.deep.equal([]);
      features.set('/dev/nvme0', 1);
      await some.look();
      expect([sets().length, features.get('/dev/nvme0')]).to.deep.equal([1, 0]);
    });

    it('is turned off at every controller of a disk with several', async () => {
      features = new Map([
        ['/dev/nvme1', 1],
        ['/dev/nvme2', 1],
      ]);
      const some = caches('off');
      await some.watch(['nvme1n1']);
      expect([...features.values()]).to.deep.equal([0, 0]);
      expect(some.volatile).to.deep.equal([]);
    });

    it('stays volatile when the controller says that it has no such feature, or changes nothing', async () => {
      features = new Map();
      const some = caches('off');
      await some.watch(['nvme0n1']);
      expect(some.volatile).to.deep.equal(['nvme0n1']);
      features.set('/dev/nvme0', 1);
      stubbornController = '/dev/nvme0';
      await some.look();
      expect([some.volatile, some.mustFlush]).to.deep.equal([['nvme0n1'], true]);
    });

    it('is told once for each disk that nvme-cli is missing, not at each look', async () => {
      const captured = captureLog();
      try {
        const some = caches('off');
        await some.watch(['nvme0n1', 'nvme1n1']);
        await some.look();
        const told = captured.lines().filter(({ msg }) => String(msg).includes('install the package nvme-cli'));
        expect(told.map(({ disk }) => disk)).to.deep.equal(['nvme0n1', 'nvme1n1']);
      } finally {
        captured.restore();
      }
    });

    it('is asked and not touched when it is to be kept', async () => {
      features = new Map([
        ['/dev/nvme0', 1],
        ['/dev/nvme1', 0],
        ['/dev/nvme2', 0],
      ]);
      const some = caches('keep');
      await some.watch(['nvme0n1', 'nvme1n1']);
      expect([some.volatile, sets()]).to.deep.equal([['nvme0n1'], []]);
    });
  });

  it('a device that has gone, or says nothing of a cache, is no error', async () => {
    const some = caches('off');
    disk('loop0', {});
    await some.watch(['gone', 'loop0']);
    expect(some.volatile).to.deep.equal([]);
  });
});
