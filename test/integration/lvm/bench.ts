/** What the scenarios stand on: the driver's own command runner and file helper, a VG, and a shell for the other side. */
import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { promisify } from 'node:util';
import { LvmError, type LvmErrorKind } from '../../../src/lvm/types.ts';
import { VgLvm, type VgLvmOptions } from '../../../src/lvm/vg-lvm.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import type { CommandRequest, CommandResult, Commands } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';

export const MIB = 1024 ** 2;
export const VG = 'test-vg';
const RUN = '/run/lvm-adapter-test';

export type Scenario = (bench: Bench) => Promise<void>;

/** Counts what is run. */
export class CountingCommands implements Commands {
  readonly requests: CommandRequest[] = [];
  readonly inner: Commands;

  constructor(inner: Commands) {
    this.inner = inner;
  }

  run(request: CommandRequest): Promise<CommandResult> {
    this.requests.push(request);
    return this.inner.run(request);
  }

  /** Subcommands of lvm since the last call. */
  take(): string[] {
    return this.requests.splice(0).map(({ file, args }) => (file === 'lvm' ? (args[0] ?? '') : file));
  }
}

export class Bench {
  readonly disks: readonly string[];
  readonly files = new BlockingFiles();
  readonly commands: CountingCommands;
  readonly #host: HostCommands;

  constructor(disks: readonly string[]) {
    this.disks = disks;
    this.#host = new HostCommands({ host: { mode: 'direct' }, owner: 'test', outputFolder: '/dev/shm' });
    this.commands = new CountingCommands(this.#host);
  }

  /** The adapter, as a driver that has just started has it. */
  lvm(options: Partial<VgLvmOptions> = {}): VgLvm {
    return new VgLvm({
      commands: this.commands,
      files: this.files,
      vgName: VG,
      runDir: RUN,
      hostRoot: '',
      ...options,
    });
  }

  /** The n-th disk's path. */
  disk(index: number): string {
    return this.disks[index] ?? assert.fail(`no disk ${index}`);
  }

  /** As an administrator: bash, with the host's own LVM configuration. */
  async sh(script: string): Promise<string> {
    const { stdout } = await promisify(execFile)('bash', ['--norc', '-euo', 'pipefail', '-c', script], {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', LVM_SUPPRESS_FD_WARNINGS: '1' },
      maxBuffer: 64 * MIB,
    });
    return stdout.trim();
  }

  async vgcreate(options = '--metadatasize 16m', disks: readonly string[] = this.disks.slice(0, 1)): Promise<void> {
    await this.sh(`vgcreate -qq -y ${options} ${VG} ${disks.join(' ')}`);
  }

  /** No VG, no PV, no environment of an earlier scenario. */
  async clean(): Promise<void> {
    await this.sh(
      `dms() { dmsetup ls 2>/dev/null | awk -v p="^$1-" '$1 ~ p {print $1}'; }
       for d in pv-above $(dms gate); do if dmsetup info $d >/dev/null 2>&1; then dmsetup resume $d; fi; done
       for d in pv-above $(dms gate); do if dmsetup info $d >/dev/null 2>&1; then dmsetup remove $d; fi; done
       if vgs ${VG} >/dev/null 2>&1; then vgreduce -qq --removemissing --force ${VG}; vgremove -qq -ff -y ${VG}; fi
       for d in $(dms pv); do dmsetup remove $d; done
       for d in ${this.disks.join(' ')}; do pvs $d >/dev/null 2>&1 && pvremove -qq -ff -y $d; wipefs -qa $d; done
       udevadm settle; rm -rf ${RUN}`,
    );
  }

  async close(): Promise<void> {
    await this.files.close();
    await this.#host.close();
  }
}

/** The action must fail with this kind of LvmError. */
export async function fails(kind: LvmErrorKind, action: Promise<unknown>): Promise<LvmError> {
  try {
    await action;
  } catch (error) {
    assert.ok(error instanceof LvmError, `not an LvmError: ${String(error)}`);
    assert.equal(error.kind, kind, error.message);
    return error;
  }
  return assert.fail(`it should have failed with ${kind}`);
}

/** Milliseconds that the action took. */
export async function timed<T>(label: string, action: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await action();
  console.log(`  ${Math.round(performance.now() - startedAt)} ms: ${label}`);
  return result;
}

/** The MiBs of the device that are not all zeros, read from the disk and not from the page cache. */
export async function nonZeroMib(bench: Bench, path: string): Promise<number[]> {
  await bench.sh(`sync; blockdev --flushbufs ${path}`);
  const zero = Buffer.alloc(MIB);
  const found: number[] = [];
  let index = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) {
    const data = chunk as Buffer;
    if (data.compare(zero, 0, data.length) !== 0) found.push(index);
    index += 1;
  }
  return found;
}
