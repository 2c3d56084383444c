/** Errors of the initiator adapter. They know nothing of CSI; the node's operations decide what one means for a volume. */
import { CommandError } from '../../system/commands.ts';

export type IscsiErrorKind =
  /** The target refused this initiator: no ACL for it (0202h), or wrong CHAP credentials (0201h). */
  | 'auth-failed'
  /** The portal answers; there is no such target, or it is out of service (LIO says 0301h for both, others 0203h). */
  | 'target-not-found'
  /** No TCP connection to the portal. */
  | 'unreachable'
  /** Something did not end within its deadline; it may still be going on. */
  | 'timeout'
  | 'iscsid-down'
  /** A program, file or kernel module is not there; the message names the package. */
  | 'missing'
  /** open-iscsi's database lock was not free within the deadline. */
  | 'lock-busy'
  /** There is a session already, made by somebody else or by an earlier life of ours. */
  | 'session-exists'
  /** Something on this node (device-mapper, LVM, md) still uses the disk. */
  | 'in-use'
  /** The device refused to write back what was written to it. */
  | 'flush-failed'
  | 'other';

/** The message is for an administrator: what failed, what was found, what to do. It holds no secret. */
export class IscsiError extends Error {
  override readonly name = 'IscsiError';
  readonly kind: IscsiErrorKind;

  constructor(kind: IscsiErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
  }
}

/** The code of a Node system error ('ENOENT', …); undefined for anything else. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Codes with which sysfs answers for an object that has been removed: before the open, or between open and read. */
export function isGone(error: unknown): boolean {
  const code = errorCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENODEV' || code === 'ENXIO';
}

export const OPEN_ISCSI_PACKAGE =
  'install the package open-iscsi (Debian, Ubuntu, SUSE) or iscsi-initiator-utils (RHEL, Fedora)';

/** Says which package is missing when the program was not there; anything else is returned as it is. */
export function explainMissingProgram(error: unknown, program: string): unknown {
  if (!(error instanceof CommandError) || !error.missing) return error;
  return new IscsiError('missing', `${program} is not installed on this node; to do: ${OPEN_ISCSI_PACKAGE}`, {
    cause: error,
  });
}
