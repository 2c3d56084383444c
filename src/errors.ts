/**
 * The one error type that carries a meaning for the client. Adapters throw their own errors (CommandError, LvmError…);
 * the operation that knows what they mean for the volume turns them into a DriverError; `src/csi/status.ts` turns that
 * into a gRPC status, in exactly one place. Anything else that reaches the wire is a bug and becomes INTERNAL.
 */

/** Names of the gRPC codes that the driver answers with (CSI specification, "Error Scheme"). */
export type ErrorCode =
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED';

/** What an administrator needs at 3 a.m.: what was wrong, what was found, what to do. No secrets, no LVM stderr. */
export interface ErrorText {
  /** What could not be done, and for which object. */
  readonly problem: string;
  /** What was seen instead of what was needed. */
  readonly found?: string;
  /** What the reader can do about it. */
  readonly action?: string;
}

/** An error whose code and message may reach the CSI client; the cause stays in the log. */
export class DriverError extends Error {
  override readonly name = 'DriverError';
  readonly code: ErrorCode;
  /** The message in its parts. */
  readonly text: ErrorText;

  constructor(code: ErrorCode, text: ErrorText | string, options?: { cause?: unknown }) {
    const parts = typeof text === 'string' ? { problem: text } : text;
    super(joinText(parts), options);
    this.code = code;
    this.text = parts;
  }
}

export function joinText(text: ErrorText): string {
  let message = text.problem;
  if (text.found !== undefined) message += `; found: ${text.found}`;
  if (text.action !== undefined) message += `; to do: ${text.action}`;
  return message;
}
