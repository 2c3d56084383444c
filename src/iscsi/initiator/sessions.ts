/** iSCSI sessions as the kernel has them (sysfs, drivers/scsi/scsi_transport_iscsi.c): the truth, whatever iscsid thinks. */
import type { ChapCredentials } from '../../volumes/publish-context.ts';
import { formatPortal } from './portal.ts';
import type { Sysfs } from './sysfs.ts';
import type { IscsiSession } from './types.ts';

const CLASS = 'class/iscsi_session';
const STATES: readonly string[] = ['LOGGED_IN', 'FAILED', 'FREE'] satisfies IscsiSession['state'][];

export interface SessionCredentials {
  readonly initiatorIqn: string | undefined;
  readonly chap: ChapCredentials | undefined;
  readonly mutualChap: ChapCredentials | undefined;
}

export class Sessions {
  readonly #sysfs: Sysfs;

  constructor(sysfs: Sysfs) {
    this.#sysfs = sysfs;
  }

  /** All sessions, or those of one target. Sessions that end while they are read are left out. */
  async list(targetIqn?: string): Promise<IscsiSession[]> {
    const sids: number[] = [];
    for (const name of await this.#sysfs.names(CLASS)) {
      const match = /^session([0-9]+)$/.exec(name);
      if (match !== null) sids.push(Number(match[1]));
    }
    sids.sort((a, b) => a - b);
    const sessions = await Promise.all(sids.map((sid) => this.#read(sid, targetIqn)));
    return sessions.filter((session) => session !== undefined);
  }

  /**
   * The sessions of one target through one portal. One that has no connection (being made, or left half-made) belongs to
   * no portal yet; it counts, since a login or logout of that target has to deal with it.
   */
  async find(targetIqn: string, portal: string): Promise<IscsiSession[]> {
    const sessions = await this.list(targetIqn);
    return sessions.filter((session) => session.portal === portal || session.portal === '');
  }

  async exists(sid: number): Promise<boolean> {
    return (await this.#sysfs.attribute(`${CLASS}/session${sid}/targetname`)) !== undefined;
  }

  /** What iscsid gave the kernel for this session; readable by root only. Never to be logged. */
  async credentials(sid: number): Promise<SessionCredentials> {
    const base = `${CLASS}/session${sid}`;
    const [initiatorIqn, user, password, mutualUser, mutualPassword] = await Promise.all(
      ['initiatorname', 'username', 'password', 'username_in', 'password_in'].map((name) =>
        this.#sysfs.value(`${base}/${name}`),
      ),
    );
    return {
      initiatorIqn,
      chap: user !== undefined && password !== undefined ? { user, password } : undefined,
      mutualChap:
        mutualUser !== undefined && mutualPassword !== undefined
          ? { user: mutualUser, password: mutualPassword }
          : undefined,
    };
  }

  async #read(sid: number, wantedIqn: string | undefined): Promise<IscsiSession | undefined> {
    const base = `${CLASS}/session${sid}`;
    const targetIqn = await this.#sysfs.value(`${base}/targetname`);
    if (targetIqn === undefined || (wantedIqn !== undefined && targetIqn !== wantedIqn)) return undefined;
    const connection = `class/iscsi_connection/connection${sid}:0`;
    const [link, state, chapUser, address, port] = await Promise.all([
      this.#sysfs.link(base),
      this.#sysfs.attribute(`${base}/state`),
      this.#sysfs.value(`${base}/username`),
      this.#sysfs.value(`${connection}/persistent_address`),
      this.#sysfs.value(`${connection}/persistent_port`),
    ]);
    // "../../devices/platform/host3/session1/iscsi_session/session1"
    const host = /\/host([0-9]+)\/session[0-9]+\//.exec(link ?? '')?.[1];
    if (host === undefined || state === undefined) return undefined;
    return {
      sid,
      hostNumber: Number(host),
      targetIqn,
      portal: address === undefined || port === undefined ? '' : formatPortal({ address, port: Number(port) }),
      state: isKnownState(state) ? state : 'UNKNOWN',
      chapUser,
    };
  }
}

function isKnownState(state: string): state is IscsiSession['state'] {
  return STATES.includes(state);
}
