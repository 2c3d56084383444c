/**
 * Standard input and output of a command that must outlive us. Pipes would end with us: the command would read half of
 * its input, or die of SIGPIPE at its next line of output, perhaps with device-mapper devices suspended. Files that
 * are unlinked at once leave nothing behind, whoever dies first.
 */
import { randomUUID } from 'node:crypto';
import { type FileHandle, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';

export interface CapturedText {
  readonly text: string;
  readonly truncated: boolean;
}

export class OutputFiles {
  readonly stdin: FileHandle | undefined;
  readonly stdout: FileHandle;
  readonly stderr: FileHandle;

  private constructor(stdin: FileHandle | undefined, stdout: FileHandle, stderr: FileHandle) {
    this.stdin = stdin;
    this.stdout = stdout;
    this.stderr = stderr;
  }

  /** `folder` should be on a tmpfs (the run folder); it is made when absent. */
  static async create(folder: string, input: string | undefined): Promise<OutputFiles> {
    await mkdir(folder, { recursive: true, mode: 0o755 });
    const stdout = await openUnlinked(folder, undefined);
    const stderr = await openUnlinked(folder, undefined);
    return new OutputFiles(input === undefined ? undefined : await openUnlinked(folder, input), stdout, stderr);
  }

  async close(): Promise<void> {
    await Promise.all([this.stdin?.close(), this.stdout.close(), this.stderr.close()]);
  }
}

/** What has been written so far, at most limitBytes of it. */
export async function readCaptured(file: FileHandle, limitBytes: number): Promise<CapturedText> {
  const { size } = await file.stat();
  const bytes = Buffer.alloc(Math.min(size, limitBytes));
  // The file offset is shared with the command, which may have left a daemon that still writes: read by position.
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  return { text: bytes.toString('utf8', 0, bytesRead), truncated: size > limitBytes };
}

async function openUnlinked(folder: string, content: string | undefined): Promise<FileHandle> {
  const path = join(folder, `.command-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    if (content === undefined) return file;
    await file.writeFile(content);
    const forReading = await open(path, 'r');
    await file.close();
    return forReading;
  } finally {
    await unlink(path);
  }
}
