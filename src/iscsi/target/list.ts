/** Everything of ours that LIO has, also what is left of half-built or half-removed targets. */
import { hasMappedLun, withCredentials } from './acl.ts';
import type { ConfigFs } from './configfs.ts';
import { attribute, folder } from './configfs-calls.ts';
import { isOurs } from './hba-index.ts';
import { type FoundTarget, readBacking, readHbaNames, readHbas, readTarget } from './inventory.ts';
import { HBA_NAME, isVolumeId, type TargetLayout, type TargetPaths } from './layout.ts';
import type { TargetState } from './types.ts';

/** So that the calls of one target do not wait behind those of a thousand others until their deadline. */
const AT_ONCE = 16;

export async function listTargets(fs: ConfigFs, layout: TargetLayout): Promise<TargetState[]> {
  const hbas = await readHbaNames(fs, layout);
  const contents = await readHbas(fs, layout, hbas);
  const backstores = hbas.flatMap((hba, index) =>
    (contents[index] ?? [])
      .filter((name) => isVolumeId(name) || layout.isOurPrefix(name))
      .map((name) => ({ name, place: `${hba}/${name}` })),
  );
  const known = new Map<string, string | undefined>();
  await forEach(backstores, async ({ place }) => void known.set(place, await readBacking(fs, layout, place)));
  const states: TargetState[] = [];
  const [iqns] = await fs.ask(folder(layout.iscsi));
  await forEach(
    iqns.filter((name) => layout.isOurPrefix(name) && !layout.isPortalHolder(name)),
    async (targetIqn) => {
      const found = await readTarget(fs, layout.target(targetIqn));
      if (found === undefined) return;
      const volumeId = layout.volumeIdOf(targetIqn);
      const named = backstores.filter(({ name }) => name === volumeId || name === targetIqn);
      states.push(
        await targetState(fs, layout, {
          targetIqn,
          found,
          named: named.map(({ place }) => place),
          known,
        }),
      );
    },
  );
  const withTarget = new Set(states.map((state) => state.volumeId));
  for (const { name: volumeId, place } of backstores) {
    const backing = known.get(place);
    if (backing === undefined || !isVolumeId(volumeId) || withTarget.has(volumeId)) continue;
    states.push(bareBackstore(layout.iqnOf(volumeId), place, backing === '' ? undefined : backing));
  }
  return states.sort((a, b) => (a.targetIqn < b.targetIqn ? -1 : 1));
}

/** A backstore, "<HBA>/<volume id>", that has no target. */
export function bareBackstore(targetIqn: string, place: string, backstoreDevice: string | undefined): TargetState {
  const volumeId = place.slice(place.indexOf('/') + 1);
  const backings = backstoreDevice === undefined ? [] : [backstoreDevice];
  const nothing = { enabled: false, portals: [], aclInitiators: [], admittedInitiators: [], sessions: [] };
  const hasOwnBackstore = isOwnBackstore(place, volumeId);
  return { volumeId, targetIqn, backstoreDevice, backings, hasOwnBackstore, ...nothing };
}

interface SeenTarget {
  readonly targetIqn: string;
  readonly found: FoundTarget;
  /** "<HBA>/<backstore>" of block backstores with the volume's id or the target's name for a name. */
  readonly named: readonly string[];
  /** Backings that have been read already, by the same key. */
  readonly known?: ReadonlyMap<string, string | undefined>;
}

export async function targetState(fs: ConfigFs, layout: TargetLayout, seen: SeenTarget): Promise<TargetState> {
  const { targetIqn, found, named } = seen;
  const volumeId = layout.volumeIdOf(targetIqn);
  const initiators = found.acls.filter((acl) => acl.hasSession).map((acl) => acl.initiatorIqn);
  const own = named.find((place) => place.endsWith(`/${volumeId}`));
  const backing = own === undefined ? '' : (seen.known?.get(own) ?? (await readBacking(fs, layout, own)) ?? '');
  return {
    volumeId,
    targetIqn,
    enabled: found.enabled,
    portals: found.portals,
    aclInitiators: found.acls.map((acl) => acl.initiatorIqn),
    admittedInitiators: await admitted(fs, layout.target(targetIqn), found),
    backstoreDevice: backing === '' ? undefined : backing,
    ...(await backingsOf(fs, layout, { ...seen, volumeId, luns: found.luns })),
    sessions: [...initiators, ...found.dynamicInitiators].map((initiatorIqn) => ({ initiatorIqn })),
  };
}

/** See TargetState. What LUNs lead to is stronger than a name. */
export async function backingsOf(
  fs: ConfigFs,
  layout: TargetLayout,
  {
    volumeId,
    luns,
    named,
    known,
  }: Pick<FoundTarget, 'luns'> & Pick<SeenTarget, 'named' | 'known'> & { readonly volumeId: string | undefined },
): Promise<Pick<TargetState, 'backings' | 'hasOwnBackstore'>> {
  const linked = new Set(luns.flatMap(({ links }) => links.map(({ leadsTo }) => leadsTo)));
  const places = linked.size > 0 ? [...linked] : named;
  const backings: string[] = [];
  for (const place of places) {
    const backing = known?.get(place) ?? (await readBacking(fs, layout, place)) ?? '';
    // What has no device, and no LUN leads to it, is somebody's beginning: no evidence.
    if (backing !== '' || linked.has(place)) backings.push(backing === '' ? place : backing);
  }
  return { backings, hasOwnBackstore: places.some((place) => isOwnBackstore(place, volumeId)) };
}

function isOwnBackstore(place: string, volumeId: string | undefined): boolean {
  const [hba = '', name] = place.split('/');
  return name === volumeId && isOurs(hba);
}

/** See Targets.listForeign. */
export async function listForeignTargets(
  fs: ConfigFs,
  layout: TargetLayout,
): Promise<{ targetIqn: string; volumeId: string }[]> {
  const [iqns] = await fs.ask(folder(layout.iscsi));
  const found: { targetIqn: string; volumeId: string }[] = [];
  await forEach(
    // The folder holds attributes of the fabric too (cpus_allowed_list): a target's name begins as RFC 7143 section 4.2.7 says.
    iqns.filter((name) => /^(iqn|eui|naa)\./.test(name) && !layout.isOurPrefix(name)),
    async (targetIqn) => {
      const luns = (await readTarget(fs, layout.target(targetIqn)))?.luns ?? [];
      // "iblock_N/volume-…": other tools name their backstores otherwise.
      const backstores = luns.flatMap(({ links }) => links.map(({ leadsTo }) => leadsTo.split('/')));
      for (const [hba = '', volumeId = ''] of backstores)
        if (HBA_NAME.test(hba) && isVolumeId(volumeId)) found.push({ targetIqn, volumeId });
    },
  );
  return found.sort((a, b) => (a.targetIqn < b.targetIqn ? -1 : 1));
}

async function admitted(fs: ConfigFs, paths: TargetPaths, { acls }: FoundTarget): Promise<string[]> {
  const [[authentication], secured] = await Promise.all([
    fs.ask(attribute(`${paths.tpg}/attrib/authentication`)),
    withCredentials(
      fs,
      acls.map(({ initiatorIqn }) => paths.acl(initiatorIqn)),
    ),
  ]);
  return acls
    .filter((acl, index) => hasMappedLun(acl) && (authentication === '0' || secured[index] === true))
    .map(({ initiatorIqn }) => initiatorIqn);
}

async function forEach<T>(items: readonly T[], action: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await action(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
