/** FAKES for zeroing, wiping and scrubbing: a VG in memory, and commands that only take note. The real ones: test/integration/lvm. */
import type { ExtentRange } from '../../../src/lvm/extents.ts';
import type { LogicalVolume, Lvm, LvmError, TagChange, VgReport } from '../../../src/lvm/types.ts';
import { CommandError, type CommandRequest, type CommandResult, type Commands } from '../../../src/system/commands.ts';
import { sampleLv } from './sample-lv.ts';

export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;

/** Fake: takes note, and answers as `answer` says. */
export class FakeZeroing implements Commands {
  readonly lines: string[] = [];
  readonly programs: (string | undefined)[] = [];
  answer: (line: string, request: CommandRequest) => number | CommandError = () => 0;

  async run(request: CommandRequest): Promise<CommandResult> {
    const line = [request.file, ...request.args]
      .join(' ')
      .replace(/^flock --nonblock --conflict-exit-code 75 (\S+) /, '');
    this.lines.push(line);
    this.programs.push(request.program);
    await new Promise((resolve) => setImmediate(resolve));
    const answer = this.answer(line, request);
    if (typeof answer !== 'number') throw answer;
    return { command: line, exitCode: answer, stdout: '', stderr: '', durationMs: 1 };
  }
}

export function failure(exitCode: number, stderr: string): CommandError {
  return new CommandError({ command: 'x', shortMessage: `exit code ${exitCode}`, exitCode, stderr, durationMs: 1 });
}

/** Fake: a VG in memory. */
export class FakeVg implements Lvm {
  readonly vgName = 'vg';
  lvs: LogicalVolume[] = [];
  tags: string[] = [];
  spaceId: string | undefined = 'a'.repeat(32);
  totalBytes = 10 * GIB;
  readonly removed: string[] = [];
  failRemove: LvmError | undefined;
  #lastUuid = 0;
  #nextExtent = 0;

  add(name: string, sizeBytes: number, tags: readonly string[], more: Partial<LogicalVolume> = {}): LogicalVolume {
    this.#lastUuid += 1;
    const lv = sampleLv({
      name,
      uuid: `uuid-${this.#lastUuid}`,
      sizeBytes,
      tags,
      extents: [this.#place(sizeBytes)],
      ...more,
    });
    this.lvs.push(lv);
    return lv;
  }

  /** As pvmove: to extents that nobody else has. */
  move(name: string): void {
    this.lvs = this.lvs.map((lv) => (lv.name === name ? { ...lv, extents: [this.#place(lv.sizeBytes)] } : lv));
  }

  #place(sizeBytes: number): ExtentRange {
    const first = this.#nextExtent;
    this.#nextExtent += Math.ceil(sizeBytes / (4 * MIB));
    return { place: '/dev/vdb', first, last: this.#nextExtent - 1 };
  }

  async read(): Promise<VgReport> {
    const usedBytes = this.lvs.reduce((sum, lv) => sum + lv.sizeBytes, 0);
    return {
      vg: {
        name: 'vg',
        uuid: 'u',
        sizeBytes: this.totalBytes,
        freeBytes: this.totalBytes - usedBytes,
        extentSizeBytes: 4 * MIB,
        metadataSizeBytes: MIB,
        metadataFreeBytes: MIB,
        tags: [...this.tags],
        missingPvCount: this.spaceId === undefined ? 1 : 0,
        exported: false,
        spaceId: this.spaceId,
      },
      lvs: [...this.lvs],
    };
  }

  async createLinear(spec: { name: string; sizeBytes: number; tags: readonly string[] }): Promise<void> {
    this.add(spec.name, spec.sizeBytes, spec.tags);
  }

  async changeTags(name: string, change: TagChange): Promise<void> {
    this.lvs = this.lvs.map((lv) => (lv.name === name ? { ...lv, tags: applied(lv.tags, change) } : lv));
  }

  async changeVgTags(change: TagChange): Promise<void> {
    this.tags = applied(this.tags, change);
  }

  async remove(names: readonly string[]): Promise<void> {
    if (this.failRemove !== undefined) throw this.failRemove;
    this.removed.push(names.join('+'));
    this.lvs = this.lvs.filter((lv) => !names.includes(lv.name));
  }

  async activate(names: readonly string[]): Promise<void> {
    this.lvs = this.lvs.map((lv) => (names.includes(lv.name) ? { ...lv, active: true } : lv));
  }

  async rename(): Promise<void> {}
  async extend(): Promise<void> {}
  async deactivate(): Promise<void> {}
}

function applied(tags: readonly string[], { add = [], remove = [] }: TagChange): string[] {
  return [...new Set([...tags.filter((tag) => !remove.includes(tag)), ...add])];
}
