import { rm, symlink } from 'node:fs/promises';
import { expect } from 'chai';
import { Disks, parseSerialPage } from '../../../../src/iscsi/initiator/disks.ts';
import { Sysfs } from '../../../../src/iscsi/initiator/sysfs.ts';
import type { IscsiSession, ScsiDisk } from '../../../../src/iscsi/initiator/types.ts';
import { BlockingFiles } from '../../../../src/system/blocking-files.ts';
import type { FileStat } from '../../../../src/system/files.ts';
import { FakeHost } from './support/host.ts';

/** Sample: VPD page 0x80 of a LIO disk (Linux 6.1): a header, 32 hex digits, a trailing NUL that the length counts. */
const SERIAL = '2b0d59c7031769e80c8e5118b6ec7694';
const PAGE = Buffer.concat([Buffer.of(0x00, 0x80, 0x00, 33), Buffer.from(SERIAL), Buffer.of(0)]);

const SESSION: IscsiSession = {
  sid: 1,
  hostNumber: 3,
  targetIqn: 'iqn.2010-10.org.openstack:vol1',
  portal: '10.77.0.10:3260',
  state: 'LOGGED_IN',
  chapUser: undefined,
};

/** Fake where the test cannot make the real thing: block device nodes, and a sysfs that does what is written to it. */
class HostFiles extends BlockingFiles {
  onWrite: (path: string, text: string) => Promise<void> = async () => {};

  override async stat(path: string): Promise<FileStat | undefined> {
    if (!path.includes('/dev/sd')) return await super.stat(path);
    return { kind: 'block', sizeBytes: 0, rdev: '8:0', dev: '0:6', inode: 1, mode: 0o660 };
  }

  override async writeAttribute(path: string, text: string): Promise<void> {
    await super.writeAttribute(path, text);
    await this.onWrite(path, text);
  }
}

describe('initiator: disks in sysfs', () => {
  let host: FakeHost;
  const files = new HostFiles();
  let disks: Disks;
  beforeEach(async () => {
    host = await FakeHost.make();
    files.onWrite = async () => {};
    disks = new Disks({ sysfs: new Sysfs(files, host.root), commands: host.commands, hostRoot: host.root });
    await host.session({ sid: 1, host: 3, targetIqn: SESSION.targetIqn });
  });
  afterEach(() => host.remove());
  after(() => files.close());

  const plug = (name = 'sda', page: Uint8Array = PAGE): Promise<void> =>
    host.disk({ sid: 1, host: 3, name, page, sectors: 131_072 });
  const unplug = async (name = 'sda'): Promise<void> => {
    await rm(host.path(`sys/block/${name}`));
    await rm(host.path('sys/devices/platform/host3/session1/target3:0:0'), { recursive: true });
  };
  const EXPECTED: ScsiDisk = {
    name: 'sda',
    path: '/dev/sda',
    majorMinor: '8:0',
    serial: SERIAL,
    wwid: 'naa.60014052b0d59c7031769e80c8e5118b',
    sizeBytes: 64 * 2 ** 20,
    readOnly: false,
  };

  it('reads a disk with its whole serial, and finds it without a scan when it is there', async () => {
    await plug();
    expect(await disks.list(SESSION)).to.deep.equal([EXPECTED]);
    files.onWrite = () => Promise.reject(new Error('must not scan'));
    expect(await disks.find(SESSION, 0)).to.deep.equal(EXPECTED);
  });

  it('scans exactly the LUN, and waits for the disk', async () => {
    const written: string[] = [];
    files.onWrite = async (path, text) => {
      written.push(`${path.slice(host.root.length)} ${text}`);
      setTimeout(() => void plug(), 50);
    };
    expect(await disks.find(SESSION, 0)).to.deep.equal(EXPECTED);
    expect(written).to.deep.equal(['/sys/class/scsi_host/host3/scan 0 0 0']);
  });

  it('finds nothing, soon, when the target has no such LUN', async () => {
    expect(await disks.find(SESSION, 1)).to.equal(undefined);
  });

  it('says that the session has ended when there is no host to scan', async () => {
    await rm(host.path('sys/class/scsi_host/host3'), { recursive: true });
    const error = await disks.find(SESSION, 0).catch((caught: unknown) => caught);
    expect(error).to.have.property('kind', 'other');
    expect(await disks.list({ ...SESSION, sid: 99 })).to.deep.equal([]);
  });

  it('flushes, removes, and waits until the disk has gone; again is fine', async () => {
    await plug();
    files.onWrite = async (path) => {
      if (path.endsWith('/delete')) setTimeout(() => void unplug(), 50);
    };
    await disks.remove(EXPECTED, { flush: true, timeoutMs: 5_000 });
    expect(host.commands.lines).to.deep.equal(['sync /dev/sda']);
    await disks.remove(EXPECTED, { flush: true, timeoutMs: 5_000 });
    expect(host.commands.lines).to.have.length(1);
  });

  it('leaves alone another disk that has got the same name', async () => {
    await plug('sda', Buffer.concat([Buffer.of(0x00, 0x80, 0x00, 4), Buffer.from('else')]));
    files.onWrite = () => Promise.reject(new Error('must not touch it'));
    await disks.remove(EXPECTED, { flush: true, timeoutMs: 1_000 });
    expect(host.commands.lines).to.deep.equal([]);
    const error = await disks.rescan(EXPECTED).catch((caught: unknown) => caught);
    expect(String(error)).to.include(`not the disk with serial ${SERIAL}`);
  });

  it('keeps the disk when it cannot be flushed, or something on the node uses it', async () => {
    await plug();
    files.onWrite = () => Promise.reject(new Error('must not remove it'));
    for (const [answer, kind] of [
      [{ exitCode: 1, stderr: "sync: error syncing '/dev/sda': Input/output error" }, 'flush-failed'],
      [{ timedOut: true }, 'timeout'],
    ] as const) {
      host.commands.script = () => answer;
      const error = await disks.remove(EXPECTED, { flush: true, timeoutMs: 1_000 }).catch((caught: unknown) => caught);
      expect(error).to.have.property('kind', kind);
    }
    await symlink('../../dm-3', host.path('sys/block/sda/holders/dm-3'));
    const error = await disks.remove(EXPECTED, { flush: true, timeoutMs: 1_000 }).catch((caught: unknown) => caught);
    expect(error).to.have.property('kind', 'in-use');
    expect(String(error)).to.include('dm-3');
  });

  it('says so when a removed disk stays', async () => {
    await plug();
    const error = await disks.remove(EXPECTED, { flush: false, timeoutMs: 100 }).catch((caught: unknown) => caught);
    expect(error).to.have.property('kind', 'timeout');
    expect(host.commands.lines).to.deep.equal([]);
  });

  it('reads the new size after a rescan', async () => {
    await plug();
    files.onWrite = () => host.write('sys/block/sda/size', '262144\n');
    expect(await disks.rescan(EXPECTED)).to.deep.equal({ ...EXPECTED, sizeBytes: 128 * 2 ** 20 });
  });

  it('takes a serial only from a page that is one', () => {
    expect(parseSerialPage(PAGE)).to.equal(SERIAL);
    expect(parseSerialPage(Buffer.from('\0\x80\0\x06 ab  ', 'latin1'))).to.equal('ab');
    for (const page of ['', '\0\x83\0\x02ab', '\0\x80\0\0', '\0\x80\0\x02\0\0']) {
      expect(parseSerialPage(Buffer.from(page, 'latin1'))).to.equal(undefined);
    }
  });
});
