/**
 * Whether what LVM has just allocated was blank. Asked twice, before the command and after it: a report is some seconds
 * old, the command may have waited long behind others, and meanwhile an administrator may have added a disk with old data.
 */
import { log } from '../system/context.ts';
import type { BackendDependencies } from './dependencies.ts';
import type { VolumeTable } from './volume-table.ts';

/** @param markBefore of the report that the decision to allocate was made on  @param after read when the command had ended */
export function wasBlank(deps: BackendDependencies, markBefore: string | undefined, after: VolumeTable): boolean {
  if (markBefore === undefined) return false;
  if (deps.blankMark(after.report) === markBefore) return true;
  log().warn({ vgName: deps.lvm.vgName }, 'trust in blank extents was lost while some were allocated: they are zeroed');
  return false;
}
