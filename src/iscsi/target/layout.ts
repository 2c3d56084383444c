/** Where things are in LIO's configfs tree, and which of them are ours. */
import { createHash } from 'node:crypto';
import { TargetError } from './errors.ts';

const VOLUME_ID = /^volume-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
export const PORTAL_HOLDER = 'portal-';
export const HBA_NAME = /^iblock_([0-9]+)$/;

export function isVolumeId(name: string): boolean {
  return VOLUME_ID.test(name);
}

/** Paths under `<configfs>/target`. An initiator or portal name is a folder name there: checked before it comes here. */
export class TargetLayout {
  readonly configfsRoot: string;
  readonly core: string;
  readonly iscsi: string;
  readonly #iqnPrefix: string;

  constructor(configfsRoot: string, iqnPrefix: string) {
    this.configfsRoot = configfsRoot;
    this.core = `${configfsRoot}/target/core`;
    this.iscsi = `${configfsRoot}/target/iscsi`;
    this.#iqnPrefix = iqnPrefix;
  }

  isOurPrefix(targetIqn: string): boolean {
    return targetIqn.startsWith(`${this.#iqnPrefix}:`);
  }

  /**
   * The target without LUNs that keeps the portals listening, and is the witness. It speaks for one volume group and not
   * for another of the same name, say on a storage host that has taken over the address: so its UUID is in the name.
   * With the longest prefix it has the 223 bytes that an iSCSI name may have (RFC 7143 section 4.2.7.1).
   */
  portalHolder(vgName: string, vgUuid: string): string {
    return `${this.#holdersOf(vgName)}${digest(vgUuid, 12)}`;
  }

  /** Also one for a volume group of that name that was here before. */
  isPortalHolderOf(vgName: string, targetIqn: string): boolean {
    return targetIqn.startsWith(this.#holdersOf(vgName));
  }

  #holdersOf(vgName: string): string {
    const words = vgName.toLowerCase().replaceAll(/[^a-z0-9-]/g, '-');
    return `${this.#iqnPrefix}:${PORTAL_HOLDER}${words.slice(0, 15)}.${digest(vgName, 8)}.`;
  }

  isPortalHolder(targetIqn: string): boolean {
    return targetIqn.startsWith(`${this.#iqnPrefix}:${PORTAL_HOLDER}`);
  }

  /** The volume that a target of ours serves; undefined when the name after the prefix is no volume id. */
  volumeIdOf(targetIqn: string): string | undefined {
    if (!this.isOurPrefix(targetIqn)) return undefined;
    const name = targetIqn.slice(this.#iqnPrefix.length + 1);
    return isVolumeId(name) ? name : undefined;
  }

  /** The IQN that goes with a backstore that has no target. */
  iqnOf(volumeId: string): string {
    return `${this.#iqnPrefix}:${volumeId}`;
  }

  /** @throws TargetError foreign. */
  assertOurs(targetIqn: string, volumeId?: string): string {
    const own = this.volumeIdOf(targetIqn);
    if (own === undefined || (volumeId !== undefined && own !== volumeId)) {
      throw new TargetError(
        'foreign',
        `target ${targetIqn} is not ${this.iqnOf(volumeId ?? 'volume-<uuid>')}: it is left alone`,
      );
    }
    return own;
  }

  backstore(hba: string, volumeId: string): { hba: string; volumeId: string; path: string } {
    return { hba, volumeId, path: `${this.core}/${hba}/${volumeId}` };
  }

  target(targetIqn: string): TargetPaths {
    return new TargetPaths(`${this.iscsi}/${targetIqn}`);
  }
}

/** One target: one portal group, LUN 0, an ACL for each initiator. */
export class TargetPaths {
  readonly iqn: string;
  readonly tpg: string;
  readonly enable: string;
  readonly luns: string;
  /** LUN 0. */
  readonly lun: string;
  readonly acls: string;
  readonly portals: string;

  constructor(iqn: string) {
    this.iqn = iqn;
    this.tpg = `${iqn}/tpgt_1`;
    this.enable = `${this.tpg}/enable`;
    this.luns = `${this.tpg}/lun`;
    this.lun = `${this.luns}/lun_0`;
    this.acls = `${this.tpg}/acls`;
    this.portals = `${this.tpg}/np`;
  }

  acl(initiatorIqn: string): string {
    return `${this.acls}/${initiatorIqn}`;
  }
}

function digest(text: string, digits: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digits);
}
