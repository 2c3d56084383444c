/** The portal group of a target: its attributes and LUN 0. */
import { step } from '../../system/step.ts';
import type { ConfigFs } from './configfs.ts';
import type { FoundTarget } from './inventory.ts';
import type { TargetPaths } from './layout.ts';

/** Any name will do for the kernel. */
const LUN_LINK = 'backstore';

/**
 * Attributes and parameters under tpgt_1. Login only with an ACL (no demo mode), SendTargets shows the target only to
 * an initiator that has one, one connection for each session: the node side makes sessions, not connections, for paths.
 */
const FIXED: readonly (readonly [string, string])[] = [
  ['attrib/generate_node_acls', '0'],
  ['attrib/cache_dynamic_acls', '0'],
  ['attrib/demo_mode_write_protect', '1'],
  ['attrib/demo_mode_discovery', '0'],
  ['param/MaxConnections', '1'],
];

/** Makes target and portal group, disabled, and sets what differs. */
export async function convergePortalGroup(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundTarget | undefined,
  authentication: '0' | '1',
): Promise<void> {
  if (found === undefined) await step('target-make', () => fs.makeFolder(paths.iqn));
  if (found?.hasPortalGroup !== true) await step('target-tpg-make', () => fs.makeFolder(paths.tpg));
  const wanted = [['attrib/authentication', authentication] as const, ...FIXED];
  const values = await Promise.all(wanted.map(([name]) => fs.readIfPresent(`${paths.tpg}/${name}`)));
  for (const [index, [name, value]] of wanted.entries()) {
    if (values[index] === undefined || values[index] === value) continue;
    await step('target-tpg-attribute', () => fs.write(`${paths.tpg}/${name}`, value));
  }
}

/** LUN 0 leads to the backstore; a link elsewhere has been dealt with before. */
export async function convergeLun(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundTarget | undefined,
  backstorePath: string,
): Promise<void> {
  const lun = found?.luns.find((one) => one.name === 'lun_0');
  if (lun === undefined) await step('target-lun-make', () => fs.makeFolder(paths.lun));
  if (lun === undefined || lun.links.length === 0)
    await step('target-lun-link', () => fs.link(backstorePath, `${paths.lun}/${LUN_LINK}`));
}

/** Every LUN of the target, ACLs gone before. Waits in the kernel for commands in flight. */
export async function removeLuns(fs: ConfigFs, paths: TargetPaths, found: FoundTarget): Promise<void> {
  for (const lun of found.luns) {
    const folder = `${paths.tpg}/lun/${lun.name}`;
    for (const link of lun.links) await step('target-lun-unlink', () => fs.removeLink(`${folder}/${link.name}`));
    await step('target-lun-remove', () => fs.removeFolder(folder));
  }
}

export async function removePortalGroup(fs: ConfigFs, paths: TargetPaths): Promise<void> {
  await step('target-tpg-remove', () => fs.removeFolder(paths.tpg));
  await step('target-remove', () => fs.removeFolder(paths.iqn));
}
