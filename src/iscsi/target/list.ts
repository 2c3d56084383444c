/** Everything of ours that LIO has, also what is left of half-built or half-removed targets. */
import { hasMappedLun, withCredentials } from './acl.ts';
import type { ConfigFs } from './configfs.ts';
import { attribute, folder } from './configfs-calls.ts';
import { type FoundTarget, readBackstore, readHbaNames, readHbas, readTarget } from './inventory.ts';
import { HBA_NAME, isVolumeId, type TargetLayout, type TargetPaths } from './layout.ts';
import type { TargetState } from './types.ts';

/** So that the calls of one target do not wait behind those of a thousand others until their deadline. */
const AT_ONCE = 16;

export async function listTargets(fs: ConfigFs, layout: TargetLayout): Promise<TargetState[]> {
  const hbas = await readHbaNames(fs, layout);
  const contents = await readHbas(fs, layout, hbas);
  const backstores = hbas.flatMap((hba, index) =>
    (contents[index] ?? []).filter(isVolumeId).map((volumeId) => ({ hba, volumeId })),
  );
  const devices = new Map<string, string | undefined>();
  await forEach(backstores, async ({ hba, volumeId }) => {
    const backstore = await readBackstore(fs, layout.backstore(hba, volumeId));
    if (backstore !== undefined) devices.set(volumeId, backstore.devicePath);
  });
  const states: TargetState[] = [];
  const [iqns] = await fs.ask(folder(layout.iscsi));
  await forEach(
    iqns.filter((name) => layout.isOurPrefix(name) && !layout.isPortalHolder(name)),
    async (targetIqn) => {
      const paths = layout.target(targetIqn);
      const found = await readTarget(fs, paths);
      if (found === undefined) return;
      const volumeId = layout.volumeIdOf(targetIqn);
      const initiators = found.acls.filter((acl) => acl.hasSession).map((acl) => acl.initiatorIqn);
      states.push({
        volumeId,
        targetIqn,
        enabled: found.enabled,
        portals: found.portals,
        aclInitiators: found.acls.map((acl) => acl.initiatorIqn),
        admittedInitiators: await admitted(fs, paths, found),
        backstoreDevice: volumeId === undefined ? undefined : devices.get(volumeId),
        sessions: [...initiators, ...found.dynamicInitiators].map((initiatorIqn) => ({ initiatorIqn })),
      });
    },
  );
  const withTarget = new Set(states.map((state) => state.volumeId));
  for (const [volumeId, backstoreDevice] of devices) {
    if (withTarget.has(volumeId)) continue;
    const nothing = { enabled: false, portals: [], aclInitiators: [], admittedInitiators: [], sessions: [] };
    states.push({ volumeId, targetIqn: layout.iqnOf(volumeId), backstoreDevice, ...nothing });
  }
  return states.sort((a, b) => (a.targetIqn < b.targetIqn ? -1 : 1));
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
