import { execFileSync } from 'node:child_process';
import { closeSync, openSync, truncateSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { FileSystemError } from '../../../src/filesystem/errors.ts';
import { type DeviceContent, describeContent, parseExport, probeDevice } from '../../../src/filesystem/probe.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { skip } from '../../support/skip.ts';
import { commandError, DirectCommands, hasProgram } from './support/direct-commands.ts';

const MIB = 1024 * 1024;
/** Magic number and version 1 (LUKS on-disk format, section 2). */
const LUKS_HEAD = Buffer.from('LUKS\xba\xbe\x00\x01', 'latin1');

describe('probing a device, with the real blkid on regular files', () => {
  const files = new BlockingFiles();
  let folder = '';
  let image = '';
  let sizeBytes = 0;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'probe-'));
  });
  after(async () => {
    await files.close();
    await rm(folder, { recursive: true });
  });

  /** A new sparse image. */
  function make(mebibytes: number): void {
    image = join(folder, `${Math.random().toString(36).slice(2)}.img`);
    sizeBytes = mebibytes * MIB;
    closeSync(openSync(image, 'w'));
    truncateSync(image, sizeBytes);
  }
  function put(offset: number, bytes: string | Buffer): void {
    const file = openSync(image, 'r+');
    writeSync(file, Buffer.from(bytes), 0, undefined, offset);
    closeSync(file);
  }
  const probe = (): Promise<DeviceContent> =>
    probeDevice({ commands: new DirectCommands(), files }, { devicePath: image, fileRoot: '', sizeBytes });
  const run = (file: string, ...args: string[]): void => {
    execFileSync(file, args, { stdio: 'pipe', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } });
  };

  it('blank: zeros at both ends', async () => {
    make(4);
    expect(await probe()).to.deep.equal({ kind: 'blank' });
  });

  it('blank: a device smaller than a MiB', async () => {
    make(0);
    sizeBytes = 4096;
    truncateSync(image, sizeBytes);
    expect(await probe()).to.deep.equal({ kind: 'blank' });
  });

  for (const [where, offset] of [
    ['the first MiB', MIB - 1],
    ['the last byte', 4 * MIB - 1],
  ] as const) {
    it(`unknown data in ${where}`, async () => {
      make(4);
      put(offset, 'x');
      expect(await probe()).to.deep.equal({ kind: 'unknown-data' });
    });
  }

  it('ext4, with UUID and label', async () => {
    make(16);
    run('mkfs.ext4', '-q', '-F', '-U', '11111111-2222-3333-4444-555555555555', '-L', 'a b', image);
    const content = await probe();
    expect(content).to.deep.equal({
      kind: 'filesystem',
      type: 'ext4',
      uuid: '11111111-2222-3333-4444-555555555555',
      label: 'a b',
    });
    expect(describeContent(content)).to.match(/ext4.*"a b".*11111111/);
  });

  it('xfs', async function () {
    if (!hasProgram('mkfs.xfs')) skip(this, 'mkfs.xfs is not installed (package xfsprogs)');
    make(300);
    run('mkfs.xfs', '-q', '-f', image);
    expect(await probe()).to.deep.include({ kind: 'filesystem', type: 'xfs' });
  });

  it('a LUKS header, from cryptsetup or else made by hand', async () => {
    make(20);
    if (hasProgram('cryptsetup')) {
      execFileSync(
        '/usr/sbin/cryptsetup',
        ['luksFormat', '-q', '--type', 'luks1', '--pbkdf-force-iterations', '1000', image, '-'],
        {
          input: 'secret',
          stdio: ['pipe', 'pipe', 'pipe'],
        },
      );
    } else {
      put(0, LUKS_HEAD);
      put(168, '11111111-2222-3333-4444-555555555555');
    }
    expect(await probe()).to.deep.equal({ kind: 'luks' });
  });

  it('an LVM physical volume, from its label', async () => {
    make(8);
    // label_header at sector 1 (lvm2, lib/label/label.h), as blkid needs it: id, sector, crc, offset, type, uuid.
    const label = Buffer.alloc(512);
    label.write('LABELONE', 0, 'latin1');
    label.writeBigUInt64LE(1n, 8);
    label.writeUInt32LE(32, 20);
    label.write('LVM2 001', 24, 'latin1');
    label.write('abcdefghijklmnopqrstuvwxyz012345', 32, 'latin1');
    label.writeUInt32LE(lvmCrc(label.subarray(20)), 16);
    put(512, label);
    expect(await probe()).to.deep.equal({ kind: 'lvm-pv' });
  });

  it('a partition table', async () => {
    make(8);
    // One Linux partition from sector 2048 in a DOS table.
    const entry = Buffer.from([0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0]);
    put(446, Buffer.concat([entry, Buffer.alloc(48), Buffer.from([0x55, 0xaa])]));
    expect(await probe()).to.deep.equal({ kind: 'partition-table', type: 'dos' });
  });

  it('swap is something else', async () => {
    make(8);
    run('mkswap', image);
    expect(await probe()).to.deep.equal({ kind: 'other', type: 'swap' });
  });

  it('two signatures at once are ambiguous, and both named', async () => {
    make(16);
    run('mkfs.ext4', '-q', '-F', image);
    // squashfs 4.0 in the boot block that ext4 leaves alone
    put(0, Buffer.concat([Buffer.from('hsqs'), Buffer.alloc(24), Buffer.from([4, 0])]));
    const content = await probe();
    expect(content.kind).to.equal('ambiguous');
    expect(describeContent(content))
      .to.match(/ext4/)
      .and.match(/squashfs/);
  });

  it('a device that is not there is an I/O error, never "blank"', async () => {
    image = join(folder, 'none');
    const error = await probe().catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(FileSystemError);
    expect((error as FileSystemError).kind).to.equal('io');
  });

  it('a device shorter than it was said to be is an I/O error', async () => {
    make(2);
    sizeBytes *= 2;
    expect(((await probe().catch((caught: unknown) => caught)) as FileSystemError).kind).to.equal('io');
  });

  it('FAKE runner: blkid killed at its deadline, blkid not installed', async () => {
    make(2);
    const commands = new DirectCommands();
    const outcomes = [commandError('blkid', { timedOut: true }), commandError('blkid', { missing: true })];
    commands.overrides.set('blkid', () => Promise.reject(outcomes.shift()));
    const kinds: string[] = [];
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const device = { devicePath: image, fileRoot: '', sizeBytes };
      const error = await probeDevice({ commands, files }, device).catch((caught: unknown) => caught);
      kinds.push((error as FileSystemError).kind);
    }
    expect(kinds).to.deep.equal(['io', 'tool-missing']);
  });

  it('undoes the escapes of blkid -o export', () => {
    expect(parseExport('LABEL=a\\ b\\"c\nTYPE=ext4\n').get('LABEL')).to.equal('a b"c');
  });
});

/** LVM's crc of a label: CRC-32 with its own initial value (lvm2, lib/misc/crc.c). */
function lvmCrc(bytes: Uint8Array): number {
  let crc = 0xf597a6cf;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return crc >>> 0;
}
