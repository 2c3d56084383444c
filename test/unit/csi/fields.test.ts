import { expect } from 'chai';
import * as fields from '../../../src/csi/fields.ts';
import type { WireVolumeCapability } from '../../../src/csi/wire.ts';
import { DriverError } from '../../../src/errors.ts';

function expectError(action: () => unknown, code: string, pattern: RegExp): void {
  expect(action).to.throw(DriverError, pattern).with.property('code', code);
}

const MOUNT = { fs_type: 'xfs', mount_flags: ['noatime'], volume_mount_group: '' };
const WRITER = { mode: 'SINGLE_NODE_WRITER' };

describe('capabilities', () => {
  it('parses block and mount', () => {
    expect(fields.requireCapability('c', { block: {}, access_mode: WRITER })).to.deep.equal({
      access: { kind: 'block' },
      mode: 'SINGLE_NODE_WRITER',
    });
    expect(fields.requireCapability('c', { mount: MOUNT, access_mode: WRITER })).to.deep.equal({
      access: { kind: 'mount', fsType: 'xfs', mountFlags: ['noatime'] },
      mode: 'SINGLE_NODE_WRITER',
    });
  });

  for (const mode of [
    'SINGLE_NODE_WRITER',
    'SINGLE_NODE_READER_ONLY',
    'SINGLE_NODE_SINGLE_WRITER',
    'SINGLE_NODE_MULTI_WRITER',
    'MULTI_NODE_READER_ONLY',
    'MULTI_NODE_MULTI_WRITER',
  ]) {
    it(`knows access mode ${mode}`, () => {
      expect(fields.requireCapability('c', { block: {}, access_mode: { mode } }).mode).to.equal(mode);
    });
  }

  const refused: readonly [string, WireVolumeCapability | null, RegExp][] = [
    ['none', null, /^volume_capability is missing/],
    ['neither block nor mount', { access_mode: WRITER }, /access_type \(block or mount\) is missing/],
    ['no access mode', { block: {}, access_mode: null }, /access_mode\.mode is missing/],
    ['access mode UNKNOWN', { block: {}, access_mode: { mode: 'UNKNOWN' } }, /access_mode\.mode is missing/],
    ['MULTI_NODE_SINGLE_WRITER', { block: {}, access_mode: { mode: 'MULTI_NODE_SINGLE_WRITER' } }, /not supported/],
    ['a mount group', { mount: { ...MOUNT, volume_mount_group: '1000' }, access_mode: WRITER }, /volume_mount_group/],
    [
      'a mount group and no mode',
      { mount: { ...MOUNT, volume_mount_group: '1' }, access_mode: null },
      /mode is missing/,
    ],
  ];
  for (const [what, capability, pattern] of refused) {
    it(`refuses ${what}`, () => {
      expectError(() => fields.requireCapability('volume_capability', capability), 'INVALID_ARGUMENT', pattern);
    });
  }

  it('tells what is malformed from what is not supported', () => {
    const single = { block: {}, access_mode: { mode: 'MULTI_NODE_SINGLE_WRITER' } };
    expect(fields.parseCapability('c', single)).to.have.property('supported', false);
    expectError(() => fields.parseCapability('c', { access_mode: WRITER }), 'INVALID_ARGUMENT', /missing/);
  });

  it('names the place in a list, and wants at least one', () => {
    expectError(() => fields.requireCapabilities([]), 'INVALID_ARGUMENT', /^volume_capabilities is missing/);
    const list = [{ block: {}, access_mode: WRITER }, { access_mode: WRITER }];
    expectError(() => fields.requireCapabilities(list), 'INVALID_ARGUMENT', /volume_capabilities\[1\]/);
  });
});

describe('capacity', () => {
  const range = (required_bytes: number, limit_bytes: number) => ({ required_bytes, limit_bytes });

  it('is 0 when not given', () => {
    expect(fields.parseCapacity(null)).to.deep.equal({ requiredBytes: 0, limitBytes: 0 });
    expect(fields.parseCapacity(range(0, 0))).to.deep.equal({ requiredBytes: 0, limitBytes: 0 });
  });

  it('keeps both ends', () => {
    expect(fields.parseCapacity(range(5, 5))).to.deep.equal({ requiredBytes: 5, limitBytes: 5 });
    expect(fields.parseCapacity(range(5, 0))).to.deep.equal({ requiredBytes: 5, limitBytes: 0 });
    expect(fields.parseCapacity(range(0, 5))).to.deep.equal({ requiredBytes: 0, limitBytes: 5 });
  });

  it('refuses what cannot be', () => {
    expectError(() => fields.parseCapacity(range(-1, 0)), 'INVALID_ARGUMENT', /required_bytes is negative; found: -1/);
    expectError(() => fields.parseCapacity(range(0, -1)), 'INVALID_ARGUMENT', /limit_bytes is negative/);
    expectError(() => fields.parseCapacity(range(6, 5)), 'OUT_OF_RANGE', /required 6, limit 5/);
  });

  it('is required where the call is about it', () => {
    expectError(() => fields.requireCapacity(null), 'INVALID_ARGUMENT', /capacity_range is missing/);
    expectError(() => fields.requireCapacity(range(0, 0)), 'INVALID_ARGUMENT', /capacity_range is missing/);
    expect(fields.requireCapacity(range(1, 0))).to.deep.equal({ requiredBytes: 1, limitBytes: 0 });
  });
});

describe('paths', () => {
  it('are absolute, without ".."', () => {
    expect(fields.requireAbsolutePath('target_path', '/var/lib/kubelet/a b/..c')).to.equal('/var/lib/kubelet/a b/..c');
    expectError(() => fields.requireAbsolutePath('target_path', ''), 'INVALID_ARGUMENT', /target_path is missing/);
    expectError(() => fields.requireAbsolutePath('target_path', 'a/b'), 'INVALID_ARGUMENT', /not an absolute path/);
    expectError(() => fields.requireAbsolutePath('target_path', '/a/../etc'), 'INVALID_ARGUMENT', /"\.\."/);
  });

  it('of a volume are looked for before their shape is judged', () => {
    expect(fields.requireVolumePath('v', '/a')).to.equal('/a');
    expectError(() => fields.requireVolumePath('v', ''), 'INVALID_ARGUMENT', /volume_path is missing/);
    expectError(() => fields.requireVolumePath('v', 'some/path'), 'NOT_FOUND', /volume v is not at/);
  });
});
