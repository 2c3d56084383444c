/**
 * What a failure of gate or target means to the client: what was found, what to do, and a code that the caller can act
 * on. The adapters' messages are our own words; what dmsetup or modprobe printed is in their causes, for the log.
 *
 * The codes: UNAVAILABLE for what heals by itself or on the storage host, and FAILED_PRECONDITION for what somebody has
 * to take away first. ABORTED where the work may go on behind our back.
 */
import { DriverError, type ErrorCode, type ErrorText } from '../errors.ts';
import { GateError, type GateErrorReason } from '../gate/errors.ts';
import { TargetError, type TargetErrorReason } from '../iscsi/target/errors.ts';
import { CommandError } from '../system/commands.ts';
import { FileTimeoutError } from '../system/files.ts';

interface Meaning {
  readonly code: ErrorCode;
  readonly action: string;
}

/** A table or a list of initiators can be long; what to do must still fit into the client's message. */
const MAX_FOUND_CHARACTERS = 400;

export const FOREIGN_TARGET_ACTION =
  "it is other software's, perhaps Cinder's, and is left alone: end that export there (targetcli ls shows it), or give this driver an iqn-prefix of its own";

const LATE: Meaning = {
  code: 'ABORTED',
  action:
    'the call is retried and goes on where it stopped; if it stays so, look at the disks under the volume group (dmesg)',
};
const SEE_LOG: Meaning = {
  code: 'UNAVAILABLE',
  action: "see the controller's log and dmesg of the storage host; the call is retried",
};

const GATE: Readonly<Record<GateErrorReason, Meaning>> = {
  foreign: {
    code: 'FAILED_PRECONDITION',
    action: 'see "dmsetup info" on the storage host for whose it is, and remove it there; the driver never does',
  },
  'in-use': {
    code: 'FAILED_PRECONDITION',
    action: 'see "dmsetup ls --tree" and "lsof" on the storage host for who holds it, and end that',
  },
  severed: {
    code: 'ABORTED',
    action: 'the call is retried, and completes the fence that was cut short',
  },
  backing: {
    code: 'UNAVAILABLE',
    action: 'see "lvs" on the storage host for the logical volume, and the controller\'s log; the call is retried',
  },
  absent: SEE_LOG,
  timeout: LATE,
  'cut-short': LATE,
  failed: SEE_LOG,
};

const TARGET: Readonly<Record<TargetErrorReason, Meaning>> = {
  invalid: {
    code: 'FAILED_PRECONDITION',
    action:
      'detach the volume from all its nodes and attach it again; attachments with CHAP and without it cannot be mixed',
  },
  foreign: {
    code: 'FAILED_PRECONDITION',
    action: FOREIGN_TARGET_ACTION,
  },
  conflict: {
    code: 'FAILED_PRECONDITION',
    action: 'detach the volume from the nodes with these initiators; the driver does not disturb a session that lives',
  },
  device: {
    code: 'FAILED_PRECONDITION',
    action: 'see "lsblk", "dmsetup ls --tree" and "lsof" on the storage host for who holds it, and end that',
  },
  portal: {
    code: 'UNAVAILABLE',
    action: 'compare option portals with "ip -brief address" and "ss -tlnp" on the storage host; the call is retried',
  },
  kernel: SEE_LOG,
  timeout: LATE,
};

/** Runs what makes or repairs an export; `problem` says what it was for. What is no adapter's error passes through. */
export async function explainExport<T>(problem: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    const meaning = meaningOf(cause);
    if (meaning === undefined) throw cause;
    const { code, ...text } = meaning;
    throw new DriverError(code, { problem, ...text }, { cause });
  }
}

/** Runs a fence. One that does not end well is ABORTED, never OK: the caller must not give the volume to another node. */
export async function explainFence<T>(volumeId: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof DriverError) throw cause;
    const { found, action: toDo, code } = meaningOf(cause) ?? { ...SEE_LOG, found: 'a step of the fence failed' };
    const late = code === 'ABORTED' ? ' in time' : '';
    const problem = `volume ${volumeId} could not be cut off from its node${late}`;
    throw new DriverError('ABORTED', { problem, found, action: toDo }, { cause });
  }
}

type Explained = Required<Omit<ErrorText, 'problem'>> & { readonly code: ErrorCode };

/** undefined: an error with a meaning already, or a bug. */
function meaningOf(error: unknown): Explained | undefined {
  if (error instanceof GateError) return explained(GATE[error.reason], error.message);
  if (error instanceof TargetError) return explained(TARGET[error.reason], error.message);
  if (error instanceof FileTimeoutError) return explained(LATE, error.message);
  if (error instanceof CommandError) {
    const install = 'install its package on the storage host (dmsetup: dmsetup or lvm2; modprobe: kmod)';
    return explained(error.missing ? { code: 'UNAVAILABLE', action: install } : SEE_LOG, error.shortMessage);
  }
  if (error instanceof Error && 'code' in error && 'syscall' in error) {
    const { code, syscall, path } = error as NodeJS.ErrnoException;
    return explained(SEE_LOG, `the kernel answered ${code} to ${syscall}${path === undefined ? '' : ` of ${path}`}`);
  }
  return undefined;
}

function explained({ code, action }: Meaning, found: string): Explained {
  const short = found.length > MAX_FOUND_CHARACTERS ? `${found.slice(0, MAX_FOUND_CHARACTERS - 1)}…` : found;
  return { code, found: short, action };
}
