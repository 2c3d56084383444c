/**
 * One target from whatever is there to what it should be. The order to build is: backstore (serial, enable, attributes),
 * portal group disabled, LUN, for each initiator mapped LUN before credentials, portals, enable. A crash leaves a prefix
 * of it, in which nobody can log in (disabled) or only who has been completed; the next run goes on from there.
 * Each thing is compared and only differences are written: a target that is right sees nothing but reads.
 * The name alone makes no target ours, since Cinder's are called the same: what is backed by another device is refused.
 */
import { log } from '../../system/context.ts';
import { aclChanges, cutSessions, hasMappedLun, withCredentials } from './acl.ts';
import {
  attributeChanges,
  backstoreProblem,
  backstoreSetup,
  buildBackstore,
  deviceNumberOf,
  warnWithoutDiscard,
} from './backstore.ts';
import type { ConfigFs } from './configfs.ts';
import { node, write } from './configfs-calls.ts';
import { TargetError } from './errors.ts';
import { disableTarget, revokeAcl } from './fence.ts';
import { HbaIndex } from './hba-index.ts';
import {
  aclHasSession,
  type BackstorePlace,
  type FoundBackstore,
  type FoundTarget,
  readBackstore,
  readTarget,
} from './inventory.ts';
import type { TargetLayout, TargetPaths } from './layout.ts';
import { backingsOf, bareBackstore, targetState } from './list.ts';
import { lunRemoval, portalGroupChanges, portalGroupRemoval } from './portal-group.ts';
import type { Portals } from './portals.ts';
import type { TargetSpec, TargetState } from './types.ts';

export class TargetBuilder {
  readonly #layout: TargetLayout;
  readonly #portals: Portals;
  readonly #hbas: HbaIndex;

  constructor(layout: TargetLayout, portals: Portals) {
    this.#layout = layout;
    this.#portals = portals;
    this.#hbas = new HbaIndex(layout);
  }

  async converge(fs: ConfigFs, spec: TargetSpec, withPortals: boolean): Promise<void> {
    const paths = this.#layout.target(spec.targetIqn);
    const [[device], before, present] = await Promise.all([
      fs.ask(node(spec.devicePath)),
      readTarget(fs, paths),
      this.#findBackstore(fs, spec.volumeId),
    ]);
    const deviceNumber = deviceNumberOf(device, spec.devicePath);
    await this.#refuseForeign(fs, spec, before, present);
    let found = before === undefined ? undefined : await fenceUnexpected(fs, paths, before, spec);
    const problem = targetProblem(spec, deviceNumber, found, present);
    if (problem !== undefined) {
      await this.#tearDownWrong(fs, spec, problem, found);
      found = undefined;
    }
    const usable = problem === undefined ? present : undefined;
    const backstore = usable?.enabled === true ? usable : await this.#build(fs, spec, deviceNumber, usable);
    await this.#complete(fs, paths, spec, found, backstore.path, withPortals);
  }

