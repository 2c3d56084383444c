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

/** Why a login or a session's recovery fails, as far as iscsiadm and a portal probe tell. */
export type TargetReach = 'logged-in' | 'refused' | 'unreachable';

export interface Initiator {
  /** iscsiadm there, iscsid answering, modules: [] or what is wrong and which package to install. */
  problems(): Promise<string[]>;
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
  /** Of a session that is down: does the target refuse us (attachment revoked), or is it merely unreachable? */
  reach(spec: { targetIqn: string; portal: string }): Promise<TargetReach>;
}
