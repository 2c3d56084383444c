/** Contract of the initiator adapter: open-iscsi's node records, sessions in sysfs, SCSI devices. Knows nothing of CSI. */
import type { ChapCredentials } from '../../volumes/publish-context.ts';

export interface IscsiSession {
  readonly sid: number;
  readonly hostNumber: number;
  readonly targetIqn: string;
  /** "address:port" of the recorded (persistent) portal. */
  readonly portal: string;
  /** sysfs iscsi_session state: LOGGED_IN, FAILED, FREE. */
  readonly state: 'LOGGED_IN' | 'FAILED' | 'FREE' | 'UNKNOWN';
  /** CHAP user of the session, from sysfs; undefined without CHAP. */
  readonly chapUser: string | undefined;
}

export interface ScsiDisk {
  /** Kernel name, e.g. "sda". */
  readonly name: string;
  readonly path: string;
  readonly majorMinor: string;
  /** VPD page 0x80, complete; undefined when it cannot be read. */
  readonly serial: string | undefined;
  /** sysfs `device/wwid`, e.g. naa.6001405…; undefined when it cannot be read. */
  readonly wwid: string | undefined;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

export interface LoginSpec {
  readonly targetIqn: string;
  readonly portal: string;
  readonly chap: ChapCredentials | undefined;
  readonly mutualChap: ChapCredentials | undefined;
}

/** Why the login of a session that is down fails, in the target's own words. What it means is not the adapter's to say. */
export type TargetReach =
  | { readonly kind: 'logged-in' }
  /** The target would let this session in; iscsid has not brought it back yet. */
  | { readonly kind: 'accepted' }
  /** Every time it was asked over that many milliseconds; the latest reason. */
  | { readonly kind: 'refused'; readonly reason: RefusalReason; readonly forMs: number }
  | { readonly kind: 'unreachable' };

/**
 * authentication: 0201h, wrong credentials. authorization: 0202h, no access for this initiator. not-found: 0203h.
 * unavailable: 0301h; of LIO: no such target, or disabled, or not on this portal.
 */
export type RefusalReason = 'authentication' | 'authorization' | 'not-found' | 'unavailable' | 'other';

/** What a target answers to a login without credentials. */
export type KnockAnswer = 'accepted' | RefusalReason | 'no-answer';

export interface Initiator {
  /** iscsiadm there, iscsid answering, modules: [] or what is wrong and which package to install. */
  problems(): Promise<string[]>;
  /** Takes away what an earlier life of this process has left in the way of others: open-iscsi's database lock. */
  releaseLeft(): Promise<void>;
  /** From initiatorname.iscsi on the host. */
  initiatorIqn(): Promise<string>;
  /** All sessions of the host (also other people's), from sysfs. */
  sessions(): Promise<IscsiSession[]>;
  /** Makes the node record (CHAP written under open-iscsi's lock, 0600), logs in. The caller has checked that no session is there. */
  login(spec: LoginSpec): Promise<IscsiSession>;
  /** Scans exactly that LUN if it is not there yet and waits (bounded) for the disk; undefined when it does not appear. */
  findDisk(session: IscsiSession, lun: number): Promise<ScsiDisk | undefined>;
  /** The session's disks as they are now, without any scan. */
  disks(session: IscsiSession): Promise<ScsiDisk[]>;
  /** Asks the kernel to read the disk's capacity again. */
  rescan(disk: ScsiDisk): Promise<ScsiDisk>;
  /** fsync of the device, then `device/delete`, waits until it has gone. Flush failure aborts unless `discard`. */
  removeDisk(disk: ScsiDisk, options: { flush: boolean; timeoutMs: number }): Promise<void>;
  /** Ends the session (queued I/O fails) and deletes the record; also records without a session. */
  logout(targetIqn: string, portal: string): Promise<void>;
  deleteRecord(targetIqn: string): Promise<void>;
  /** Of a session that is down: what its target says at that portal, asked with the session's own name and credentials. */
  reach(spec: { sid: number; targetIqn: string; portal: string }): Promise<TargetReach>;
  /** Asks any target whether it would let this host in without credentials; makes no session. */
  knock(spec: { targetIqn: string; portal: string }): Promise<KnockAnswer>;
}
