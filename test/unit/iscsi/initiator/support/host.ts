/** A host's root in a temporary folder: real files through the real `Files`, with scripted programs. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { BlockingFiles } from '../../../../../src/system/blocking-files.ts';
import {
  CommandError,
  type CommandRequest,
  type CommandResult,
  type Commands,
} from '../../../../../src/system/commands.ts';

export interface Scripted {
  readonly exitCode?: number;
  readonly stdout?: string;
  readonly stderr?: string;
  readonly missing?: boolean;
  readonly timedOut?: boolean;
}

/** A stand-in for iscsiadm and the like: what it answers, and what it changes on the host, is the test's. */
export class ScriptedCommands implements Commands {
  readonly lines: string[] = [];
  script: (line: string) => Promise<Scripted> | Scripted = () => ({});

  async run(request: CommandRequest): Promise<CommandResult> {
    const command = [request.file, ...request.args].join(' ');
    this.lines.push(command);
    const { exitCode = 0, stdout = '', stderr = '', missing, timedOut } = await this.script(command);
    const result = { command, exitCode, stdout, stderr, durationMs: 1 };
    if (missing === true || timedOut === true || exitCode !== 0) {
      throw new CommandError({
        ...result,
        shortMessage: `${request.file} failed`,
        exitCode: missing === true || timedOut === true ? undefined : exitCode,
        missing: missing ?? false,
        timedOut: timedOut ?? false,
      });
    }
    return result;
  }
}

export interface SessionSample {
  readonly sid: number;
  readonly host: number;
  readonly targetIqn: string;
  readonly state?: string;
  readonly username?: string;
  readonly password?: string;
  readonly address?: string;
  readonly port?: number;
  /** Half-made or half-gone: there is no connection. */
  readonly connection?: boolean;
}

/** One helper process for all tests: starting one for each is what would take the time. */
const FILES = new BlockingFiles();

export class FakeHost {
  readonly root: string;
  readonly files = FILES;
  readonly commands = new ScriptedCommands();

  private constructor(root: string) {
    this.root = root;
  }

  static async make(): Promise<FakeHost> {
    const host = new FakeHost(await mkdtemp(path.join(tmpdir(), 'initiator-')));
    await host.process(process.pid, 4711);
    return host;
  }

  async remove(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }

  path(relative: string): string {
    return path.join(this.root, relative);
  }

  async write(relative: string, content: string | Uint8Array): Promise<void> {
    await mkdir(path.dirname(this.path(relative)), { recursive: true });
    await writeFile(this.path(relative), content);
  }

  /** /proc/PID/stat; the shape is that of Linux 6.1, the command's name as nasty as it may be. */
  async process(pid: number, startTime: number): Promise<void> {
    const before = 'S 1 1 1 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 11 0';
    await this.write(`proc/${pid}/stat`, `${pid} (node) S (x) ${before} ${startTime} 1 2 3\n`);
  }

  /** A session with links and attributes as sysfs of Linux 6.1 has them. */
  async session(sample: SessionSample): Promise<void> {
    const { sid, host } = sample;
    const device = `sys/devices/platform/host${host}/session${sid}`;
    const session = `${device}/iscsi_session/session${sid}`;
    const attributes = {
      targetname: sample.targetIqn,
      state: sample.state ?? 'LOGGED_IN',
      initiatorname: 'iqn.1993-08.org.debian:01:lab-node-1',
      username: sample.username ?? '(null)',
      password: sample.password ?? '(null)',
      username_in: '(null)',
      password_in: '(null)',
      target_id: '0',
    };
    for (const [name, value] of Object.entries(attributes)) await this.write(`${session}/${name}`, `${value}\n`);
    await symlink(`../../../session${sid}`, this.path(`${session}/device`));
    await mkdir(this.path('sys/class/iscsi_session'), { recursive: true });
    await symlink(
      `../../devices/platform/host${host}/session${sid}/iscsi_session/session${sid}`,
      this.path(`sys/class/iscsi_session/session${sid}`),
    );
    await this.write(`sys/class/scsi_host/host${host}/scan`, '');
    if (sample.connection === false) return;
    const connection = `sys/class/iscsi_connection/connection${sid}:0`;
    await this.write(`${connection}/persistent_address`, `${sample.address ?? '10.77.0.10'}\n`);
    await this.write(`${connection}/persistent_port`, `${sample.port ?? 3260}\n`);
  }

  async endSession(sid: number): Promise<void> {
    await rm(this.path(`sys/class/iscsi_session/session${sid}`), { force: true });
    await rm(this.path(`sys/class/iscsi_connection/connection${sid}:0`), { recursive: true, force: true });
  }

  /** LUN 0 of a session as disk `name`; /dev has no node for it (mknod needs privileges). */
  async disk(sample: { sid: number; host: number; name: string; page: Uint8Array; sectors: number }): Promise<void> {
    const { sid, host, name } = sample;
    const unit = `sys/devices/platform/host${host}/session${sid}/target${host}:0:0/${host}:0:0:0`;
    await this.write(`${unit}/wwid`, 'naa.60014052b0d59c7031769e80c8e5118b\n');
    await this.write(`${unit}/vpd_pg80`, sample.page);
    await this.write(`${unit}/delete`, '');
    await this.write(`${unit}/rescan`, '');
    const block = `${unit}/block/${name}`;
    await this.write(`${block}/dev`, '8:0\n');
    await this.write(`${block}/size`, `${sample.sectors}\n`);
    await this.write(`${block}/ro`, '0\n');
    await mkdir(this.path(`${block}/holders`));
    await symlink(`../../../${host}:0:0:0`, this.path(`${block}/device`));
    await mkdir(this.path('sys/block'), { recursive: true });
    await symlink(
      `../devices/platform/host${host}/session${sid}/target${host}:0:0/${host}:0:0:0/block/${name}`,
      this.path(`sys/block/${name}`),
    );
  }
}
