/**
 * What went wrong with a target:
 * - invalid: the spec contradicts itself or holds a value that the kernel would misread.
 * - foreign: not under our IQN prefix, not a volume's name, or backed by another device than ours; never touched.
 * - conflict: the backstore has another device or serial than wanted while sessions are live.
 * - device: the block device to export is not there.
 * - portal: the kernel does not listen there, most often because something else does.
 * - kernel: LIO answered OK and the object is still not as it should be, or LIO is not loaded.
 * - timeout: see TargetTimeoutError.
 */
export type TargetErrorReason = 'invalid' | 'foreign' | 'conflict' | 'device' | 'portal' | 'kernel' | 'timeout';

export class TargetError extends Error {
  override readonly name: string = 'TargetError';
  readonly reason: TargetErrorReason;

  constructor(reason: TargetErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}

/**
 * The deadline has passed while the kernel still waits, normally for I/O that the disk below does not answer. Never a
 * success: what was begun may still end by itself, and a retry goes on where it stopped.
 */
export class TargetTimeoutError extends TargetError {
  override readonly name = 'TargetTimeoutError';

  constructor(message: string, options?: { cause?: unknown }) {
    super('timeout', message, options);
  }
}
