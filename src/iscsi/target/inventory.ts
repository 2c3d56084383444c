/** Reads what LIO has: a target with its ACLs, sessions and portals, and the backstores. Nothing here changes anything. */
import type { ConfigFs } from './configfs.ts';
import { attribute, folder, folderIfPresent, linkTarget } from './configfs-calls.ts';
import { HBA_NAME, type TargetLayout, type TargetPaths } from './layout.ts';

/** Entries of a LUN's and a mapped LUN's folder that the kernel makes; what else is there is a link of ours. */
const LUN_ENTRIES = /^(alua_tg_pt_.*|statistics|write_protect)$/;
const LUN_NAME = /^lun_[0-9]+$/;
const NO_SESSION = 'No active iSCSI Session';

export interface FoundAcl {
  readonly initiatorIqn: string;
  readonly hasSession: boolean;
  readonly luns: readonly FoundLun[];
}

export interface FoundLun {
  /** `lun_N`. */
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

export interface BackstorePlace {
  readonly volumeId: string;
  readonly hba: string;
  readonly path: string;
}

export interface FoundBackstore extends BackstorePlace {
  readonly enabled: boolean;
  /** As given to udev_path; undefined before. */
  readonly devicePath: string | undefined;
  /** "major:minor" of the device that is open; undefined before `enable`. */
  readonly deviceNumber: string | undefined;
  readonly serial: string;
}

/** undefined when there is no such target. */
export async function readTarget(fs: ConfigFs, paths: TargetPaths): Promise<FoundTarget | undefined> {
  const [iqn, enabled, portals, lunNames, initiators, dynamic] = await fs.ask(
    folderIfPresent(paths.iqn),
    attribute(paths.enable),
    folder(paths.portals),
    folder(paths.luns),
    folder(paths.acls),
    attribute(`${paths.tpg}/dynamic_sessions`),
  );
  if (iqn === undefined) return undefined;
  const [luns, acls] = await Promise.all([
    readLuns(
      fs,
      lunNames.filter((name) => LUN_NAME.test(name)).map((name) => ({ folder: paths.luns, name })),
    ),
    readAcls(fs, paths, initiators),
  ]);
  // Names, each ended by a newline and a NUL byte (target_show_dynamic_sessions).
  const dynamicInitiators = (dynamic ?? '').split(/[\0\n]+/).filter((name) => name !== '');
  return { hasPortalGroup: enabled !== undefined, enabled: enabled === '1', portals, luns, acls, dynamicInitiators };
}

/** One ACL without a look at the others; undefined when there is none. */
export async function readAcl(fs: ConfigFs, paths: TargetPaths, initiatorIqn: string): Promise<FoundAcl | undefined> {
  const [entries] = await fs.ask(folderIfPresent(paths.acl(initiatorIqn)));
  return entries === undefined ? undefined : (await readAcls(fs, paths, [initiatorIqn]))[0];
}

async function readAcls(fs: ConfigFs, paths: TargetPaths, initiators: readonly string[]): Promise<FoundAcl[]> {
  const folders = initiators.map((initiator) => paths.acl(initiator));
  const [entries, infos] = await Promise.all([
    fs.askAll(folders.map((acl) => folder(acl))),
    fs.askAll(folders.map((acl) => attribute(`${acl}/info`))),
  ]);
  const places = folders.flatMap((acl, index) =>
    (entries[index] ?? []).filter((name) => LUN_NAME.test(name)).map((name) => ({ folder: acl, name })),
  );
  const luns = await readLuns(fs, places);
  return initiators.map((initiatorIqn, index) => ({
    initiatorIqn,
    hasSession: showsSession(infos[index]),
    luns: luns.filter((_lun, place) => places[place]?.folder === folders[index]),
  }));
}

async function readLuns(
  fs: ConfigFs,
  places: readonly { readonly folder: string; readonly name: string }[],
): Promise<FoundLun[]> {
  const entries = await fs.askAll(places.map((place) => folder(`${place.folder}/${place.name}`)));
  const candidates = places.map((_place, index) => (entries[index] ?? []).filter((name) => !LUN_ENTRIES.test(name)));
  const targets = await fs.askAll(
    places.flatMap((place, index) =>
      (candidates[index] ?? []).map((name) => linkTarget(`${place.folder}/${place.name}/${name}`)),
    ),
  );
  return places.map(({ name }, index) => ({
    name,
    links: (candidates[index] ?? []).flatMap((link) => {
      const target = targets.shift();
      return target === undefined ? [] : [{ name: link, leadsTo: target.split('/').slice(-2).join('/') }];
    }),
  }));
}

/** Also true for a session whose connection is lost and whose time to retain has not passed. False when the ACL is gone. */
export async function aclHasSession(fs: ConfigFs, acl: string): Promise<boolean> {
  const [info] = await fs.ask(attribute(`${acl}/info`));
  return showsSession(info);
}

function showsSession(info: string | undefined): boolean {
  return info !== undefined && !info.startsWith(NO_SESSION);
}

export function backstoreQueries({ path }: BackstorePlace) {
  return [attribute(`${path}/enable`), attribute(`${path}/info`), attribute(`${path}/wwn/vpd_unit_serial`)] as const;
}

/** undefined when it has gone meanwhile. */
export async function readBackstore(fs: ConfigFs, place: BackstorePlace): Promise<FoundBackstore | undefined> {
  return toBackstore(place, await fs.ask(...backstoreQueries(place)));
}

export function toBackstore(
  place: BackstorePlace,
  [enable, info, serial]: readonly (string | undefined)[],
): FoundBackstore | undefined {
  if (enable === undefined || info === undefined || serial === undefined) return undefined;
  const enabled = enable === '1';
  const [, major = '0', minor = '0'] = /Major: ([0-9]+) Minor: ([0-9]+)/.exec(info) ?? [];
  return {
    ...place,
    enabled,
    devicePath: /UDEV PATH: (\S+)/.exec(info)?.[1],
    deviceNumber: enabled ? `${major}:${minor}` : undefined,
    // "T10 VPD Unit Serial Number: …"
    serial: serial.slice(serial.indexOf(': ') + 2),
  };
}

/** The device or file that a backstore of any kind (`<HBA>/<name>`) is on, '' when it has none; undefined when it has gone. */
export async function readBacking(fs: ConfigFs, layout: TargetLayout, place: string): Promise<string | undefined> {
  const [info] = await fs.ask(attribute(`${layout.core}/${place}/info`));
  return info === undefined ? undefined : (/(?:UDEV PATH|File): (\S+)/.exec(info)?.[1] ?? '');
}

/** HBAs of block backstores. */
export async function readHbaNames(fs: ConfigFs, layout: TargetLayout): Promise<string[]> {
  const [names] = await fs.ask(folder(layout.core));
  return names.filter((name) => HBA_NAME.test(name));
}

/** The devices of each HBA, in the same order. */
export async function readHbas(fs: ConfigFs, layout: TargetLayout, hbas: readonly string[]): Promise<string[][]> {
  const contents = await fs.askAll(hbas.map((hba) => folder(`${layout.core}/${hba}`)));
  return contents.map((names) => names.filter((name) => name !== 'hba_info' && name !== 'hba_mode'));
}
