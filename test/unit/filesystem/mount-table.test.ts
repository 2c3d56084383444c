import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import {
  boundDeviceName,
  isDeleted,
  isReadOnly,
  mountAt,
  mountsOfDevice,
  parseMountInfo,
} from '../../../src/filesystem/mount-table.ts';

const LINES = [
  '27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard',
  '40 27 8:0 / /var/lib/kubelet/plugins/a\\040b/globalmount rw,noatime shared:7 master:3 - xfs /dev/sda rw,nouuid',
  '41 27 8:0 / /var/lib/kubelet/pods/1/mount ro,noatime shared:7 - xfs /dev/sda rw,nouuid',
  '42 27 0:6 /sdb /var/lib/kubelet/pods/2/block rw shared:2 - devtmpfs udev rw',
  '43 27 0:6 /sdc//deleted /pods/3\\134x\\011y\\012z rw - devtmpfs udev rw',
  '44 40 0:99 / /var/lib/kubelet/plugins/a\\040b/globalmount rw - tmpfs tmpfs rw',
  '45 27 8:80 / /pods/ümlaut rw - ext4 /dev/sdf ro',
];
const mounts = parseMountInfo(`${LINES.join('\n')}\n`);

describe('mount table', () => {
  it('undoes octal escapes and keeps UTF-8', () => {
    expect(mounts.map(({ mountPoint }) => mountPoint)).to.include.members([
      '/var/lib/kubelet/plugins/a b/globalmount',
      '/pods/3\\x\ty\nz',
      '/pods/ümlaut',
    ]);
  });

  it('reads fields behind any number of optional ones', () => {
    expect(mounts[1]).to.deep.include({ majorMinor: '8:0', fsType: 'xfs', source: '/dev/sda', root: '/' });
    expect(mounts[5]).to.deep.include({ fsType: 'tmpfs', superOptions: ['rw'] });
  });

  it('answers the topmost of stacked mounts', () => {
    expect(mountAt(mounts, '/var/lib/kubelet/plugins/a b/globalmount')?.fsType).to.equal('tmpfs');
    expect(mountAt(mounts, '/nowhere')).to.equal(undefined);
  });

  it('finds mounts and bound device nodes of a disk, and of no other', () => {
    const of = (name: string, majorMinor: string): string[] =>
      mountsOfDevice(mounts, { name, majorMinor }).map(({ id }) => String(id));
    expect(of('sda', '8:0')).to.deep.equal(['40', '41']);
    expect(of('sdb', '8:16')).to.deep.equal(['42']);
    // A node that was unlinked stood for an earlier disk of that name.
    expect(of('sdc', '8:32')).to.deep.equal([]);
    expect(of('sd', '8:96')).to.deep.equal([]);
  });

  it('knows a bound device node whose device is gone, and read-only mounts and file systems', () => {
    expect(mounts.filter(isDeleted).map(({ id }) => id)).to.deep.equal([43]);
    expect(mounts.map(boundDeviceName)).to.deep.equal([
      undefined,
      undefined,
      undefined,
      'sdb',
      'sdc',
      undefined,
      undefined,
    ]);
    expect(mounts.filter(isReadOnly).map(({ id }) => id)).to.deep.equal([41, 45]);
  });

  it('refuses what it does not understand', () => {
    expect(() => parseMountInfo('1 2 3')).to.throw(/not understood/);
  });

  it("reads this machine's own table", () => {
    const own = parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8'));
    expect(mountAt(own, '/')?.majorMinor).to.match(/^\d+:\d+$/);
    expect(mountAt(own, '/proc')?.fsType).to.equal('proc');
  });
});
