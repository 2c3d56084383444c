/** Over a real folder tree that looks like sysfs. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { scannableDevices, stableNames } from '../../../src/lvm/block-devices.ts';
import { isFilterable } from '../../../src/lvm/lvm-conf.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';

describe('lvm/block-devices', () => {
  const root = mkdtempSync(join(tmpdir(), 'lvm-sysfs-'));
  const files = new BlockingFiles();

  function attribute(path: string, text: string): void {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${text}\n`);
  }

  /** /sys/block has links only. */
  function disk(name: string, dev: string, more: Record<string, string> = {}): void {
    const path = `sys/devices/virtual/block/${name}`;
    for (const [file, text] of Object.entries({ dev, size: '2048', ...more })) attribute(`${path}/${file}`, text);
    mkdirSync(join(root, 'sys/block'), { recursive: true });
    symlinkSync(join(root, path), join(root, `sys/block/${name}`));
  }

  /** iSCSI disks have their session in the path that /sys/block/NAME links to. */
  function iscsiDisk(name: string, dev: string, session: string, target: string): void {
    const path = `sys/devices/platform/host2/${session}/target2:0:0/2:0:0:0/block/${name}`;
    attribute(`${path}/dev`, dev);
    attribute(`${path}/size`, '2048');
    symlinkSync(join(root, path), join(root, `sys/block/${name}`));
    attribute(`sys/class/iscsi_session/${session}/targetname`, target);
  }

  before(() => {
    disk('vda', '254:0', { 'vda1/dev': '254:1', 'vda1/partition': '1' });
    disk('vdb', '254:16');
    disk('sr0', '11:0');
    disk('loop0', '7:0', { size: '0' });
    disk('dm-0', '253:0', { 'dm/uuid': 'LVM-abc', 'dm/suspended': '0', 'slaves/vdb/x': '' });
    disk('dm-1', '253:1', { 'dm/uuid': 'LVMISCSICSI-gate-1', 'dm/suspended': '0', 'slaves/dm-0/x': '' });
    disk('dm-2', '253:2', { 'dm/uuid': 'CRYPT-LUKS2-x', 'dm/suspended': '0', 'slaves/dm-1/x': '' });
    disk('dm-3', '253:3', { 'dm/uuid': '', 'dm/suspended': '0', 'slaves/dm-2/x': '' });
    disk('dm-4', '253:4', { 'dm/uuid': '', 'dm/suspended': '1', 'slaves/vda1/x': '' });
    disk('dm-5', '253:5', { 'dm/uuid': 'mpath-36001', 'dm/name': 'mpatha', 'dm/suspended': '0', 'slaves/vdb/x': '' });
    disk('dm-6', '253:6', { 'dm/uuid': 'part1-mpath-x', 'dm/suspended': '0', 'slaves/sdb1/x': '' });
    iscsiDisk('sda', '8:0', 'session1', 'iqn.2003-01.org.san:far');
    iscsiDisk('sdb', '8:16', 'session2', 'iqn.2010-10.org.openstack:volume-1');
    attribute('sys/block/sdb/sdb1/dev', '8:17');
    mkdirSync(join(root, 'sys/kernel/config/target/iscsi/iqn.2010-10.org.openstack:volume-1'), { recursive: true });
  });

  after(async () => {
    await files.close();
    rmSync(root, { recursive: true });
  });

  it('leaves out LVs, gates, suspended devices, our own exports, and all that stands on them', async () => {
    const devices = await scannableDevices(files, root);
    expect(devices).to.deep.equal([
      { name: 'dm-5', deviceNumber: '253:5', dmName: 'mpatha' },
      { name: 'sda', deviceNumber: '8:0' },
      { name: 'vda', deviceNumber: '254:0' },
      { name: 'vda1', deviceNumber: '254:1' },
      { name: 'vdb', deviceNumber: '254:16' },
    ]);
  });

  it('names a device by its map or kernel name where it has no stable one', async () => {
    const devices = [
      { name: 'cciss!c0d0', deviceNumber: '104:0' },
      { name: 'dm-5', deviceNumber: '253:5', dmName: 'mpatha' },
      { name: 'dm-6', deviceNumber: '253:6', dmName: 'a b' },
    ];
    expect(await stableNames(files, root, devices, isFilterable)).to.deep.equal([
      '/dev/cciss/c0d0',
      '/dev/mapper/mpatha',
      '/dev/dm-6',
    ]);
  });
});
