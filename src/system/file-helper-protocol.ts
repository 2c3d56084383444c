/** What the driver and its file helper say to each other over the IPC channel (structured clone: bytes stay bytes). */
import type { BatchAnswer, BatchCall, FileStat, FileSystemStat } from './files.ts';

/** First argument of the program that makes it the file helper. Not for users. */
export const FILE_HELPER_COMMAND = 'internal-file-helper';

export type FileRequest =
  | { readonly operation: 'readText'; readonly path: string }
  | { readonly operation: 'readBytes'; readonly path: string; readonly offset: number; readonly length: number }
  | { readonly operation: 'writeAttribute'; readonly path: string; readonly text: string }
  | { readonly operation: 'writeDurably'; readonly path: string; readonly text: string; readonly mode: number }
  | { readonly operation: 'createExclusive'; readonly path: string; readonly mode: number }
  | { readonly operation: 'openExclusively'; readonly path: string }
  | {
      readonly operation: 'mkdir';
      readonly path: string;
      readonly mode: number | undefined;
      readonly recursive: boolean;
    }
  | { readonly operation: 'rmdir'; readonly path: string }
  | { readonly operation: 'unlink'; readonly path: string }
  | { readonly operation: 'symlink'; readonly path: string; readonly target: string }
  | { readonly operation: 'link'; readonly path: string; readonly existingPath: string }
  | { readonly operation: 'readlink'; readonly path: string }
  | { readonly operation: 'realpath'; readonly path: string }
  | { readonly operation: 'readdir'; readonly path: string }
  | { readonly operation: 'stat'; readonly path: string }
  | { readonly operation: 'lstat'; readonly path: string }
  | { readonly operation: 'statfs'; readonly path: string }
  /** `path`: of the first call, for messages. */
  | { readonly operation: 'batch'; readonly path: string; readonly calls: readonly BatchCall[] };

export type FileAnswer = undefined | string | string[] | Uint8Array | FileStat | FileSystemStat | BatchAnswer[];

export type ToHelper =
  | { readonly kind: 'call'; readonly id: number; readonly request: FileRequest }
  /** The caller has given up: what has not been begun of this call must not be done any more. */
  | { readonly kind: 'cancel'; readonly id: number };

export interface WireError {
  readonly message: string;
  readonly code?: string;
  readonly errno?: number;
  readonly syscall?: string;
  readonly path?: string;
  readonly dest?: string;
}

export type FromHelper =
  /** The first thing it says: it runs, and calls are being made. */
  | { readonly ready: true }
  | { readonly id: number; readonly ok: true; readonly value: FileAnswer }
  | { readonly id: number; readonly ok: false; readonly error: WireError };
