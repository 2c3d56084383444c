/** LIO targets made by a shell on the storage host, without the driver: for tests of the initiator alone. */
import { createHash } from 'node:crypto';
import type { Machine } from '../../lab/machine.ts';

export interface HandMadeTarget {
  readonly name: string;
  readonly targetIqn: string;
  readonly portal: string;
  readonly serial: string;
}

export interface HandMadeOptions {
  /** Whom the target lets in. */
  readonly initiatorIqn: string;
  readonly chap?: { readonly user: string; readonly password: string };
  readonly mutualChap?: { readonly user: string; readonly password: string };
  readonly sizeMib?: number;
}

const PREFIX = 'iqn.2010-10.org.openstack:';
const WITNESS = 'portal-hand-made';
export const WITNESS_IQN = `${PREFIX}${WITNESS}`;
const CONFIGFS = '/sys/kernel/config/target';

export class HandMadeTargets {
  readonly #storage: Machine;
  readonly portal: string;

  constructor(storage: Machine) {
    this.#storage = storage;
    this.portal = `${storage.address}:3260`;
  }

  async make(name: string, options: HandMadeOptions): Promise<HandMadeTarget> {
    const { initiatorIqn, chap, mutualChap, sizeMib = 64 } = options;
    const serial = createHash('md5').update(name).digest('hex');
    const auth = (file: string, value: string | undefined): string =>
      value === undefined ? '' : `printf %s '${value}' > $T/acls/${initiatorIqn}/auth/${file}`;
    await this.#storage.exec(`set -e
      ${paths(name)}
      truncate -s ${sizeMib}M /var/tmp/${name}.img
      L=$(losetup -f --show /var/tmp/${name}.img)
      dmsetup create ${name} --table "0 $(blockdev --getsz $L) linear $L 0"
      mkdir -p $B; echo udev_path=/dev/mapper/${name} > $B/control
      echo ${serial} > $B/wwn/vpd_unit_serial; echo 1 > $B/enable
      mkdir -p ${CONFIGFS}/iscsi; mkdir -p $T/lun/lun_0; ln -s $B $T/lun/lun_0/x
      mkdir -p $T/acls/${initiatorIqn}/lun_0; ln -s $T/lun/lun_0 $T/acls/${initiatorIqn}/lun_0/x
      ${auth('userid', chap?.user)}
      ${auth('password', chap?.password)}
      ${auth('userid_mutual', mutualChap?.user)}
      ${auth('password_mutual', mutualChap?.password)}
      echo ${chap === undefined ? 0 : 1} > $T/attrib/authentication
      mkdir $T/np/${this.portal}; echo 1 > $T/enable`);
    return { name, targetIqn: `${PREFIX}${name}`, portal: this.portal, serial };
  }

  /** As the controller's: at the same portal, enabled, with no LUN and no access for anybody. */
  async makeWitness(): Promise<void> {
    await this.#storage.exec(`set -e; ${paths(WITNESS)}
      mkdir -p ${CONFIGFS}/iscsi $T; mkdir -p $T/np/${this.portal}
      echo 1 > $T/attrib/authentication; echo 0 > $T/attrib/generate_node_acls; echo 1 > $T/enable`);
  }

  async setWitness(isComplete: boolean): Promise<void> {
    await this.#storage.exec(`${paths(WITNESS)}; echo ${isComplete ? 1 : 0} > $T/enable`);
  }

  async grow(target: HandMadeTarget, sizeMib: number): Promise<void> {
    await this.#storage.exec(`set -e
      truncate -s ${sizeMib}M /var/tmp/${target.name}.img
      L=$(losetup -n -O NAME -j /var/tmp/${target.name}.img); losetup -c $L
      ${load(target, '"0 $(blockdev --getsz $L) linear $L 0"')}`);
  }

  /** From now on every read and write of the device under the target fails. */
  async failIo(target: HandMadeTarget): Promise<void> {
    await this.#storage.exec(`${load(target, `"0 $(blockdev --getsz /dev/mapper/${target.name}) error"`)}`);
  }

  /** A fence of one initiator: its ACL is removed. */
  async removeAcl(target: HandMadeTarget, initiatorIqn: string): Promise<void> {
    await this.#storage.exec(`set -e; ${paths(target.name)}; A=$T/acls/${initiatorIqn}
      rm $A/lun_0/x; rmdir $A/lun_0 $A`);
  }

  /** A fence of one initiator: another password, and its sessions are cut. */
  async changePassword(target: HandMadeTarget, initiatorIqn: string): Promise<void> {
    await this.#storage.exec(`${paths(target.name)}; A=$T/acls/${initiatorIqn}
      printf %s anotherpassword > $A/auth/password; echo 37 > $A/cmdsn_depth`);
  }

  async enable(target: HandMadeTarget, on: boolean): Promise<void> {
    await this.#storage.exec(`${paths(target.name)}; echo ${on ? 1 : 0} > $T/enable`);
  }

  /** The target goes; backstore and device stay. */
  async removeTarget(target: HandMadeTarget): Promise<void> {
    await this.#storage.exec(`${paths(target.name)}; echo 0 > $T/enable
      for a in $T/acls/*; do rm -f $a/lun_0/x; rmdir $a/lun_0 $a; done
      rm $T/lun/lun_0/x; rmdir $T/lun/lun_0 $T/np/* $T ${CONFIGFS}/iscsi/${target.targetIqn}`);
  }

  /** All that `make` has made. */
  async remove(target: HandMadeTarget): Promise<void> {
    await this.removeTarget(target);
    await this.#storage.exec(`set -e; ${paths(target.name)}
      rmdir $B; rmdir $(dirname $B) 2>/dev/null || true
      dmsetup remove --retry ${target.name}
      losetup -d $(losetup -n -O NAME -j /var/tmp/${target.name}.img); rm /var/tmp/${target.name}.img`);
  }
}

function paths(name: string): string {
  return `B=${CONFIGFS}/core/iblock_0/${name}; T=${CONFIGFS}/iscsi/${PREFIX}${name}/tpgt_1`;
}

function load(target: HandMadeTarget, table: string): string {
  return `dmsetup suspend --noflush ${target.name}; dmsetup load ${target.name} --table ${table}; dmsetup resume ${target.name}`;
}
