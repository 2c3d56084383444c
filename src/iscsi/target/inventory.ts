/** Reads what LIO has: a target with its ACLs, sessions and portals, and the backstores. Nothing here changes anything. */
import type { ConfigFs } from './configfs.ts';
import { HBA_NAME, isVolumeId, type TargetLayout, type TargetPaths } from './layout.ts';

/** Entries of a LUN's and a mapped LUN's folder that the kernel makes; what else is there is a link of ours. */
const LUN_ENTRIES = /^(alua_tg_pt_.*|statistics|write_protect)$/;
const NO_SESSION = 'No active iSCSI Session';

export interface FoundAcl {
  readonly initiatorIqn: string;
  readonly hasSession: boolean;
  /** Folders `lun_N` with the names of the links in them. */
  readonly luns: readonly FoundLun[];
}

export interface FoundLun {
  readonly name: string;
  readonly links: readonly FoundLink[];
}

export interface FoundLink {
  readonly name: string;
  /** The last two parts of where it leads, e.g. "iblock_3/volume-…" or "lun/lun_0". */
  readonly leadsTo: string;
}

export interface FoundTarget {
  /** False when only the IQN's folder is there. */
  readonly hasPortalGroup: boolean;
  readonly enabled: boolean;
  readonly portals: readonly string[];
  readonly luns: readonly FoundLun[];
  readonly acls: readonly FoundAcl[];
  /** Initiators that came in without an ACL (generate_node_acls). */
  readonly dynamicInitiators: readonly string[];
}

export interface FoundBackstore {
  readonly volumeId: string;
  readonly hba: string;
  readonly path: string;
  readonly enabled: boolean;
  /** As given to udev_path; undefined before. */
  readonly devicePath: string | undefined;
  /** "major:minor" of the device that is open; undefined before `enable`. */
  readonly deviceNumber: string | undefined;
  readonly serial: string;
}

/** undefined when there is no such target. */
export async function readTarget(fs: ConfigFs, paths: TargetPaths): Promise<FoundTarget | undefined> {
  const enabled = await fs.readIfPresent(paths.enable);
  if (enabled === undefined) {
    if (!(await fs.exists(paths.iqn))) return undefined;
    return { hasPortalGroup: false, enabled: false, portals: [], luns: [], acls: [], dynamicInitiators: [] };
  }
  const [portals, luns, acls, dynamic] = await Promise.all([
    fs.namesIfPresent(paths.portals),
    readLuns(fs, `${paths.tpg}/lun`),
    readAcls(fs, paths),
    fs.readIfPresent(`${paths.tpg}/dynamic_sessions`),
  ]);
  // The kernel ends each name with a NUL byte (lio_target_tpg… dynamic_sessions_show).
  const dynamicInitiators = (dynamic ?? '').split(/[\0\n]+/).filter((name) => name !== '');
  return { hasPortalGroup: true, enabled: enabled === '1', portals, luns, acls, dynamicInitiators };
}

async function readAcls(fs: ConfigFs, paths: TargetPaths): Promise<FoundAcl[]> {
  const initiators = await fs.namesIfPresent(paths.acls);
  return await Promise.all(
    initiators.map(async (initiatorIqn) => {
      const acl = paths.acl(initiatorIqn);
      const [hasSession, luns] = await Promise.all([aclHasSession(fs, acl), readLuns(fs, acl)]);
      return { initiatorIqn, hasSession, luns };
    }),
  );
}

/** Also true for a session whose connection is lost and whose time to retain has not passed. False when the ACL is gone. */
export async function aclHasSession(fs: ConfigFs, acl: string): Promise<boolean> {
  const info = await fs.readIfPresent(`${acl}/info`);
  return info !== undefined && !info.startsWith(NO_SESSION);
}

async function readLuns(fs: ConfigFs, folder: string): Promise<FoundLun[]> {
  const names = (await fs.namesIfPresent(folder)).filter((name) => /^lun_[0-9]+$/.test(name));
  return await Promise.all(
    names.map(async (name) => {
      const entries = (await fs.namesIfPresent(`${folder}/${name}`)).filter((entry) => !LUN_ENTRIES.test(entry));
      const links = await Promise.all(
        entries.map(async (entry) => {
          const target = await fs.linkTarget(`${folder}/${name}/${entry}`);
          return target === undefined ? [] : [{ name: entry, leadsTo: target.split('/').slice(-2).join('/') }];
        }),
      );
      return { name, links: links.flat() };
    }),
  );
}

/** undefined when it has gone meanwhile. */
export async function readBackstore(
  fs: ConfigFs,
  layout: TargetLayout,
  hba: string,
  volumeId: string,
): Promise<FoundBackstore | undefined> {
  const path = `${layout.core}/${hba}/${volumeId}`;
  const [enabled, info, serial] = await Promise.all([
    fs.readIfPresent(`${path}/enable`),
    fs.readIfPresent(`${path}/info`),
    fs.readIfPresent(`${path}/wwn/vpd_unit_serial`),
  ]);
  if (enabled === undefined || info === undefined || serial === undefined) return undefined;
  const [, major = '0', minor = '0'] = /Major: ([0-9]+) Minor: ([0-9]+)/.exec(info) ?? [];
  return {
    volumeId,
    hba,
    path,
    enabled: enabled === '1',
    devicePath: /UDEV PATH: (\S+)/.exec(info)?.[1],
    deviceNumber: enabled === '1' ? `${major}:${minor}` : undefined,
    serial: serial.slice(serial.indexOf(': ') + 2),
  };
}

/** HBA folders of block backstores with the names of their devices. */
export async function readHbas(fs: ConfigFs, layout: TargetLayout): Promise<Map<string, string[]>> {
  const hbas = (await fs.namesIfPresent(layout.core)).filter((name) => HBA_NAME.test(name));
  return new Map(await Promise.all(hbas.map(async (hba) => [hba, await readHba(fs, layout, hba)] as const)));
}

export async function readHba(fs: ConfigFs, layout: TargetLayout, hba: string): Promise<string[]> {
  return (await fs.namesIfPresent(`${layout.core}/${hba}`)).filter(
    (name) => name !== 'hba_info' && name !== 'hba_mode',
  );
}

export function volumesOf(hbas: ReadonlyMap<string, readonly string[]>): { hba: string; volumeId: string }[] {
  return [...hbas].flatMap(([hba, names]) => names.filter(isVolumeId).map((volumeId) => ({ hba, volumeId })));
}
