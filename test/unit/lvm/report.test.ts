import { expect } from 'chai';
import { covers, mergedExtents, parseExtents } from '../../../src/lvm/extents.ts';
import { parseLvReport, parsePvReport, parseVgReport, vgReport } from '../../../src/lvm/report.ts';
import { LvmError } from '../../../src/lvm/types.ts';
import { RECORDED_LV_REPORT, RECORDED_PV_REPORT, RECORDED_VG, RECORDED_VG_REPORT } from './recorded.ts';

describe('lvm/report (recorded from LVM 2.03.16)', () => {
  it('reads the VG and its LVs, one for each, however many segments', () => {
    const parsed = parseLvReport(RECORDED_LV_REPORT);
    expect(parsed?.row.vg).to.deep.equal({
      name: 'v0',
      uuid: 'fpLRKF-ff7l-M9uJ-MWFr-gC4Q-SgfE-DPDV8c',
      sizeBytes: 2143289344,
      freeBytes: 2097152000,
      extentSizeBytes: 4194304,
      metadataSizeBytes: 2093056,
      metadataFreeBytes: 1041920,
      tags: ['vt1', 'vt2'],
      missingPvCount: 0,
      exported: false,
    });
    expect(parsed?.row).to.include({ extentCount: 511, pvCount: 1, lvCount: 6 });
    expect(parseVgReport(RECORDED_VG_REPORT)).to.deep.equal(parsed?.row);
    const lvs = new Map(parsed?.lvs.map((lv) => [lv.name, lv]));
    expect([...lvs.keys()]).to.deep.equal(['pool', 'thin1', 'thin2', 'volume-1', 'volume-2', 'x']);
    expect(lvs.get('volume-1')).to.deep.equal({
      name: 'volume-1',
      uuid: 'lkYH0w-BEfI-eos3-JQqD-eg6R-2HCW-SN66gc',
      path: '/dev/v0/volume-1',
      sizeBytes: 12582912,
      tags: ['a', 'b=c&26'],
      createdAt: 1795500000,
      active: true,
      open: true,
      suspended: false,
      segmentType: 'linear',
      poolName: undefined,
      originName: undefined,
      extents: [
        { place: '/dev/ubda', first: 5, last: 6 },
        { place: '/dev/ubda', first: 8, last: 8 },
      ],
      dataPercent: undefined,
      metadataPercent: undefined,
    });
    expect(lvs.get('volume-2')).to.include({ active: false, open: false, suspended: false });
    expect(lvs.get('pool')).to.include({ segmentType: 'thin-pool', dataPercent: 0, metadataPercent: 10.94 });
    expect(lvs.get('thin2')).to.include({ poolName: 'pool', originName: 'thin1', dataPercent: undefined });
  });

  it('does not stumble over an LV without a creation time', () => {
    const lvs = parseLvReport(RECORDED_LV_REPORT.replaceAll('1795500000', ''))?.lvs;
    expect(lvs?.map((lv) => lv.createdAt)).to.deep.equal(Array(6).fill(undefined));
  });

  it('says where an LV lies, however it is divided into segments', () => {
    const place = '/dev/disk/by-path/pci-0000:00:04.0';
    expect(parseExtents(`${place}:0-9 [pvmove0]:3-3`)).to.deep.equal([
      { place, first: 0, last: 9 },
      { place: '[pvmove0]', first: 3, last: 3 },
    ]);
    expect(parseExtents('')).to.deep.equal([]);
    expect(parseExtents('somewhere')).to.deep.equal([{ place: 'somewhere', first: 0, last: 0 }]);
    const merged = (text: string) => mergedExtents(parseExtents(text));
    expect(merged('b:4-7 a:0-1 b:0-3 a:3-3')).to.deep.equal(parseExtents('a:0-1 a:3-3 b:0-7'));
    const newer = merged('a:0-5 b:0-7');
    for (const text of ['', 'a:0-5', 'a:2-3 b:7-7']) expect(covers(newer, merged(text)), text).to.equal(true);
    for (const text of ['a:0-6', 'c:0-0', 'a:5-5 b:8-8']) expect(covers(newer, merged(text)), text).to.equal(false);
  });

  it('tells a PV that is missing', () => {
    expect(parsePvReport(RECORDED_PV_REPORT).map((pv) => pv.deviceNumber)).to.deep.equal(['98:0', undefined]);
  });

  it('an empty report is a VG without LVs, not a VG', () => {
    expect(parseLvReport('{"report":[{"lv":[]}]}')).to.equal(undefined);
    expect(() => parseVgReport('{"report":[{"vg":[]}]}')).to.throw(LvmError, 'no VG');
  });

  it('the space id follows PVs and extents, not LVs and tags', () => {
    const id = (changes: Record<string, string>, pvUuids: string[] | undefined): string | undefined => {
      const row = parseVgReport(JSON.stringify({ report: [{ vg: [{ ...RECORDED_VG, ...changes }] }] }));
      return vgReport(row, [], pvUuids).vg.spaceId;
    };
    const base = id({}, ['a']);
    expect(base).to.match(/^[0-9a-f]{32}$/);
    expect(id({ vg_tags: '', vg_free: '0', lv_count: '9' }, ['a'])).to.equal(base);
    expect(id({ vg_extent_count: '512' }, ['a'])).not.to.equal(base);
    expect(id({}, ['b'])).not.to.equal(base);
    expect(id({ pv_count: '2' }, ['a', 'b'])).to.equal(id({ pv_count: '2' }, ['b', 'a']));
    expect(id({}, undefined)).to.equal(undefined);
    expect(id({ pv_count: '2' }, ['a'])).to.equal(undefined);
    expect(id({ vg_missing_pv_count: '1' }, ['a'])).to.equal(undefined);
  });
});
