/** The one error of the file-system adapters; knows nothing of CSI, the operation that catches it decides what it means. */

export type FileSystemErrorKind =
  /** In use: target is busy, a process or another mount holds it. */
  | 'busy'
  /** Something else is there than what is wanted; nothing was changed. */
  | 'conflict'
  /** Damage that an automatic check does not repair. */
  | 'needs-repair'
  | 'too-small'
  /** A program is not installed. */
  | 'tool-missing'
  /** The device answers with errors or not at all. */
  | 'io'
  | 'other';

export class FileSystemError extends Error {
  override readonly name = 'FileSystemError';
  readonly kind: FileSystemErrorKind;

  /** The message is safe for the client: no output of programs; that is in the cause, for the log. */
  constructor(kind: FileSystemErrorKind, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.kind = kind;
  }
}
