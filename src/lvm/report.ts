/**
 * LVM's JSON reports: which fields are asked for, and what they become.
 *
 * The whole VG comes from one `lvs` that carries the VG's fields in each row: `lvm fullreport` costs two to three times
 * as much, and `vgs` with LV fields is no cheaper (measured, 2.03.16). A VG without LVs has no row there; `vgs` answers for
 * it. `json`, not `json_std`, which LVM before 2.03.17 does not know: every value is a string.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { mergedExtents, parseExtents } from './extents.ts';
import { type LogicalVolume, LvmError, type VgReport, type VolumeGroup } from './types.ts';

const VG_FIELDS = [
  'vg_name',
  'vg_uuid',
  'vg_size',
  'vg_free',
  'vg_extent_size',
  'vg_extent_count',
  'vg_mda_size',
  'vg_mda_free',
  'vg_tags',
  'vg_missing_pv_count',
  'vg_exported',
  'pv_count',
  'lv_count',
];
const LV_FIELDS = [
  'lv_uuid',
  'lv_name',
  'lv_size',
  'lv_tags',
  'lv_time',
  'lv_active',
  'lv_device_open',
  'lv_suspended',
  'segtype',
  'seg_start',
  'seg_pe_ranges',
  'pool_lv',
  'origin',
  'data_percent',
  'metadata_percent',
];
const PV_FIELDS = ['vg_name', 'vg_uuid', 'pv_uuid', 'pv_name', 'pv_major', 'pv_minor'];

const FORMAT = ['--reportformat', 'json', '--units', 'b', '--nosuffix'];

/** Arguments of `lvm`. */
export function lvReportArguments(vgName: string): string[] {
  return ['lvs', ...FORMAT, '-o', [...VG_FIELDS, ...LV_FIELDS].join(','), vgName];
}

export function vgReportArguments(vgName: string): string[] {
  return ['vgs', ...FORMAT, '-o', VG_FIELDS.join(','), vgName];
}

export function pvReportArguments(vgName: string): string[] {
  return ['vgs', ...FORMAT, '-o', PV_FIELDS.join(','), vgName];
}

/** A PV that LVM found, as its report has it. */
export interface ReportedPv {
  readonly uuid: string;
  readonly vgUuid: string;
  /** "major:minor"; undefined for a PV that is missing. */
  readonly deviceNumber: string | undefined;
}

export interface VgRow {
  readonly vg: VolumeGroup;
  readonly extentCount: number;
  readonly pvCount: number;
  /** Visible LVs (vg_visible_lvs in lib/metadata/metadata.c): as many as `lvs` lists. */
  readonly lvCount: number;
}

type Row = Readonly<Record<string, string>>;

const REPORT = z.object({ report: z.array(z.record(z.string(), z.array(z.record(z.string(), z.string())))) });

/** The rows of a report, whatever its kind (`lv`, `seg`, `vg`, `pv`: LVM chooses by the fields). */
function rows(stdout: string): Row[] {
  let json: unknown;
  try {
    json = JSON.parse(stdout);
  } catch (cause) {
    throw new LvmError('other', `LVM's report is not JSON: ${excerpt(stdout)}`, { cause });
  }
  const parsed = REPORT.safeParse(json);
  if (!parsed.success) {
    throw new LvmError('other', `LVM's report has an unknown form: ${excerpt(stdout)}`, { cause: parsed.error });
  }
  return parsed.data.report.flatMap((part) => Object.values(part).flat());
}

/** Undefined for a VG that has no (visible) LV: ask `vgs` then. */
export function parseLvReport(stdout: string): { row: VgRow; lvs: LogicalVolume[] } | undefined {
  const [first, ...rest] = rows(stdout);
  if (first === undefined) return undefined;
  const lvs = new Map<string, LogicalVolume & { readonly start: number }>();
  // One row for each segment; the first segment's type is the LV's.
  for (const row of [first, ...rest]) {
    const uuid = text(row, 'lv_uuid');
    const start = number(row, 'seg_start');
    const known = lvs.get(uuid);
    const lv = known === undefined || start < known.start ? { ...logicalVolume(row), start } : known;
    const extents = parseExtents(text(row, 'seg_pe_ranges'));
    lvs.set(uuid, { ...lv, extents: known === undefined ? extents : mergedExtents([...known.extents, ...extents]) });
  }
  return { row: vgRow(first), lvs: [...lvs.values()].map(({ start: _start, ...lv }) => lv) };
}

