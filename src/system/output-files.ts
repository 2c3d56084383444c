/**
 * Standard input and output of a command that must outlive us. Pipes would end with us: the command would read half of
 * its input, or die of SIGPIPE at its next line of output, perhaps with device-mapper devices suspended. Files without
 * a name leave nothing behind, whoever dies first.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';

/** Node has no name for it; the value is that of every architecture but alpha, parisc and sparc. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

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
    const stdout = await openNameless(folder, undefined);
    const stderr = await openNameless(folder, undefined);
    return new OutputFiles(input === undefined ? undefined : await openNameless(folder, input), stdout, stderr);
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

/** Without a name from the first moment on: a death between two steps can't leave it in the folder. open(2), O_TMPFILE */
async function openNameless(folder: string, content: string | undefined): Promise<FileHandle> {
  const file = await open(folder, O_TMPFILE | constants.O_RDWR, 0o600);
  if (content === undefined) return file;
  try {
    await file.writeFile(content);
    // With an offset of its own, at the start.
    return await open(`/proc/self/fd/${file.fd}`, 'r');
  } finally {
    await file.close();
  }
}
