import type { LogicalVolume } from '../../../src/lvm/types.ts';

/** A linear LV, active and not open, on no extents that matter. */
export function sampleLv(more: Pick<LogicalVolume, 'name'> & Partial<LogicalVolume>): LogicalVolume {
  return {
    uuid: `uuid-of-${more.name}`,
    path: `/dev/vg/${more.name}`,
    sizeBytes: 4096,
    tags: [],
    createdAt: 0,
    active: true,
    open: false,
    suspended: false,
    segmentType: 'linear',
    poolName: undefined,
    originName: undefined,
    extents: [],
    dataPercent: undefined,
    metadataPercent: undefined,
    ...more,
  };
}
