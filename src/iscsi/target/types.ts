/** Contract of the LIO target adapter (configfs). One target, one LUN 0, one ACL for each initiator. Knows nothing of CSI or LVM. */

export type AclAuth =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'chap';
      readonly user: string;
      readonly password: string;
      readonly mutual: { readonly user: string; readonly password: string } | undefined;
    }
  /** Credentials are not known (user secret after a restart, unknown key): existing auth is left as it is; an ACL is not made. */
  | { readonly kind: 'keep' };

export interface AclSpec {
  readonly initiatorIqn: string;
  readonly readonly: boolean;
  readonly auth: AclAuth;
}

export interface TargetSpec {
  readonly volumeId: string;
  readonly targetIqn: string;
  /** 32 hex digits. */
  readonly serial: string;
  /** The gate's path. */
  readonly devicePath: string;
  /** Discards are passed on (emulate_tpu, emulate_tpws): thin volumes only. */
  readonly discard: boolean;
  /** SCSI-3 persistent reservations (emulate_pr), for nodes that share the volume; off when absent. */
  readonly reservations?: boolean;
  readonly acls: readonly AclSpec[];
}

export interface SessionInfo {
  readonly initiatorIqn: string;
}

export interface TargetState {
  readonly volumeId: string | undefined;
  readonly targetIqn: string;
  readonly enabled: boolean;
  readonly portals: readonly string[];
  readonly aclInitiators: readonly string[];
  /** Of these, whose access is complete: mapped LUN, and credentials where the target asks for any. */
  readonly admittedInitiators: readonly string[];
  readonly backstoreDevice: string | undefined;
  /**
   * What shows whose it is: devices (or files) of what its LUNs lead to; without LUNs, those of block backstores that have
   * the volume's id or the target's name for a name. "<HBA>/<backstore>" for what has no path. [] for a target half built.
   */
  readonly backings: readonly string[];
  /** One of these backstores was made by this adapter, whatever device it is on by now. */
  readonly hasOwnBackstore: boolean;
  readonly sessions: readonly SessionInfo[];
}

export interface Targets {
  /** Modules loaded, configfs mounted and writable, portals on addresses of this host: [] or what is wrong and what to do. */
  problems(): Promise<string[]>;
  /** Every target under our IQN prefix, and every backstore of ours (also those without a target), from configfs. */
  list(): Promise<TargetState[]>;
  /** One of them; undefined when there is neither a target of that name nor a backstore of its volume. */
  find(targetIqn: string, options: { timeoutMs: number }): Promise<TargetState | undefined>;
  /**
   * Targets under other prefixes that export a backstore of a volume: made under an IQN prefix that has been changed since,
   * or by hand. list() does not have them, and a fence does not reach them.
   */
  listForeign(): Promise<{ readonly targetIqn: string; readonly volumeId: string }[]>;
  /**
   * Converges one target to the spec: builds in the safe order, repairs what differs, leaves alone what is right (live
   * sessions never notice). ACLs not in the spec are fenced off first. `portals: false` leaves the portal for openPortals.
   * A target of that name that is backed by something else than the spec's device is refused (foreign), and not touched.
   */
  ensure(spec: TargetSpec, options?: { portals?: boolean }): Promise<void>;
  /** Adds the configured portals to an otherwise complete target. */
  openPortals(targetIqn: string): Promise<void>;
  /**
   * Makes the configured portals listen, whether a volume is exported or not: a target of our own without LUNs or ACLs
   * holds them. Without it the last volume's portal goes with its target, and an initiator can't tell
   * "you have been cut off" from "the storage host is down". list() leaves it out. One for an earlier volume group of the
   * same name is removed.
   */
  holdPortals(vgUuid: string): Promise<void>;
  /** That target, by which initiators tell a revoked attachment from a host that is not complete (witness.ts). */
  witnessIqn(vgUuid: string): string;
  /**
   * Of which volume group (UUID) every attached volume is known to be exported; undefined: not known, whichever it is. It
   * stays so until the next call, also without this process.
   */
  setWitness(vgUuid: string | undefined): Promise<void>;
  /** Ends one initiator's sessions and bars it: random password, cmdsn_depth, mapped LUN, ACL. Others are not disturbed. */
  revoke(targetIqn: string, initiatorIqn: string, options: { timeoutMs: number }): Promise<void>;
  /** `enable` ← 0: ends every session of the target; then each ACL is removed (waits for its sessions). */
  disable(targetIqn: string, options: { timeoutMs: number }): Promise<void>;
  /** Removes target, LUN and backstore of the volume, also what is left of half-built ones. The portal goes last. */
  remove(volumeId: string, targetIqn: string, options: { timeoutMs: number }): Promise<void>;
}
