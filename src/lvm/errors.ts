/**
 * What a failed LVM command means. Exit code 5 stands for "not found", "exists", "no space" and "metadata full" alike,
 * so the messages decide. They are compared with those of LVM 2.03.11, 2.03.16, 2.03.22 and 2.03.39 (sources
 * lib/metadata/{lv_manip,metadata}.c, lib/format_text/format-text.c, lib/activate/activate.c, tools/toollib.c).
 */
import { CommandError } from '../system/commands.ts';
import { LvmError, type LvmErrorKind } from './types.ts';

/** First match wins: on a partial VG, or one that cannot be used, other messages are consequences. */
const PATTERNS: readonly (readonly [LvmErrorKind, RegExp])[] = [
  ['metadata-full', /exceeds maximum metadata size|too large for circular buffer/],
  [
    'vg-partial',
    /Cannot change VG \S+ while PVs are missing|Cannot update partial volume group|Refusing (?:activation|refresh) of partial LV|There are still partial LVs/,
  ],
  [
    'vg-inaccessible',
    /Volume group "?\S+"? is exported|Cannot access VG \S+ with system ID|Cannot access VG \S+ with unknown system ID|Can't get lock for|Cannot access VG \S+ due to failed lock|lvmlockd|Multiple VGs found with the same name/,
  ],
  ['vg-not-found', /Volume group "?[^"\s]+"? not found|Volume group "?\S+"? doesn't exist/],
  [
    'lv-not-found',
    /Failed to find logical volume|Logical volume \S+ not found in volume group|Existing logical volume "?\S+"? not found/i,
  ],
  ['lv-exists', /Logical volume "?\S+"? already exists in/i],
  ['no-space', /insufficient (?:free space|suitable .*extents)|insufficient allocatable/i],
  [
    'in-use',
    /is used by another device|contains a filesystem in use|Logical volume \S+ in use\.|Can't remove open logical volume|Device or resource busy/,
  ],
  [
    'invalid',
    /Invalid argument for|is invalid\b|has invalid characters|are reserved\.|may not exceed|may not be blank|must differ/,
  ],
];

/** The kind of an LVM failure by what it wrote to stderr. Warnings are left out: they come with successes as well. */
export function classify(stderr: string): LvmErrorKind {
  const errors = stderr
    .split('\n')
    .filter((line) => !/^\s*WARNING:/.test(line))
    .join('\n');
  return PATTERNS.find(([, pattern]) => pattern.test(errors))?.[0] ?? 'other';
}

/** Any failure of an LVM command as an LvmError; what is not a CommandError is passed on as it is. */
export function toLvmError(error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  if (error.missing) return new LvmError('lvm-missing', error.shortMessage, { cause: error });
  if (error.exitCode === undefined) return new LvmError('other', error.message, { cause: error });
  return new LvmError(classify(error.stderr), error.message, { cause: error });
}

/** Did LVM refuse its arguments because it is older than this option? */
export function isUnknownOption(error: unknown, option: string): boolean {
  const cause = error instanceof LvmError ? error.cause : error;
  return cause instanceof CommandError && cause.stderr.includes(`unrecognized option '${option}'`);
}
