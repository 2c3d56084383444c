import { mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { Metrics } from '../../../src/observability/metrics.ts';
import { startBackend } from '../../../src/roles/controller-backend.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { CommandError, type CommandRequest, type CommandResult } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { removeFolder, temporaryFolder, until } from '../system/support.ts';
import { FakeHost } from '../volumes/fake-host.ts';

describe('the lock of the volume group', () => {
  const folder = temporaryFolder();
  const files = new BlockingFiles();
  const host = { mode: 'direct' } as const;
  after(async () => {
    await files.close();
    removeFolder(folder);
  });

  for (const draining of [false, true]) {
    it(`ends the process at once when it is lost${draining ? ', also in a drain' : ''}`, async () => {
      const runDir = join(folder, String(draining));
      const commands = new HostCommands({ host, owner: 'test', outputFolder: join(runDir, 'output') });
      const config = {
        driverName: 'test',
        endpoint: 'unix:///nowhere',
        tcpEndpoint: undefined,
        logLevel: 'error',
        metricsEndpoint: undefined,
        hostCommands: 'direct',
        hostRoot: join(folder, 'root'),
        stateDir: join(folder, 'state'),
        runDir,
        slowCallMs: 1000,
        drainTimeoutMs: 1000,
        controller: new FakeHost().config,
      } as const;
      const stopping = new AbortController();
      const ends: string[] = [];
      const { close } = startBackend(config, {
        host,
        // The host has no LVM here: the controller waits for its volume group.
        commands: Object.assign(commands, { run: () => Promise.reject(new Error('nothing is run')) }),
        files,
        metrics: new Metrics('controller', 'test'),
        stopping: stopping.signal,
        fail: (reason) => ends.push(`drain: ${reason}`),
        die: (reason) => ends.push(reason),
      });
      const lockFile = join(runDir, 'controller-cinder-volumes.lock');
      await until('the lock is held', () => keepersOf(lockFile).length > 0 && written(lockFile));
      if (draining) stopping.abort();
      for (const pid of keepersOf(lockFile)) process.kill(pid, 'SIGKILL');
      await until('it ends', () => ends.length > 0);
      expect(ends).to.have.length(1);
      expect(ends[0]).to.match(/^the lock of volume group "cinder-volumes" was lost/);
      await close();
      expect(ends).to.have.length(1);
    });
  }
});

describe('the start of the controller', () => {
  const folder = temporaryFolder();
  const files = new BlockingFiles();
  after(async () => {
    await files.close();
    removeFolder(folder);
  });

  it('makes the CHAP key where an absolute symlink of the host leads; Probe names missing programs', async () => {
    const hostRoot = join(folder, 'root');
    mkdirSync(join(hostRoot, 'etc'), { recursive: true });
    mkdirSync(join(hostRoot, 'data/secrets'), { recursive: true });
    symlinkSync('/data/secrets', join(hostRoot, 'etc/lvm-iscsi-csi'));
    const config = {
      driverName: 'test',
      endpoint: 'unix:///nowhere',
      tcpEndpoint: undefined,
      logLevel: 'error',
      metricsEndpoint: undefined,
      hostCommands: 'direct',
      hostRoot,
      stateDir: '/state',
      runDir: join(folder, 'run'),
      slowCallMs: 1000,
      drainTimeoutMs: 1000,
      controller: { ...new FakeHost().config, chap: 'on', chapKeyFile: '/etc/lvm-iscsi-csi/chap.key' },
    } as const;
    const host = { mode: 'direct' } as const;
    const commands = new HostCommands({ host, owner: 'test', outputFolder: join(folder, 'output') });
    const run = async ({ file, args }: CommandRequest): Promise<CommandResult> => {
      if (file !== 'sh') throw new CommandError({ command: file, shortMessage: `${file} is not run`, durationMs: 1 });
      const stdout = args.includes('mkfs.xfs') ? 'mkfs.xfs\ncomplete\n' : 'complete\n';
      return { command: file, exitCode: 0, stdout, stderr: '', durationMs: 1 };
    };
    const { backend, close } = startBackend(config, {
      host,
      commands: Object.assign(commands, { run, holding: () => commands }),
      files,
      metrics: new Metrics('controller', 'test'),
      stopping: new AbortController().signal,
      fail: (reason) => expect.fail(reason),
      die: (reason) => expect.fail(reason),
    });
    try {
      await until('the key is made', () => written(join(hostRoot, 'data/secrets/chap.key')));
      // Until it has begun to serve it says what it waits for.
      let reasons: readonly string[] = [];
      for (let looks = 0; looks < 200 && !reasons.some((reason) => reason.includes('mkfs')); looks += 1) {
        await delay(20);
        ({ reasons } = await backend.probe());
      }
      expect(reasons).to.include('mkfs.xfs is not installed on the storage host; to do: install the package xfsprogs');
    } finally {
      await close();
      await commands.close();
    }
  });
});

function written(path: string): boolean {
  try {
    return readFileSync(path, 'utf8') !== '';
  } catch {
    return false;
  }
}

/** Processes with the lock file in their arguments. */
function keepersOf(path: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(path);
      } catch {
        return false;
      }
    })
    .map(Number);
}
