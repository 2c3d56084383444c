/**
 * The text of an open-iscsi node record: "name = value" lines. open-iscsi starts from its built-in defaults and lets each
 * line change one (usr/idbm.c, idbm_recinfo_config), so a record need not name every setting of every version.
 */
import { IscsiError } from './errors.ts';
import { parsePortal } from './portal.ts';
import type { LoginSpec } from './types.ts';

export interface RecordSettings {
  /** Upper bound of a whole login, milliseconds. */
  readonly loginTimeoutMs: number;
  /** How long I/O waits for a lost session before it fails, seconds. */
  readonly replacementTimeoutSeconds: number;
}

/** A longer login_timeout would help nobody, and iscsid's own default is 15. */
const MAX_LOGIN_TIMEOUT_SECONDS = 15;

/**
 * The administrator's defaults for new records ("node.…" lines of iscsid.conf), as `iscsiadm -o new` takes them over:
 * digests, segment lengths, queue depths, CHAP algorithms (a FIPS host has no MD5). Its credentials are not for us.
 */
export function parseRecordDefaults(iscsidConf: string): Map<string, string> {
  const defaults = new Map<string, string>();
  for (const line of iscsidConf.split('\n')) {
    const match = /^\s*(node\.\S+?)\s*=\s*(\S.*?)\s*$/.exec(line);
    if (match?.[1] === undefined || match[2] === undefined) continue;
    const credentials = match[1].startsWith('node.session.auth.') && match[1] !== 'node.session.auth.chap_algs';
    if (!credentials) defaults.set(match[1], match[2]);
  }
  return defaults;
}

/**
 * @param defaults from parseRecordDefaults; what follows here wins
 * @throws IscsiError other for credentials that a record cannot hold; they are not in the message
 */
export function recordText(spec: LoginSpec, settings: RecordSettings, defaults: ReadonlyMap<string, string>): string {
  const portal = parsePortal(spec.portal);
  const loginTimeoutSeconds = Math.max(
    1,
    Math.min(MAX_LOGIN_TIMEOUT_SECONDS, Math.floor(settings.loginTimeoutMs / 2000)),
  );
  const values = new Map(defaults);
  const set = (key: string, value: string | number): void => {
    values.set(key, String(value));
  };
  set('node.name', spec.targetIqn);
  // Unknown (-1): the record is then the file "address,port", and the target says its portal group in the login.
  set('node.tpgt', -1);
  // The driver alone decides when to log in: a session from boot would be one that nobody has checked.
  set('node.startup', 'manual');
  set('node.leading_login', 'No');
  set('iface.iscsi_ifacename', 'default');
  set('iface.transport_name', 'tcp');
  set('node.discovery_type', 'static');
  // Scanned by us, exactly one LUN: an automatic scan attaches what nobody asked for.
  set('node.session.scan', 'manual');
  set('node.session.nr_sessions', 1);
  // Never give up: I/O waits for replacement_timeout, and a session that comes back later is still wanted.
  set('node.session.reopen_max', 0);
  // A first login is tried once: whoever asked for it gets the reason at once and tries again by himself. iscsid would
  // repeat for this times login_timeout, also where the target says that it does not exist (LIO: 0301h).
  set('node.session.initial_login_retry_max', 0);
  set('node.session.timeo.replacement_timeout', settings.replacementTimeoutSeconds);
  set('node.session.auth.authmethod', spec.chap === undefined ? 'None' : 'CHAP');
  if (spec.chap !== undefined) {
    set('node.session.auth.username', credential(spec.chap.user, 'CHAP user'));
    set('node.session.auth.password', credential(spec.chap.password, 'CHAP password'));
  }
  if (spec.mutualChap !== undefined) {
    set('node.session.auth.username_in', credential(spec.mutualChap.user, 'mutual CHAP user'));
    set('node.session.auth.password_in', credential(spec.mutualChap.password, 'mutual CHAP password'));
  }
  set('node.conn[0].address', portal.address);
  set('node.conn[0].port', portal.port);
  set('node.conn[0].startup', 'manual');
  set('node.conn[0].timeo.login_timeout', loginTimeoutSeconds);
  set('node.conn[0].timeo.noop_out_interval', 5);
  set('node.conn[0].timeo.noop_out_timeout', 5);
  const lines = [...values].map(([key, value]) => `${key} = ${value}`);
  return ['# BEGIN RECORD lvm-iscsi-csi', ...lines, '# END RECORD', ''].join('\n');
}

/** open-iscsi keeps 255 bytes of a value and strips white space at its ends. */
function credential(value: string, what: string): string {
  if (!/^[\x21-\x7e]{1,255}$/.test(value)) {
    throw new IscsiError('other', `the ${what} is not 1 to 255 printable ASCII characters without blanks`);
  }
  return value;
}
