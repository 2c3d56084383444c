/**
 * The one place where an error becomes a gRPC status. A DriverError's code and message reach the client; of anything
 * else (a bug, an adapter's error that nobody gave a meaning) only a request id does, and the cause stays in the log.
 * The status carries no details: the CSI specification says that `details` MUST be empty.
 */
import { status } from '@grpc/grpc-js';
import { DriverError, type ErrorCode, type ErrorText, joinText } from '../errors.ts';

/** A VolumeAttachment cannot store an error message above 1,024 bytes, and sidecars put words of their own around ours. */
export const MAX_MESSAGE_BYTES = 900;
const MIN_FOUND_BYTES = 80;

export interface WireStatus {
  /** gRPC's number. */
  readonly code: number;
  /** gRPC's name, for log and metrics. */
  readonly codeName: ErrorCode;
  /** At most MAX_MESSAGE_BYTES of UTF-8. */
  readonly message: string;
  /** False: the error has no meaning for the client and belongs into the log with its stack. */
  readonly expected: boolean;
}

export interface FailedCall {
  readonly method: string;
  readonly requestId: string;
  /**
   * The call makes something that a lost answer would leave behind. Sidecars and kubelet take INTERNAL for final and
   * forget such a volume, mount or session; UNAVAILABLE makes them come back, or undo it.
   */
  readonly mayLeaveState: boolean;
  /** Takes the call's secrets out of a text; before it is cut, so that no part of one is left at the end. */
  readonly scrub: (text: string) => string;
}

export function toStatus(error: unknown, call: FailedCall): WireStatus {
  if (error instanceof DriverError) {
    return wireStatus(error.code, fitting(error.text, call.scrub), true);
  }
  const reference = `the driver's log has the cause under request id ${call.requestId}`;
  return call.mayLeaveState
    ? wireStatus(
        'UNAVAILABLE',
        `${call.method} failed unexpectedly and its outcome is unknown; retry it; ${reference}`,
        false,
      )
    : wireStatus('INTERNAL', `${call.method} failed unexpectedly; ${reference}`, false);
}

function wireStatus(codeName: ErrorCode, message: string, expected: boolean): WireStatus {
  return { code: status[codeName], codeName, message: truncate(message), expected };
}

/** Where it is too long, what was found is shortened: what to do stands at the end, and is what the reader needs. */
function fitting(text: ErrorText, scrub: (text: string) => string): string {
  const whole = scrub(joinText(text));
  const excess = Buffer.byteLength(whole) - MAX_MESSAGE_BYTES;
  if (excess <= 0 || text.found === undefined) return whole;
  const found = scrub(text.found);
  const left = Math.max(MIN_FOUND_BYTES, Buffer.byteLength(found) - excess);
  return scrub(joinText({ ...text, found: truncate(found, left) }));
}

/** At most `maxBytes` of UTF-8, cut between characters and ended by an ellipsis. */
export function truncate(text: string, maxBytes: number = MAX_MESSAGE_BYTES): string {
  const bytes = Buffer.from(text.toWellFormed());
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes - Buffer.byteLength('…');
  // 10xxxxxx is the inside of a character (RFC 3629).
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return `${bytes.subarray(0, end).toString()}…`;
}
