/** Turns the adapters' errors into the driver's own: what each means for a node operation, in one place. */
import { DriverError, type ErrorCode } from '../errors.ts';
import { FileSystemError, type FileSystemErrorKind } from '../filesystem/errors.ts';
import { IscsiError, type IscsiErrorKind } from '../iscsi/initiator/errors.ts';
import { CommandError } from '../system/commands.ts';
import { FileTimeoutError } from '../system/files.ts';

const FILE_SYSTEM_CODES: Readonly<Record<FileSystemErrorKind, ErrorCode>> = {
  busy: 'FAILED_PRECONDITION',
  conflict: 'FAILED_PRECONDITION',
  'needs-repair': 'FAILED_PRECONDITION',
  'too-small': 'OUT_OF_RANGE',
  'tool-missing': 'FAILED_PRECONDITION',
  io: 'UNAVAILABLE',
  other: 'INTERNAL',
};

const ISCSI_CODES: Readonly<Record<IscsiErrorKind, ErrorCode>> = {
  'auth-failed': 'FAILED_PRECONDITION',
  'target-not-found': 'FAILED_PRECONDITION',
  unreachable: 'UNAVAILABLE',
  timeout: 'UNAVAILABLE',
  'iscsid-down': 'UNAVAILABLE',
  missing: 'FAILED_PRECONDITION',
  'lock-busy': 'ABORTED',
  'session-exists': 'ABORTED',
  'in-use': 'FAILED_PRECONDITION',
  'flush-failed': 'UNAVAILABLE',
  other: 'INTERNAL',
};

/**
 * `problem`: what could not be done, e.g. "volume X could not be staged". A DriverError stays as it is.
 * `mayLeaveState`: of a call that makes something. A failure that nobody has given a meaning is then UNAVAILABLE: kubelet
 * takes INTERNAL for "nothing was done", and forgets to undo it.
 */
export function toDriverError(
  error: unknown,
  problem: string,
  options: { readonly mayLeaveState: boolean } = { mayLeaveState: false },
): unknown {
  const unexpected: ErrorCode = options.mayLeaveState ? 'UNAVAILABLE' : 'INTERNAL';
  if (error instanceof DriverError) return error;
  const cause = { cause: error };
  if (error instanceof FileSystemError) {
    return new DriverError(
      FILE_SYSTEM_CODES[error.kind],
      { problem, found: error.message, ...action(fileSystemAction(error.kind)) },
      cause,
    );
  }
  if (error instanceof IscsiError) {
    return new DriverError(
      ISCSI_CODES[error.kind],
      { problem, found: error.message, ...action(iscsiAction(error.kind)) },
      cause,
    );
  }
  if (error instanceof FileTimeoutError) {
    const hint = 'check the path to the storage host (iscsiadm -m session -P 1, dmesg); the call may be retried';
    return new DriverError('UNAVAILABLE', { problem, found: error.message, action: hint }, cause);
  }
  if (error instanceof CommandError) {
    return new DriverError(unexpected, { problem, found: error.shortMessage, ...action(SEE_LOG) }, cause);
  }
  if (error instanceof Error && 'code' in error && 'syscall' in error) {
    return new DriverError(unexpected, { problem, found: error.message, ...action(SEE_LOG) }, cause);
  }
  return error;
}

/** Runs the action; its errors say what could not be done. */
export async function explained<T>(
  problem: string,
  action: () => Promise<T>,
  options?: { readonly mayLeaveState: boolean },
): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw toDriverError(error, problem, options);
  }
}

const SEE_LOG = "see the node plugin's log";

function action(text: string | undefined): { action?: string } {
  return text === undefined ? {} : { action: text };
}

function fileSystemAction(kind: FileSystemErrorKind): string | undefined {
  switch (kind) {
    case 'busy':
      return 'end what uses it (fuser -vm, lsof); the call is retried';
    case 'needs-repair':
      return 'attach the volume as raw block, or run e2fsck on the storage host while it is not attached; nothing was changed';
    case 'io':
      return 'check the session (iscsiadm -m session -P 1) and dmesg; the call is retried';
    case 'other':
      return SEE_LOG;
    default:
      return undefined;
  }
}

function iscsiAction(kind: IscsiErrorKind): string | undefined {
  switch (kind) {
    case 'auth-failed':
    case 'target-not-found':
      return "the attachment may have been revoked: check the VolumeAttachment and the controller's log";
    case 'unreachable':
      return 'check the storage host and the network to its portal; the call is retried';
    case 'flush-failed':
      return 'nothing more was torn down; the call is retried';
    case 'other':
      return SEE_LOG;
    default:
      return undefined;
  }
}
