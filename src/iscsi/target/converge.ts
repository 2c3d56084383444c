/**
 * One target from whatever is there to what it should be. The order to build is: backstore (serial, enable, attributes),
 * portal group disabled, LUN, for each initiator mapped LUN before credentials, portals, enable. A crash leaves a prefix
 * of it, in which nobody can log in (disabled) or only who has been completed; the next run goes on from there.
 * Each thing is compared and only differences are written: a target that is right sees nothing but reads.
 */
import { log } from '../../system/context.ts';
import { step } from '../../system/step.ts';
import { convergeAcl, hasCredentials, hasMappedLun } from './acl.ts';
import { backstoreProblem, completeBackstore, exportedDevice, removeBackstore } from './backstore.ts';
import type { ConfigFs } from './configfs.ts';
import { TargetError } from './errors.ts';
import { disableTarget, revokeAcl } from './fence.ts';
import { HbaIndex } from './hba-index.ts';
import { type FoundBackstore, type FoundTarget, readBackstore, readTarget } from './inventory.ts';
import type { TargetLayout, TargetPaths } from './layout.ts';
import { convergeLun, convergePortalGroup, removeLuns, removePortalGroup } from './portal-group.ts';
import type { Portals } from './portals.ts';
import type { TargetSpec } from './types.ts';

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
    let found = await readTarget(fs, paths);
    if (found !== undefined) found = await this.#fenceUnexpected(fs, paths, found, spec);
    const deviceNumber = await exportedDevice(fs, spec.devicePath);
    const present = await this.#findBackstore(fs, spec.volumeId);
    const problem = targetProblem(spec, deviceNumber, found, present);
    if (problem !== undefined) {
      await this.#tearDownWrong(fs, spec, problem, found);
      found = undefined;
    }
    const hba = problem === undefined && present !== undefined ? present.hba : undefined;
    const usedHba = hba ?? (await this.#hbas.allocate(fs, spec.volumeId));
    const backstore = await completeBackstore(fs, this.#layout, usedHba, spec, deviceNumber);
    const authentication = await wantedAuthentication(fs, paths, spec);
    await convergePortalGroup(fs, paths, found, authentication);
    await convergeLun(fs, paths, found, backstore);
    const open = found?.enabled === true && authentication === '0';
    for (const acl of spec.acls) {
      const existing = found?.acls.find((one) => one.initiatorIqn === acl.initiatorIqn);
      await convergeAcl(fs, paths, existing, acl, open);
    }
    if (withPortals) await this.#portals.converge(fs, paths, found?.portals ?? []);
    if (found?.enabled !== true) await step('target-enable', () => fs.write(paths.enable, '1'));
  }

  /** Absent parts: nothing to do. Portals last: their removal is known to hang, and must not keep the device. */
  async remove(fs: ConfigFs, volumeId: string, targetIqn: string): Promise<void> {
    const paths = this.#layout.target(targetIqn);
    await disableTarget(fs, paths);
    const found = await readTarget(fs, paths);
    if (found !== undefined) await removeLuns(fs, paths, found);
    await removeBackstore(fs, this.#hbas, volumeId);
    if (found === undefined) return;
    await this.#portals.removeAll(fs, paths);
    await removePortalGroup(fs, paths);
  }

  /** ACLs that are not wanted, or can log in without a LUN, and sessions that came in without an ACL. */
  async #fenceUnexpected(
    fs: ConfigFs,
    paths: TargetPaths,
    found: FoundTarget,
    spec: TargetSpec,
  ): Promise<FoundTarget | undefined> {
    if (found.dynamicInitiators.length > 0) {
      log().warn({ target: spec.targetIqn, initiators: found.dynamicInitiators }, 'sessions without an ACL are ended');
      await step('target-tpg-demo-mode-off', () => fs.write(`${paths.tpg}/attrib/generate_node_acls`, '0'));
      await disableTarget(fs, paths);
      return await readTarget(fs, paths);
    }
    const wanted = new Set(spec.acls.map((acl) => acl.initiatorIqn));
    const surplus = found.acls.filter((acl) => !wanted.has(acl.initiatorIqn) || !hasMappedLun(acl));
    if (surplus.length === 0) return found;
    for (const acl of surplus) {
      log().warn({ target: spec.targetIqn, initiator: acl.initiatorIqn }, 'an unexpected or half-built ACL is revoked');
      await revokeAcl(fs, paths, acl);
    }
    return await readTarget(fs, paths);
  }

  async #findBackstore(fs: ConfigFs, volumeId: string): Promise<FoundBackstore | undefined> {
    const hba = await this.#hbas.find(fs, volumeId);
    return hba === undefined ? undefined : await readBackstore(fs, this.#layout, hba, volumeId);
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
  const secured = await Promise.all(kept.map(({ initiatorIqn }) => hasCredentials(fs, paths.acl(initiatorIqn))));
  return secured.includes(true) || kept.length === spec.acls.length ? '1' : '0';
}
