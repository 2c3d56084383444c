/** A fake: `Commands` that knows just enough of `lvm` for the adapter's order and error paths. */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { CommandError, type CommandRequest, type CommandResult, type Commands } from '../../../src/system/commands.ts';
import type { FileOptions, FileStat } from '../../../src/system/files.ts';
import { lvReport, type ReportedLv, vgRow } from './recorded.ts';

const EXTENT_BYTES = 4096;

/** The real helper, but what stands for an LV's device node counts as one: only root could make a real one. */
export class FakeNodes extends BlockingFiles {
  override async stat(path: string, options?: FileOptions): Promise<FileStat | undefined> {
    const stat = await super.stat(path, options);
    return stat !== undefined && path.includes('/dev/vg/') ? { ...stat, kind: 'block' } : stat;
  }
}

export class FakeLvm implements Commands {
  readonly requests: CommandRequest[] = [];
  /** LVs that lvremove does not select. */
  readonly passOver = new Set<string>();
  makesNodes = true;
  missing = false;
  nextReport: string | undefined;
  /** Of `lvs`, from now on. */
  report: string | undefined;
  /** As after vgexport. */
  exported = false;
  readonly #root: string;
  readonly #vgName: string;
  readonly #lvs = new Map<string, ReportedLv>();
  #vgTags: string[] = [];
  readonly #pvs: { path: string; number: string | undefined; uuid: string }[] = [
    { path: '/dev/vdb', number: '254:16', uuid: 'pv-0' },
  ];
  /** What the environment's filter, as it was last written, lets through. */
  #visible: readonly string[] = [];
  readonly #running = new Map<string, number>();
  readonly #most = new Map<string, number>();
  readonly #failures = new Map<string, string>();
  #lastUuid = 0;

  constructor(root: string, vgName: string) {
    this.#root = root;
    this.#vgName = vgName;
    mkdirSync(join(root, 'dev', vgName), { recursive: true });
    for (const [index, name] of ['vda', 'vdb', 'vdc'].entries()) {
      const folder = join(root, 'sys/devices', name);
      mkdirSync(folder, { recursive: true });
      mkdirSync(join(root, 'sys/block'), { recursive: true });
      writeFileSync(join(folder, 'dev'), `254:${index * 16}\n`);
      writeFileSync(join(folder, 'size'), '2048\n');
      symlinkSync(folder, join(root, 'sys/block', name));
    }
  }

  failNext(subcommand: string, stderr: string): void {
    this.#failures.set(subcommand, stderr);
  }

  /** vgextend by hand; without a number the device is not there. */
  addPv(path: string, number: string | undefined): void {
    this.#pvs.push({ path, number, uuid: `pv-${this.#pvs.length}` });
  }

  subcommands(): string[] {
    return this.requests.map((request) => request.args[0] ?? '');
  }

  mostAtOnce(kind: string): number {
    return this.#most.get(kind) ?? 0;
  }

  async run(request: CommandRequest): Promise<CommandResult> {
    this.requests.push(request);
    const now = (this.#running.get(request.kind) ?? 0) + 1;
    this.#running.set(request.kind, now);
    this.#most.set(request.kind, Math.max(now, this.mostAtOnce(request.kind)));
    try {
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (this.missing)
        throw new CommandError({ command: 'lvm', shortMessage: 'no lvm', missing: true, durationMs: 1 });
      return { command: `lvm ${request.args.join(' ')}`, exitCode: 0, ...this.#answer(request), durationMs: 2 };
    } finally {
      this.#running.set(request.kind, now - 1);
    }
  }

  #answer({ args, env }: CommandRequest): { stdout: string; stderr: string } {
    const [subcommand = ''] = args;
    const failure = this.#failures.get(subcommand);
    this.#failures.delete(subcommand);
    if (failure !== undefined) throw failed(failure);
    const names = args.filter((arg) => arg.startsWith(`${this.#vgName}/`)).map((arg) => arg.split('/')[1] ?? '');
    const isScan = env?.['LVM_SYSTEM_DIR']?.endsWith('/scan') === true;
    switch (subcommand) {
      case 'lvmconfig':
        return answer('devices {\n\tglobal_filter=["r|^/dev/drbd|"]\n}\nglobal {\n}\n');
      case '--':
        // sync(1).
        return answer('');
      case 'vgs':
        if (isScan) return answer(this.#pvReport());
        return answer(JSON.stringify({ report: [{ vg: [this.#vgRow()] }] }));
      case 'lvs': {
        if (this.exported) throw failed(`  Volume group "${this.#vgName}" is exported`);
        const report = this.nextReport ?? this.report ?? lvReport(this.#vgRow(), [...this.#lvs.values()]);
        this.nextReport = undefined;
        return answer(report);
      }
      default:
        return answer(this.#mutate(subcommand, args, names));
    }
  }

  #mutate(subcommand: string, args: readonly string[], names: readonly string[]): string {
    if (this.exported) throw failed(`  Volume group "${this.#vgName}" is exported`);
    const guarded = args.some((arg) => arg.includes('vg_missing_pv_count=0'));
    if (this.#missingPvs() > 0) {
      if (guarded) return '';
      throw failed(`  Cannot change VG ${this.#vgName} while PVs are missing.`);
    }
    const [name = ''] = names;
    switch (subcommand) {
      case 'lvcreate':
        return this.#create(args);
      case 'lvchange': {
        const lv = this.#lvs.get(name);
        if (lv === undefined) throw failed(`  Failed to find logical volume "${this.#vgName}/${name}"`);
        this.#lvs.set(name, { ...lv, tags: changed(lv.tags, args) });
        return `  Logical volume ${this.#vgName}/${name} changed.\n`;
      }
      case 'vgchange':
        this.#vgTags = changed(this.#vgTags, args);
        return `  Volume group "${this.#vgName}" successfully changed\n`;
      case 'lvrename': {
        const [from = '', to = ''] = args.slice(2);
        const lv = this.#lvs.get(from);
        if (lv === undefined) throw failed(`  Existing logical volume "${from}" not found in volume group "vg"`);
        this.#lvs.delete(from);
        this.#lvs.set(to, { ...lv, name: to });
        return '';
      }
      case 'lvremove':
        return this.#remove(names);
      default:
        return '';
    }
  }

  #create(args: readonly string[]): string {
    const name = args[args.indexOf('--name') + 1] ?? '';
    const sizeBytes = Number.parseInt(args[args.indexOf('--size') + 1] ?? '', 10);
    this.#lastUuid += 1;
    const size = Math.ceil(sizeBytes / EXTENT_BYTES) * EXTENT_BYTES;
    this.#lvs.set(name, { name, uuid: `lv-${this.#lastUuid}`, sizeBytes: size, tags: changed([], args) });
    const node = join(this.#root, 'dev', this.#vgName, name);
    if (this.makesNodes) writeFileSync(node, '');
    else rmSync(node, { force: true });
    return `  Logical volume "${name}" created.\n`;
  }

  #remove(names: readonly string[]): string {
    let stdout = '';
    const absent = names.filter((name) => !this.#lvs.has(name));
    for (const name of names) {
      if (this.passOver.has(name) || !this.#lvs.delete(name)) continue;
      stdout += `  Logical volume "${name}" successfully removed.\n`;
    }
    if (absent.length > 0)
      throw failed(absent.map((name) => `  Failed to find logical volume "vg/${name}"`).join('\n'));
    return stdout;
  }

  /** A scan sees every device there is; afterwards the written filter does. */
  #pvReport(): string {
    this.#visible = this.#pvs.filter((pv) => pv.number !== undefined).map((pv) => pv.path);
    const rows = this.#pvs.map(({ path, number, uuid }) => {
      const [major = '', minor = ''] = number?.split(':') ?? [];
      return {
        vg_name: this.#vgName,
        vg_uuid: 'vg-uuid',
        pv_uuid: uuid,
        pv_name: number === undefined ? '[unknown]' : path,
        pv_major: major,
        pv_minor: minor,
      };
    });
    return JSON.stringify({ report: [{ pv: rows }] });
  }

  #missingPvs(): number {
    return this.#pvs.filter((pv) => !this.#visible.includes(pv.path)).length;
  }

  #vgRow(): Record<string, string> {
    return vgRow({
      exported: this.exported,
      name: this.#vgName,
      tags: this.#vgTags,
      missing: this.#missingPvs(),
      pvCount: this.#pvs.length,
      lvCount: this.#lvs.size,
    });
  }
}

function answer(stdout: string): { stdout: string; stderr: string } {
  return { stdout, stderr: '' };
}

function failed(stderr: string): CommandError {
  return new CommandError({ command: 'lvm', shortMessage: 'lvm failed', exitCode: 5, stderr, durationMs: 1 });
}

function changed(tags: readonly string[], args: readonly string[]): string[] {
  const result = new Set(tags);
  for (const [index, arg] of args.entries()) {
    const tag = args[index + 1] ?? '';
    if (arg === '--addtag') result.add(tag);
    if (arg === '--deltag') result.delete(tag);
  }
  return [...result];
}