/** @throws LvmError other when there is not exactly one VG */
export function parseVgReport(stdout: string): VgRow {
  const [row, ...more] = rows(stdout);
  if (row === undefined || more.length > 0) {
    throw new LvmError('other', `LVM's report has ${row === undefined ? 'no VG' : `${more.length + 1} VGs`}`);
  }
  return vgRow(row);
}

export function parsePvReport(stdout: string): ReportedPv[] {
  return rows(stdout).map((row) => {
    const [major, minor] = [text(row, 'pv_major'), text(row, 'pv_minor')];
    // 0:0 stands for a PV that is missing.
    const found = /^\d+$/.test(major) && /^\d+$/.test(minor) && `${major}:${minor}` !== '0:0';
    return {
      uuid: text(row, 'pv_uuid'),
      vgUuid: text(row, 'vg_uuid'),
      deviceNumber: found ? `${major}:${minor}` : undefined,
    };
  });
}

/** The report with the VG's space id, where the PVs are known. */
export function vgReport(row: VgRow, lvs: readonly LogicalVolume[], pvUuids: readonly string[] | undefined): VgReport {
  const complete = pvUuids !== undefined && row.vg.missingPvCount === 0 && pvUuids.length === row.pvCount;
  return { vg: { ...row.vg, spaceId: complete ? spaceId(pvUuids, row.extentCount) : undefined }, lvs };
}

function spaceId(pvUuids: readonly string[], extentCount: number): string {
  return createHash('sha256')
    .update(JSON.stringify([[...pvUuids].sort(), extentCount]))
    .digest('hex')
    .slice(0, 32);
}

function vgRow(row: Row): VgRow {
  return {
    vg: {
      name: text(row, 'vg_name'),
      uuid: text(row, 'vg_uuid'),
      sizeBytes: number(row, 'vg_size'),
      freeBytes: number(row, 'vg_free'),
      extentSizeBytes: number(row, 'vg_extent_size'),
      metadataSizeBytes: number(row, 'vg_mda_size'),
      metadataFreeBytes: number(row, 'vg_mda_free'),
      tags: list(row, 'vg_tags'),
      missingPvCount: number(row, 'vg_missing_pv_count'),
      exported: text(row, 'vg_exported') !== '',
    },
    extentCount: number(row, 'vg_extent_count'),
    pvCount: number(row, 'pv_count'),
    lvCount: number(row, 'lv_count'),
  };
}

function logicalVolume(row: Row): LogicalVolume {
  const name = text(row, 'lv_name');
  return {
    name,
    uuid: text(row, 'lv_uuid'),
    path: `/dev/${text(row, 'vg_name')}/${name}`,
    sizeBytes: number(row, 'lv_size'),
    tags: list(row, 'lv_tags'),
    // LVM prints nothing for an LV that was made by an old version or whose metadata was written by hand.
    createdAt: text(row, 'lv_time') === '' ? undefined : number(row, 'lv_time'),
    active: text(row, 'lv_active').startsWith('active'),
    // An LV that is not active has "unknown" here.
    open: text(row, 'lv_device_open') === 'open',
    suspended: text(row, 'lv_suspended') === 'suspended',
    segmentType: text(row, 'segtype'),
    poolName: optional(row, 'pool_lv'),
    originName: optional(row, 'origin'),
    extents: [],
    dataPercent: percent(row, 'data_percent'),
    metadataPercent: percent(row, 'metadata_percent'),
  };
}

function text(row: Row, field: string): string {
  const value = row[field];
  if (value === undefined) throw new LvmError('other', `LVM's report has no field ${field}`);
  return value;
}

function number(row: Row, field: string): number {
  const value = text(row, field);
  const parsed = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(parsed))
    throw new LvmError('other', `field ${field} of LVM's report is no whole number: ${JSON.stringify(value)}`);
  return parsed;
}

/** A name without the brackets that mark hidden LVs. */
function optional(row: Row, field: string): string | undefined {
  const value = text(row, field).replace(/^\[(.*)\]$/, '$1');
  return value === '' ? undefined : value;
}

function percent(row: Row, field: string): number | undefined {
  const value = text(row, field);
  const parsed = Number(value);
  return value === '' || !Number.isFinite(parsed) || parsed < 0 ? undefined : parsed;
}

function list(row: Row, field: string): string[] {
  const value = text(row, field);
  return value === '' ? [] : value.split(',');
}

function excerpt(stdout: string): string {
  return JSON.stringify(stdout.length > 200 ? `${stdout.slice(0, 200)}…` : stdout);
}