  async find(fs: ConfigFs, volumeId: string, targetIqn: string): Promise<TargetState | undefined> {
    const [found, own] = await Promise.all([
      readTarget(fs, this.#layout.target(targetIqn)),
      this.#findBackstore(fs, volumeId),
    ]);
    if (found === undefined)
      return own === undefined ? undefined : bareBackstore(targetIqn, placeOf(own), own.devicePath);
    return await targetState(fs, this.#layout, { targetIqn, found, named: await this.#named(fs, targetIqn, own) });
  }

  /** @throws TargetError foreign when something is there that is backed by another device than ours. */
  async #refuseForeign(
    fs: ConfigFs,
    spec: TargetSpec,
    found: FoundTarget | undefined,
    present: FoundBackstore | undefined,
  ): Promise<void> {
    if (found === undefined && present === undefined) return;
    const luns = found?.luns ?? [];
    const right = present?.devicePath === spec.devicePath ? placeOf(present) : undefined;
    if (luns.some(({ links }) => links.some(({ leadsTo }) => leadsTo === right))) return;
    const named = await this.#named(fs, spec.targetIqn, present);
    const { volumeId } = spec;
    const { backings, hasOwnBackstore } = await backingsOf(fs, this.#layout, { volumeId, luns, named });
    if (backings.length === 0 || hasOwnBackstore || backings.includes(spec.devicePath)) return;
    const what = found === undefined ? `backstore ${spec.volumeId}` : `target ${spec.targetIqn}`;
    throw new TargetError(
      'foreign',
      `${what} is there already, backed by ${backings.join(', ')} instead of ${spec.devicePath}`,
    );
  }

  /** As SeenTarget.named. Cinder's tool (cinder-rtstool) calls a backstore as its target. */
  async #named(fs: ConfigFs, targetIqn: string, own: FoundBackstore | undefined): Promise<string[]> {
    const others = await this.#hbas.find(fs, targetIqn);
    return [...(own === undefined ? [] : [placeOf(own)]), ...(others === undefined ? [] : [`${others}/${targetIqn}`])];
  }

  /** Absent parts: nothing to do. Portals last: their removal is known to hang, and must not keep the device. */
  async remove(fs: ConfigFs, volumeId: string, targetIqn: string): Promise<void> {
    const paths = this.#layout.target(targetIqn);
    const found = await disableTarget(fs, paths);
    if (found !== undefined) await fs.apply(lunRemoval(paths, found));
    await this.#hbas.release(fs, volumeId);
    if (found !== undefined) await this.#portals.remove(fs, paths, found.portals, portalGroupRemoval(paths));
  }

  async #findBackstore(fs: ConfigFs, volumeId: string): Promise<FoundBackstore | undefined> {
    const hba = await this.#hbas.find(fs, volumeId);
    if (hba === undefined) return undefined;
    const found = await readBackstore(fs, this.#layout.backstore(hba, volumeId));
    if (found !== undefined) return found;
    this.#hbas.forget();
    const other = await this.#hbas.find(fs, volumeId);
    return other === undefined ? undefined : await readBackstore(fs, this.#layout.backstore(other, volumeId));
  }

  /** Makes the backstore, or goes on with one that is not enabled yet. */
  async #build(
    fs: ConfigFs,
    spec: TargetSpec,
    deviceNumber: string,
    begun: BackstorePlace | undefined,
  ): Promise<BackstorePlace> {
    if (begun !== undefined) {
      await buildBackstore(fs, begun, backstoreSetup(begun.path, spec), spec, deviceNumber);
      return begun;
    }
    const reservation = this.#hbas.reserve(spec.volumeId);
    let made = false;
    try {
      const place = this.#layout.backstore(reservation.hba, spec.volumeId);
      const mutations = [...reservation.mutations, ...backstoreSetup(place.path, spec)];
      await buildBackstore(fs, place, mutations, spec, deviceNumber);
      made = true;
      return place;
    } finally {
      reservation.settle(made);
    }
  }

  /** Everything after the backstore, in one go. */
  async #complete(
    fs: ConfigFs,
    paths: TargetPaths,
    spec: TargetSpec,
    found: FoundTarget | undefined,
    backstorePath: string,
    withPortals: boolean,
  ): Promise<void> {
    const authentication = await wantedAuthentication(fs, paths, spec);
    const existing = new Map(found?.acls.map((acl) => [acl.initiatorIqn, acl]));
    const [attributes, group, ...acls] = await Promise.all([
      attributeChanges(fs, backstorePath, spec),
      portalGroupChanges(fs, paths, found, authentication, backstorePath),
      ...spec.acls.map((acl) => aclChanges(fs, paths, existing.get(acl.initiatorIqn), acl)),
    ]);
    const before = [...attributes, ...group, ...acls.flat()];
    const after = found?.enabled === true ? [] : [write('target-enable', paths.enable, '1')];
    const codes = withPortals
      ? await this.#portals.converge(fs, paths, found?.portals ?? [], { before, after })
      : await fs.apply([...before, ...after]);
    warnWithoutDiscard(spec, codes);
    if (found?.enabled !== true || authentication === '1') return;
    for (const { initiatorIqn } of spec.acls.filter((acl) => !existing.has(acl.initiatorIqn))) {
      // Nobody asked it for credentials: it may have come in before its LUN was there. Its next session finds it.
      const acl = paths.acl(initiatorIqn);
      if (await aclHasSession(fs, acl)) await cutSessions(fs, acl);
    }
  }

