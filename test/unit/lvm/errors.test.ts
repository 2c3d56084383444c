import { expect } from 'chai';
import { classify, toLvmError } from '../../../src/lvm/errors.ts';
import { LvmError, type LvmErrorKind } from '../../../src/lvm/types.ts';
import { CommandError } from '../../../src/system/commands.ts';

/** Recorded with LVM 2.03.16 on a real VG, except where a version is named: there the text is from that source. */
const RECORDED: readonly (readonly [LvmErrorKind, string])[] = [
  ['lv-exists', '  Logical Volume "x1" already exists in volume group "v0"'],
  ['no-space', '  Volume group "v0" has insufficient free space (1013 extents): 1048576 required.'],
  ['no-space', '  Insufficient free space: 1048574 extents needed, but only 1012 available'],
  // Source of 2.03.39.
  ['no-space', '  Insufficient suitable contiguous allocatable extents for logical volume x: 5 more required'],
  [
    'metadata-full',
    '  VG test-vg 3 metadata on /dev/ubda (35533 bytes) exceeds maximum metadata size (29952 bytes)\n  Failed to write VG test-vg.',
  ],
  // Source of 2.03.39.
  ['metadata-full', '  VG v 3 metadata on /dev/a (5 bytes) too large for circular buffer (9 bytes with 6 used)'],
  ['lv-not-found', '  Failed to find logical volume "v0/nothere"'],
  ['lv-not-found', '  Logical volume nolv not found in volume group v0.'],
  ['lv-not-found', '  Existing logical volume "nolv" not found in volume group "v0"'],
  ['vg-not-found', '  Volume group "v0" not found\n  Cannot process volume group v0'],
  ['vg-inaccessible', '  Volume group v0 is exported'],
  ['vg-inaccessible', '  Cannot access VG v0 with system ID other with unknown local system ID.'],
  [
    'vg-partial',
    "  WARNING: Couldn't find device with uuid Yv5RGW-KcAX-OTfX-P6aN-78Hr-FVZx-pRLL7w.\n  WARNING: VG v0 is missing PV Yv5RGW-KcAX-OTfX-P6aN-78Hr-FVZx-pRLL7w (last written to /dev/ubdb).\n  Cannot change VG v0 while PVs are missing.\n  See vgreduce --removemissing and vgextend --restoremissing.\n  Cannot process volume group v0",
  ],
  // A partial VG, but this is not what the command failed of.
  [
    'lv-not-found',
    '  WARNING: Couldn\'t find device with uuid Yv5RGW-KcAX-OTfX-P6aN-78Hr-FVZx-pRLL7w.\n  Failed to find logical volume "v0/x1"',
  ],
  ['in-use', '  Logical volume v0/x1 is used by another device.'],
  ['in-use', '  Logical volume v0/xr1 contains a filesystem in use.'],
  // Source of 2.03.11.
  ['in-use', '  Logical volume v0/x in use.'],
  ['invalid', '  Logical volume name "x$3" is invalid.\n  Run `lvcreate --help\' for more information.'],
  ['invalid', '  Names starting "snapshot" are reserved. Please choose a different LV name.'],
  ['invalid', '  Invalid argument for --addtag: a b\n  Error during parsing of command line.'],
  ['invalid', '  Old and new logical volume names must differ'],
  ['other', '  New size (2 extents) matches existing size (2 extents).'],
  ['other', '  /dev/v0/x: already exists in filesystem'],
  ['other', ''],
];

describe('lvm/errors', () => {
  for (const [kind, stderr] of RECORDED) {
    it(`${kind}: ${stderr.trim().split('\n').at(-1)?.trim() ?? ''}`, () => {
      expect(classify(stderr)).to.equal(kind);
    });
  }

  it('tells a missing program from a failed one, and keeps the cause', () => {
    const missing = new CommandError({
      command: 'lvm lvs',
      shortMessage: 'lvm: not found',
      missing: true,
      durationMs: 1,
    });
    expect(toLvmError(missing)).to.be.instanceOf(LvmError).with.property('kind', 'lvm-missing');
    const stderr = '  Volume group "v0" not found';
    const failed = new CommandError({ command: 'lvm lvs', shortMessage: 'exit 5', exitCode: 5, stderr, durationMs: 1 });
    expect(toLvmError(failed)).to.include({ kind: 'vg-not-found', cause: failed });
    const timedOut = new CommandError({ command: 'x', shortMessage: 'late', timedOut: true, stderr, durationMs: 1 });
    expect(toLvmError(timedOut)).to.have.property('kind', 'other');
    const bug = new TypeError('x');
    expect(toLvmError(bug)).to.equal(bug);
  });
});
