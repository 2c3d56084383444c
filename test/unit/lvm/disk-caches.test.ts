/** Over a real folder tree that looks like sysfs. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { DiskCaches } from '../../../src/lvm/disk-caches.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import type { Files } from '../../../src/system/files.ts';

describe('lvm/disk-caches', () => {
  let root: string;
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

  const cache = (name: string): string =>
    readFileSync(join(root, `sys/class/block/${name}/queue/write_cache`), 'utf8').trim();
  const VOLATILE = { 'queue/write_cache': 'write back' };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'lvm-caches-'));
    disk('vda', { ...VOLATILE, cache_type: 'write back' }, ['vda1']);
    disk('sda', { ...VOLATILE, 'device/scsi_disk/0:0:0:0/cache_type': 'write back' });
    disk('sdb', { 'queue/write_cache': 'write through', 'device/scsi_disk/1:0:0:0/cache_type': 'write through' });
    disk('nvme0n1', VOLATILE, ['nvme0n1p2']);
    disk('md0', { ...VOLATILE, 'slaves/sda/x': '', 'slaves/nvme0n1p2/x': '' });
    disk('dm-0', { ...VOLATILE, 'slaves/md0/x': '' });
    disk('stubborn', { ...VOLATILE, cache_type: 'write back' });
  });

  afterEach(() => rmSync(root, { recursive: true }));
  after(() => real.close());

  const caches = (policy: 'off' | 'keep') => new DiskCaches({ files, hostRoot: root, policy });

  it('turns off the cache of the disk that a partition is on, by the switch of virtio', async () => {
    const some = caches('off');
    await some.watch(['vda1']);
    expect(cache('vda')).to.equal('write through');
    expect(some.volatile).to.deep.equal([]);
  });

  it('finds the disks below RAID and maps; SCSI has its switch, NVMe has none and is told', async () => {
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

  it('a device that has gone, or says nothing of a cache, is no error', async () => {
    const some = caches('off');
    disk('loop0', {});
    await some.watch(['gone', 'loop0']);
    expect(some.volatile).to.deep.equal([]);
  });
});