  async #tearDownWrong(fs: ConfigFs, spec: TargetSpec, problem: string, found: FoundTarget | undefined): Promise<void> {
    const initiators = (found?.acls ?? []).filter((acl) => acl.hasSession).map((acl) => acl.initiatorIqn);
    if (initiators.length > 0) {
      throw new TargetError(
        'conflict',
        `target ${spec.targetIqn} is wrong and in use: ${problem}; ${initiators.join(', ')} must be cut off first`,
      );
    }
    log().warn({ target: spec.targetIqn, problem }, 'a wrong target that nobody uses is built anew');
    await this.remove(fs, spec.volumeId, spec.targetIqn);
  }
}

function placeOf({ hba, volumeId }: BackstorePlace): string {
  return `${hba}/${volumeId}`;
}

/** ACLs that are not wanted, or can log in without a LUN, and sessions that came in without an ACL. @returns what is left. */
async function fenceUnexpected(
  fs: ConfigFs,
  paths: TargetPaths,
  found: FoundTarget,
  spec: TargetSpec,
): Promise<FoundTarget | undefined> {
  if (found.dynamicInitiators.length > 0) {
    log().warn({ target: spec.targetIqn, initiators: found.dynamicInitiators }, 'sessions without an ACL are ended');
    await fs.apply([write('target-tpg-demo-mode-off', `${paths.tpg}/attrib/generate_node_acls`, '0')]);
    await disableTarget(fs, paths);
    return await readTarget(fs, paths);
  }
  const wanted = new Set(spec.acls.map((acl) => acl.initiatorIqn));
  const surplus = found.acls.filter((acl) => !wanted.has(acl.initiatorIqn) || !hasMappedLun(acl));
  for (const acl of surplus) {
    log().warn({ target: spec.targetIqn, initiator: acl.initiatorIqn }, 'an unexpected or half-built ACL is revoked');
    await revokeAcl(fs, paths, acl);
  }
  return surplus.length === 0 ? found : await readTarget(fs, paths);
}

/** Why what is there cannot be completed and has to go first, or undefined. */
function targetProblem(
  spec: TargetSpec,
  deviceNumber: string,
  found: FoundTarget | undefined,
  backstore: FoundBackstore | undefined,
): string | undefined {
  if (backstore === undefined) return found === undefined ? undefined : 'it has no backstore';
  const right = `lun_0 to ${backstore.hba}/${spec.volumeId}`;
  const links = (found?.luns ?? []).flatMap((lun) => lun.links.map((link) => `${lun.name} to ${link.leadsTo}`));
  const wrong = links.filter((link) => link !== right);
  if (wrong.length > 0) return `its LUNs lead elsewhere: ${wrong.join(', ')}`;
  return backstoreProblem(backstore, spec, deviceNumber);
}

/** Whether the portal group asks for credentials: unless no initiator has any. */
async function wantedAuthentication(fs: ConfigFs, paths: TargetPaths, spec: TargetSpec): Promise<'0' | '1'> {
  if (spec.acls.length === 0 || spec.acls.some(({ auth }) => auth.kind === 'chap')) return '1';
  const kept = spec.acls.filter(({ auth }) => auth.kind === 'keep');
  const secured = await withCredentials(
    fs,
    kept.map(({ initiatorIqn }) => paths.acl(initiatorIqn)),
  );
  return secured.includes(true) || kept.length === spec.acls.length ? '1' : '0';
}
