/**
 * The target that holds the portals is a witness as well: while its portal group is enabled, every attached volume is
 * exported, each with the access of its initiators. It has no LUN and no ACL: a login is answered "not authorized"
 * (0202h, iscsi_target_locate_portal), against "no such target" (0301h) while it is disabled or not there. So an
 * initiator that a volume's target refuses can tell "you have been cut off" from "not there yet, or broken".
 */
import { log } from '../../system/context.ts';
import type { ConfigFs } from './configfs.ts';
import { attribute, differences, write } from './configfs-calls.ts';
import { TargetError } from './errors.ts';
import { disable } from './fence.ts';
import type { TargetPaths } from './layout.ts';
import { groupSettings } from './portal-group.ts';

/** @throws TargetError kernel: nothing holds the portals. */
export async function enableWitness(fs: ConfigFs, paths: TargetPaths): Promise<void> {
  const [enabled] = await fs.ask(attribute(paths.enable));
  if (enabled === undefined) throw new TargetError('kernel', 'the target that holds the portals is not there');
  const settings = await differences(fs, groupSettings(paths, '1'));
  if (enabled === '1' && settings.length === 0) return;
  await fs.apply([...settings, ...(enabled === '1' ? [] : [write('target-witness-enable', paths.enable, '1')])]);
  log().info('the witness says: every attached volume is exported');
}

export async function disableWitness(fs: ConfigFs, paths: TargetPaths): Promise<void> {
  const [enabled] = await fs.ask(attribute(paths.enable));
  if (enabled !== '1') return;
  await disable(fs, paths, 'target-witness-disable');
  log().warn('the witness is silent: not every attached volume is known to be exported');
}
