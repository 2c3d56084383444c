/**
 * FAKE of the initiator adapter, for the node plugin's own logic and its error paths: sessions are entries in a list,
 * disks are loop devices, sysfs is a folder. The real adapter has tests of its own, and the lab has the real thing.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { IscsiError } from '../../../../src/iscsi/initiator/errors.ts';
import type {
  Initiator,
  IscsiSession,
  KnockAnswer,
  LoginSpec,
  ScsiDisk,
  TargetReach,
} from '../../../../src/iscsi/initiator/types.ts';

/** A target on an imagined storage host. */
export interface FakeTarget {
  readonly targetIqn: string;
  name: string;
  majorMinor: string;
  serial: string | undefined;
  sizeBytes: number;
  readOnly: boolean;
}

export const REFUSED: TargetReach = { kind: 'refused', reason: 'unavailable', forMs: 5_000 };

export type MutableSession = { -readonly [Key in keyof IscsiSession]: IscsiSession[Key] };

export class FakeInitiator implements Initiator {
  readonly targets = new Map<string, FakeTarget>();
  readonly live: MutableSession[] = [];
  /** "target portal". */
  readonly iscsiRecords = new Set<string>();
  /** What was done, in order. */
  readonly calls: string[] = [];
  reachAnswer: TargetReach = { kind: 'unreachable' };
  /** By portal, where it differs. */
  readonly reachAnswers = new Map<string, TargetReach>();
  /** One after the other; the last one stays. "authorization": the witness says that all volumes are exported. */
  witnessAnswers: KnockAnswer[] = ['authorization'];
  loginError: Error | undefined;
  flushError: Error | undefined;
  logoutError: Error | undefined;
  /** The disk does not show up. */
  hidesDisk = false;
  problemList: string[] = [];
  readonly #sysRoot: string;
  #lastSid = 0;

  constructor(sysRoot: string) {
    this.#sysRoot = sysRoot;
  }

  async problems(): Promise<string[]> {
    return this.problemList;
  }

  async releaseLeft(): Promise<void> {
    this.calls.push('release left');
  }

  async initiatorIqn(): Promise<string> {
    return 'iqn.1993-08.org.debian:01:abcdef';
  }

  async sessions(): Promise<IscsiSession[]> {
    return this.live.map((session) => ({ ...session }));
  }

  async login(spec: LoginSpec): Promise<IscsiSession> {
    this.calls.push(`login ${spec.portal}`);
    if (this.loginError !== undefined) throw this.loginError;
    const session = this.addSession(spec.targetIqn, { portal: spec.portal, chapUser: spec.chap?.user });
    this.iscsiRecords.add(`${spec.targetIqn} ${spec.portal}`);
    return { ...session };
  }

  /** A session as if somebody had logged in: its disk is there. */
  addSession(targetIqn: string, fields: Partial<IscsiSession> = {}): MutableSession {
    if (this.live.some((session) => session.targetIqn === targetIqn)) {
      throw new IscsiError('session-exists', `there is a session to ${targetIqn}`);
    }
    this.#lastSid += 1;
    const session: MutableSession = {
      sid: this.#lastSid,
      hostNumber: this.#lastSid,
      targetIqn,
      portal: '10.0.0.1:3260',
      state: 'LOGGED_IN',
      chapUser: undefined,
      ...fields,
    };
    this.live.push(session);
    const target = this.#target(targetIqn);
    mkdirSync(join(this.#sysRoot, 'dev/block', target.majorMinor), { recursive: true });
    writeFileSync(join(this.#sysRoot, 'dev/block', target.majorMinor, 'size'), `${target.sizeBytes / 512}\n`);
    mkdirSync(join(this.#sysRoot, 'block', target.name, 'holders'), { recursive: true });
    mkdirSync(join(this.#sysRoot, 'block', target.name, 'device'), { recursive: true });
    writeFileSync(join(this.#sysRoot, 'block', target.name, 'device/state'), 'running\n');
    return session;
  }

  /** The session goes as in a logout: its disk with it. */
  dropSession(targetIqn: string): void {
    const index = this.live.findIndex((session) => session.targetIqn === targetIqn);
    if (index >= 0) this.live.splice(index, 1);
    this.#dropDisk(this.#target(targetIqn));
  }

  diskState(targetIqn: string): string {
    return readFileSync(join(this.#sysRoot, 'block', this.#target(targetIqn).name, 'device/state'), 'utf8').trim();
  }

  hold(targetIqn: string, holder: string): void {
    mkdirSync(join(this.#sysRoot, 'block', this.#target(targetIqn).name, 'holders', holder));
  }

  async findDisk(session: IscsiSession, _lun: number): Promise<ScsiDisk | undefined> {
    return this.hidesDisk ? undefined : (await this.disks(session))[0];
  }

  async disks(session: IscsiSession): Promise<ScsiDisk[]> {
    const target = this.#target(session.targetIqn);
    const isThere = this.live.some(({ sid }) => sid === session.sid);
    return isThere ? [{ ...target, path: `/dev/${target.name}`, wwid: undefined }] : [];
  }

  async rescan(disk: ScsiDisk): Promise<ScsiDisk> {
    this.calls.push(`rescan ${disk.name}`);
    const target = [...this.targets.values()].find(({ name }) => name === disk.name);
    if (target === undefined) throw new IscsiError('other', `${disk.path} has gone`);
    return { ...target, path: disk.path, wwid: undefined };
  }

  async removeDisk(_disk: ScsiDisk, options: { flush: boolean; timeoutMs: number }): Promise<void> {
    this.calls.push(`remove ${options.flush ? 'flushed' : 'unflushed'}`);
    if (options.flush && this.flushError !== undefined) throw this.flushError;
  }

  async logout(targetIqn: string, portal: string): Promise<void> {
    const state = this.live.some((session) => session.targetIqn === targetIqn) ? this.diskState(targetIqn) : 'gone';
    this.calls.push(`logout ${state}`);
    if (this.logoutError !== undefined) throw this.logoutError;
    this.dropSession(targetIqn);
    this.iscsiRecords.delete(`${targetIqn} ${portal}`);
  }

  async deleteRecord(targetIqn: string): Promise<void> {
    this.calls.push('delete record');
    for (const record of this.iscsiRecords) if (record.startsWith(`${targetIqn} `)) this.iscsiRecords.delete(record);
  }

  async reach({ portal }: { portal: string }): Promise<TargetReach> {
    this.calls.push('reach');
    return this.reachAnswers.get(portal) ?? this.reachAnswer;
  }

  async knock({ targetIqn }: { targetIqn: string }): Promise<KnockAnswer> {
    this.calls.push(`knock ${targetIqn.slice(targetIqn.indexOf(':') + 1)}`);
    const [answer = 'no-answer', ...later] = this.witnessAnswers;
    if (later.length > 0) this.witnessAnswers = later;
    return answer;
  }

  #target(targetIqn: string): FakeTarget {
    const target = this.targets.get(targetIqn);
    if (target === undefined) throw new IscsiError('target-not-found', `no target ${targetIqn}`);
    return target;
  }

  #dropDisk(target: FakeTarget): void {
    rmSync(join(this.#sysRoot, 'dev/block', target.majorMinor), { recursive: true, force: true });
    rmSync(join(this.#sysRoot, 'block', target.name), { recursive: true, force: true });
  }
}
