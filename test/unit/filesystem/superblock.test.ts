import { expect } from 'chai';
import { parseExt4Superblock, parseXfsSuperblock } from '../../../src/filesystem/superblock.ts';

describe('superblocks', () => {
  it('ext4 beyond 16 TiB: both halves of the block count', () => {
    const bytes = new Uint8Array(1024);
    const view = new DataView(bytes.buffer);
    view.setUint16(0x38, 0xef53, true);
    view.setUint32(0x4, 7, true);
    view.setUint32(0x150, 2, true);
    view.setUint32(0x18, 2, true);
    view.setUint32(0x60, 0x80 | 0x4, true);
    view.setUint16(0x3a, 3, true);
    expect(parseExt4Superblock(bytes)).to.deep.equal({
      sizeBytes: (2 * 2 ** 32 + 7) * 4096,
      blockSizeBytes: 4096,
      valid: true,
      hasErrors: true,
      needsRecovery: true,
    });
    view.setUint32(0x60, 0, true);
    expect(parseExt4Superblock(bytes)?.sizeBytes).to.equal(7 * 4096);
  });

  it('no magic number: no superblock', () => {
    expect(parseExt4Superblock(new Uint8Array(1024))).to.equal(undefined);
    expect(parseXfsSuperblock(new Uint8Array(512))).to.equal(undefined);
  });
});
