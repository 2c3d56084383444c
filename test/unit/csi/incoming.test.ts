import { expect } from 'chai';
import { checkIncoming } from '../../../src/csi/incoming.ts';
import { csiRoot } from '../../../src/csi/proto.ts';
import { DriverError, type ErrorCode } from '../../../src/errors.ts';

function check(type: string, message: Record<string, unknown>): Readonly<Record<string, unknown>> {
  return checkIncoming(csiRoot.lookupType(`csi.v1.${type}`), message);
}

function flags(...list: string[]): Record<string, unknown> {
  return { volume_capability: { mount: { mount_flags: list, fs_type: '' } } };
}

describe('checks of every incoming message', () => {
  it('turns int64 into numbers, nested ones too', () => {
    const range = { required_bytes: '9007199254740991', limit_bytes: '-1' };
    expect(check('CreateVolumeRequest', { name: 'x', capacity_range: range })).to.deep.equal({
      name: 'x',
      capacity_range: { required_bytes: 9007199254740991, limit_bytes: -1 },
    });
  });

  const good: readonly [string, string, Record<string, unknown>][] = [
    ['a name of 128 bytes', 'CreateVolumeRequest', { name: 'n'.repeat(128) }],
    ['a name with tab, newline, quotes and $(…)', 'CreateVolumeRequest', { name: '\t\r\n\'"`$(reboot)' }],
    ['a Unicode name', 'CreateVolumeRequest', { name: 'Größe-漢字-😀' }],
    ['a map of 4 KiB', 'CreateVolumeRequest', { parameters: { k: 'v'.repeat(4095) } }],
    ['a long value in a map', 'CreateVolumeRequest', { parameters: { key: 'v'.repeat(2000) } }],
    ['a node_id of 256 bytes', 'ControllerPublishVolumeRequest', { node_id: 'n'.repeat(256) }],
    ['a path of 4096 bytes', 'NodeUnpublishVolumeRequest', { target_path: `/${'p'.repeat(4095)}` }],
    ['mount flags of 4 KiB', 'NodePublishVolumeRequest', flags('f'.repeat(2048), 'g'.repeat(2048))],
    ['absent messages', 'CreateVolumeRequest', { capacity_range: null, volume_content_source: null }],
  ];
  for (const [what, type, message] of good) {
    it(`accepts ${what}`, () => {
      expect(check(type, message)).to.deep.equal(message);
    });
  }

  const range = (required: string) => ({ capacity_range: { required_bytes: required, limit_bytes: '0' } });
  const mode = (value: unknown) => ({ volume_capabilities: [{ block: {} }, { access_mode: { mode: value } }] });
  const bad: readonly [string, string, Record<string, unknown>, ErrorCode, RegExp][] = [
    ['2^53', 'CreateVolumeRequest', range('9007199254740992'), 'OUT_OF_RANGE', /capacity_range\.required_bytes.*8 PiB/],
    ['2^63−1', 'NodeExpandVolumeRequest', range('9223372036854775807'), 'OUT_OF_RANGE', /9223372036854775807/],
    ['−2^63', 'CreateVolumeRequest', range('-9223372036854775808'), 'OUT_OF_RANGE', /-9223372036854775808/],
    [
      'an unknown enum value',
      'CreateVolumeRequest',
      mode(77),
      'INVALID_ARGUMENT',
      /volume_capabilities\[1\]\.access_mode\.mode.*77.*SINGLE_NODE_WRITER/,
    ],
    ['a negative enum value', 'CreateVolumeRequest', mode(-1), 'INVALID_ARGUMENT', /-1/],
    [
      'a name of 129 bytes',
      'CreateVolumeRequest',
      { name: 'n'.repeat(129) },
      'INVALID_ARGUMENT',
      /^name is too long; found: 129 bytes; to do: use at most 128/,
    ],
    [
      'a name of 128 characters and more bytes',
      'CreateVolumeRequest',
      { name: 'ü'.repeat(128) },
      'INVALID_ARGUMENT',
      /256 bytes/,
    ],
    ['an id of 129 bytes', 'DeleteVolumeRequest', { volume_id: 'v'.repeat(129) }, 'INVALID_ARGUMENT', /volume_id/],
    [
      'a node_id of 257 bytes',
      'ControllerUnpublishVolumeRequest',
      { node_id: 'n'.repeat(257) },
      'INVALID_ARGUMENT',
      /at most 256/,
    ],
    [
      'a path of 4097 bytes',
      'NodeStageVolumeRequest',
      { staging_target_path: `/${'p'.repeat(4096)}` },
      'INVALID_ARGUMENT',
      /4097 bytes/,
    ],
    [
      'a map beyond 4 KiB',
      'CreateVolumeRequest',
      { parameters: { k: 'v'.repeat(4096) } },
      'INVALID_ARGUMENT',
      /parameters.*4097 bytes/,
    ],
    [
      'mount flags beyond 4 KiB',
      'NodePublishVolumeRequest',
      flags('f'.repeat(2048), 'g'.repeat(2049)),
      'INVALID_ARGUMENT',
      /mount_flags/,
    ],
    ['a NUL in a name', 'CreateVolumeRequest', { name: 'a\u0000b' }, 'INVALID_ARGUMENT', /U\+0000 at character 2/],
    ['an escape in a name', 'CreateVolumeRequest', { name: '\u001b[31m' }, 'INVALID_ARGUMENT', /U\+001B/],
    ['DEL in a name', 'CreateVolumeRequest', { name: 'a\u007f' }, 'INVALID_ARGUMENT', /U\+007F/],
    ['a C1 control in a name', 'CreateVolumeRequest', { name: 'a\u009f' }, 'INVALID_ARGUMENT', /U\+009F/],
    [
      'a newline in a path',
      'NodePublishVolumeRequest',
      { target_path: '/a\nb' },
      'INVALID_ARGUMENT',
      /target_path.*U\+000A/,
    ],
    ['a newline in an id', 'DeleteVolumeRequest', { volume_id: 'a\nb' }, 'INVALID_ARGUMENT', /volume_id/],
    [
      'a token of 129 bytes',
      'ListVolumesRequest',
      { starting_token: 't'.repeat(129) },
      'ABORTED',
      /^starting_token is not one that this driver gave; found: 129 bytes; to do: list again/,
    ],
    [
      'a control character in a token',
      'ListVolumesRequest',
      { starting_token: 'after:\u0000' },
      'ABORTED',
      /starting_token.*U\+0000 at character 7/,
    ],
    [
      'a newline in a mount flag',
      'NodePublishVolumeRequest',
      flags('ro\nx'),
      'INVALID_ARGUMENT',
      /mount_flags\[0\].*U\+000A/,
    ],
  ];
  for (const [what, type, message, code, pattern] of bad) {
    it(`refuses ${what}`, () => {
      expect(() => check(type, message))
        .to.throw(DriverError, pattern)
        .with.property('code', code);
    });
  }

  it('does not quote a secret that is too long', () => {
    const secrets = { password: `canary${'x'.repeat(5000)}` };
    expect(() => check('DeleteVolumeRequest', { secrets })).to.throw(
      DriverError,
      /^secrets is too long; found: 5014 bytes/,
    );
  });
});
