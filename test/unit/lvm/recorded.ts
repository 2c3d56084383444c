/**
 * Reports recorded with LVM 2.03.16 on a real VG (one PV; a thin pool, two thin LVs, three linear LVs, one of them in two
 * segments and under a gate), and reports of the same form for the fake.
 */

export const RECORDED_VG: Readonly<Record<string, string>> = {
  vg_name: 'v0',
  vg_uuid: 'fpLRKF-ff7l-M9uJ-MWFr-gC4Q-SgfE-DPDV8c',
  vg_size: '2143289344',
  vg_free: '2097152000',
  vg_extent_size: '4194304',
  vg_extent_count: '511',
  vg_mda_size: '2093056',
  vg_mda_free: '1041920',
  vg_tags: 'vt1,vt2',
  vg_missing_pv_count: '0',
  vg_exported: '',
  pv_count: '1',
  lv_count: '6',
};

const RECORDED_LVS: readonly Readonly<Record<string, string>>[] = [
  {
    lv_uuid: '61O03i-nEXt-wHbJ-UQRj-qqhK-DV6E-LjgQbC',
    lv_name: 'pool',
    lv_size: '16777216',
    lv_tags: '',
    lv_time: '1795500000',
    lv_active: 'active',
    lv_device_open: 'open',
    lv_suspended: '',
    segtype: 'thin-pool',
    seg_start: '0',
    seg_pe_ranges: 'pool_tdata:0-3',
    pool_lv: '',
    origin: '',
    data_percent: '0.00',
    metadata_percent: '10.94',
  },
  {
    lv_uuid: 'aKL4O1-K6wZ-o0FH-QEXU-9t8L-3sOw-4Se53w',
    lv_name: 'thin1',
    lv_size: '1073741824',
    lv_tags: '',
    lv_time: '1795500000',
    lv_active: 'active',
    lv_device_open: '',
    lv_suspended: '',
    segtype: 'thin',
    seg_start: '0',
    seg_pe_ranges: '',
    pool_lv: 'pool',
    origin: '',
    data_percent: '0.00',
    metadata_percent: '',
  },
  {
    lv_uuid: 'WRxNGt-ImKx-jf0M-UDEw-qySt-iEup-wihV80',
    lv_name: 'thin2',
    lv_size: '1073741824',
    lv_tags: '',
    lv_time: '1795500000',
    lv_active: '',
    lv_device_open: 'unknown',
    lv_suspended: 'unknown',
    segtype: 'thin',
    seg_start: '0',
    seg_pe_ranges: '',
    pool_lv: 'pool',
    origin: 'thin1',
    data_percent: '',
    metadata_percent: '',
  },
  {
    lv_uuid: 'lkYH0w-BEfI-eos3-JQqD-eg6R-2HCW-SN66gc',
    lv_name: 'volume-1',
    lv_size: '12582912',
    lv_tags: 'a,b=c&26',
    lv_time: '1795500000',
    lv_active: 'active',
    lv_device_open: 'open',
    lv_suspended: '',
    segtype: 'linear',
    seg_start: '0',
    seg_pe_ranges: '/dev/ubda:5-6',
    pool_lv: '',
    origin: '',
    data_percent: '',
    metadata_percent: '',
  },
  {
    lv_uuid: 'lkYH0w-BEfI-eos3-JQqD-eg6R-2HCW-SN66gc',
    lv_name: 'volume-1',
    lv_size: '12582912',
    lv_tags: 'a,b=c&26',
    lv_time: '1795500000',
    lv_active: 'active',
    lv_device_open: 'open',
    lv_suspended: '',
    segtype: 'linear',
    seg_start: '8388608',
    seg_pe_ranges: '/dev/ubda:8-8',
    pool_lv: '',
    origin: '',
    data_percent: '',
    metadata_percent: '',
  },
  {
    lv_uuid: 'oLpkFr-Hpiz-0vjT-nAJj-yfBM-Vwwe-gBEMMb',
    lv_name: 'volume-2',
    lv_size: '4194304',
    lv_tags: '',
    lv_time: '1795500000',
    lv_active: '',
    lv_device_open: 'unknown',
    lv_suspended: 'unknown',
    segtype: 'linear',
    seg_start: '0',
    seg_pe_ranges: '/dev/ubda:7-7',
    pool_lv: '',
    origin: '',
    data_percent: '',
    metadata_percent: '',
  },
  {
    lv_uuid: 'C0BhSh-lPer-sfMT-ecUB-vrz2-4Hdo-Hut11d',
    lv_name: 'x',
    lv_size: '4194304',
    lv_tags: '',
    lv_time: '1795500000',
    lv_active: 'active',
    lv_device_open: '',
    lv_suspended: '',
    segtype: 'linear',
    seg_start: '0',
    seg_pe_ranges: '/dev/ubda:9-9',
    pool_lv: '',
    origin: '',
    data_percent: '',
    metadata_percent: '',
  },
];

export const RECORDED_LV_REPORT = JSON.stringify({
  report: [{ lv: RECORDED_LVS.map((lv) => ({ ...RECORDED_VG, ...lv })) }],
});

export const RECORDED_VG_REPORT = JSON.stringify({ report: [{ vg: [RECORDED_VG] }] });

/** The second PV is missing. */
export const RECORDED_PV_REPORT = JSON.stringify({
  report: [
    {
      vg: [
        {
          vg_name: 'v0',
          vg_uuid: 'fpLRKF-ff7l-M9uJ-MWFr-gC4Q-SgfE-DPDV8c',
          pv_uuid: 'Dyra1c-Z4nW-8pPX-sW9j-5GId-DsRE-wCLZY2',
          pv_name: '/dev/ubda',
          pv_major: '98',
          pv_minor: '0',
        },
        {
          vg_name: 'v0',
          vg_uuid: 'fpLRKF-ff7l-M9uJ-MWFr-gC4Q-SgfE-DPDV8c',
          pv_uuid: 'sDxlwU-2yr3-U0n0-e7L4-NtkC-C6H7-qdIN7g',
          pv_name: '[unknown]',
          pv_major: '0',
          pv_minor: '0',
        },
      ],
    },
  ],
});

export interface ReportedLv {
  readonly name: string;
  readonly uuid: string;
  readonly sizeBytes: number;
  readonly tags: readonly string[];
}

export function vgRow(vg: {
  readonly name: string;
  readonly tags: readonly string[];
  readonly missing: number;
  readonly pvCount: number;
  readonly lvCount: number;
  readonly exported?: boolean;
}): Record<string, string> {
  return {
    ...RECORDED_VG,
    vg_name: vg.name,
    vg_tags: vg.tags.join(','),
    vg_missing_pv_count: String(vg.missing),
    pv_count: String(vg.pvCount),
    lv_count: String(vg.lvCount),
    vg_exported: vg.exported === true ? 'exported' : '',
  };
}

export function lvReport(vg: Record<string, string>, lvs: readonly ReportedLv[]): string {
  const plain = RECORDED_LVS.find((lv) => lv['lv_name'] === 'x');
  const rows = lvs.map((lv) => ({
    ...vg,
    ...plain,
    lv_name: lv.name,
    lv_uuid: lv.uuid,
    lv_size: String(lv.sizeBytes),
    lv_tags: lv.tags.join(','),
    lv_time: '1795500000',
  }));
  return JSON.stringify({ report: [{ lv: rows }] });
}
