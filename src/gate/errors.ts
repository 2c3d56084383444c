/**
 * What went wrong with a gate:
 * - foreign: a device-mapper device with the gate's name is not ours; it is never touched.
 * - in-use: something (normally the backstore) holds the gate open, so it cannot be rebuilt or removed.
 * - severed: as in-use, and its table is the error table of a fence: nothing passes, what holds it has to be removed.
 * - backing: the device beneath is not there or too small.
 * - absent: the operation needs a gate and there is none.
 * - timeout: the deadline has passed; what was begun goes on in the kernel, and a retry joins it.
 * - cut-short: gates were resumed by the guard while the action under suspension still ran.
 * - failed: dmsetup answered OK and the device is still not as it should be.
 */
export type GateErrorReason =
  | 'foreign'
  | 'in-use'
  | 'severed'
  | 'backing'
  | 'absent'
  | 'timeout'
  | 'cut-short'
  | 'failed';

export class GateError extends Error {
  override readonly name: string = 'GateError';
  readonly reason: GateErrorReason;

  constructor(reason: GateErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}

/** The deadline has passed; the operation goes on in the kernel and a retry joins it. Never a success. */
export class GateTimeoutError extends GateError {
  override readonly name = 'GateTimeoutError';

  constructor(message: string) {
    super('timeout', message);
  }
}
