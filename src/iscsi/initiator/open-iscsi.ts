/** The initiator adapter over open-iscsi: records, logins, sessions and disks of this node. */
import { followHostPath } from '../../filesystem/host-path.ts';
import type { Commands } from '../../system/commands.ts';
import type { Files } from '../../system/files.ts';
import { DatabaseLock } from './database-lock.ts';
import { Disks } from './disks.ts';
import { isGone } from './errors.ts';
import { readInitiatorName } from './initiator-name.ts';
import { Iscsiadm } from './iscsiadm.ts';
import { Logins } from './login.ts';
import { type LoginAnswer, probeLogin } from './login-probe.ts';
import { checkTargetName, parsePortal } from './portal.ts';
import { findProblems } from './problems.ts';
import { Reach } from './reach.ts';
import { parseRecordDefaults } from './record-text.ts';
import { NodeRecords } from './records.ts';
import { Sessions } from './sessions.ts';
import { Sysfs } from './sysfs.ts';
import type { Initiator, IscsiSession, KnockAnswer, LoginSpec, ScsiDisk, TargetReach } from './types.ts';

const ISCSID_CONF = '/etc/iscsi/iscsid.conf';
const ASK_TIMEOUT_MS = 5_000;

export interface OpenIscsiOptions {
  readonly commands: Commands;
  readonly files: Files;
  readonly config: {
    /** Prefix under which the host's root is seen: '' or '/proc/1/root'. */
    readonly hostRoot: string;
    /** Path on the host. */
    readonly initiatorNameFile: string;
    readonly loginConcurrency: number;
    readonly loginTimeoutMs: number;
    readonly replacementTimeoutSeconds: number;
  };
}

/** Errors: IscsiError where the cause is known; system errors and CommandError as they are otherwise. */
export class OpenIscsi implements Initiator {
  readonly #options: OpenIscsiOptions;
  readonly #sessions: Sessions;
  readonly #disks: Disks;
  readonly #records: NodeRecords;
  readonly #logins: Logins;
  readonly #reach: Reach;
  readonly #lock: DatabaseLock;

  constructor(options: OpenIscsiOptions) {
    this.#options = options;
    const { commands, files, config } = options;
    const { hostRoot } = config;
    const sysfs = new Sysfs(files, hostRoot);
    const iscsiadm = new Iscsiadm(commands);
    this.#sessions = new Sessions(sysfs);
    this.#disks = new Disks({ sysfs, commands, hostRoot });
    this.#lock = new DatabaseLock({ files, hostRoot });
    this.#records = new NodeRecords({ files, hostRoot, iscsiadm, lock: this.#lock });
    this.#logins = new Logins({
      iscsiadm,
      records: this.#records,
      sessions: this.#sessions,
      settings: config,
      concurrency: config.loginConcurrency,
      recordDefaults: () => this.#recordDefaults(),
      askTarget: (spec) => this.#askTarget(spec),
    });
    this.#reach = new Reach({ sessions: this.#sessions, initiatorIqn: () => this.initiatorIqn(), probe: probeLogin });
  }

  async problems(): Promise<string[]> {
    const { commands, files, config } = this.#options;
    return await findProblems({ commands, files, ...config });
  }

  async releaseLeft(): Promise<void> {
    await this.#lock.releaseLeft();
  }

  async initiatorIqn(): Promise<string> {
    const { files, config } = this.#options;
    return await readInitiatorName(files, config.hostRoot, config.initiatorNameFile);
  }

  async sessions(): Promise<IscsiSession[]> {
    return await this.#sessions.list();
  }

  async login(spec: LoginSpec): Promise<IscsiSession> {
    return await this.#logins.login(spec);
  }

  async findDisk(session: IscsiSession, lun: number): Promise<ScsiDisk | undefined> {
    return await this.#disks.find(session, lun);
  }

  async disks(session: IscsiSession): Promise<ScsiDisk[]> {
    return await this.#disks.list(session);
  }

  async rescan(disk: ScsiDisk): Promise<ScsiDisk> {
    return await this.#disks.rescan(disk);
  }

  async removeDisk(disk: ScsiDisk, options: { flush: boolean; timeoutMs: number }): Promise<void> {
    await this.#disks.remove(disk, options);
  }

  async logout(targetIqn: string, portal: string): Promise<void> {
    await this.#logins.logout(targetIqn, portal);
  }

  async deleteRecord(targetIqn: string): Promise<void> {
    checkTargetName(targetIqn);
    await this.#records.delete(targetIqn, undefined);
  }

  async reach(spec: { sid: number; targetIqn: string; portal: string }): Promise<TargetReach> {
    return await this.#reach.reach(spec);
  }

  async knock(spec: { targetIqn: string; portal: string }): Promise<KnockAnswer> {
    checkTargetName(spec.targetIqn);
    const answer = await this.#askTarget({ ...spec, chap: undefined, mutualChap: undefined });
    return answer.kind === 'refused' ? answer.reason : answer.kind;
  }

  async #askTarget(spec: LoginSpec): Promise<LoginAnswer> {
    return await probeLogin({
      portal: parsePortal(spec.portal),
      initiatorIqn: await this.initiatorIqn(),
      targetIqn: spec.targetIqn,
      chap: spec.chap,
      mutualChap: spec.mutualChap,
      timeoutMs: ASK_TIMEOUT_MS,
    });
  }

  async #recordDefaults(): Promise<Map<string, string>> {
    const { files, config } = this.#options;
    try {
      const path = await followHostPath(files, config.hostRoot, ISCSID_CONF);
      return parseRecordDefaults(await files.readText(`${config.hostRoot}${path}`));
    } catch (error) {
      // Without the file open-iscsi uses its built-in defaults, and so do we.
      if (isGone(error)) return new Map();
      throw error;
    }
  }
}
