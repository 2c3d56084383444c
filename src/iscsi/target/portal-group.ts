/** The portal group of a target: its attributes and LUN 0. */
import type { ConfigFs, Mutation } from './configfs.ts';
import { differences, makeFolder, makeLink, removeFolder, removeLink, writeIfPresent } from './configfs-calls.ts';
import type { FoundTarget } from './inventory.ts';
import type { TargetPaths } from './layout.ts';

/** Any name will do for the kernel. */
const LUN_LINK = 'backstore';
const STEP = 'target-tpg-attribute';

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

/** Who may log in, and how: values for configfs.differences, or to be written one after the other. */
export function groupSettings(
  paths: TargetPaths,
  authentication: '0' | '1',
): { readonly step: string; readonly path: string; readonly text: string }[] {
  return [['attrib/authentication', authentication] as const, ...FIXED].map(([name, text]) => {
    return { step: STEP, path: `${paths.tpg}/${name}`, text };
  });
}

/** Makes target and portal group, disabled, and sets what differs; then LUN 0. */
export async function portalGroupChanges(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundTarget | undefined,
  authentication: '0' | '1',
  backstorePath: string,
): Promise<Mutation[]> {
  const wanted = groupSettings(paths, authentication);
  const group =
    found?.hasPortalGroup === true
      ? await differences(fs, wanted)
      : [
          makeFolder('target-make', paths.iqn),
          makeFolder('target-tpg-make', paths.tpg),
          ...wanted.map(({ step, path, text }) => writeIfPresent(step, path, text)),
        ];
  return [...group, ...lunChanges(paths, found, backstorePath)];
}

/** A link elsewhere has been dealt with before. */
function lunChanges(paths: TargetPaths, found: FoundTarget | undefined, backstorePath: string): Mutation[] {
  const lun = found?.luns.find((one) => one.name === 'lun_0');
  if (lun !== undefined && lun.links.length > 0) return [];
  return [
    makeFolder('target-lun-make', paths.lun),
    makeLink('target-lun-link', backstorePath, `${paths.lun}/${LUN_LINK}`),
  ];
}

/** Every LUN of the target, ACLs gone before. Waits in the kernel for commands in flight. */
export function lunRemoval(paths: TargetPaths, found: FoundTarget): Mutation[] {
  return found.luns.flatMap((lun) => {
    const path = `${paths.luns}/${lun.name}`;
    const links = lun.links.map((link) => removeLink('target-lun-unlink', `${path}/${link.name}`));
    return [...links, removeFolder('target-lun-remove', path)];
  });
}

export function portalGroupRemoval(paths: TargetPaths): Mutation[] {
  return [removeFolder('target-tpg-remove', paths.tpg), removeFolder('target-remove', paths.iqn)];
}
