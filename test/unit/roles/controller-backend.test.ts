import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { Metrics } from '../../../src/observability/metrics.ts';
import { startBackend } from '../../../src/roles/controller-backend.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
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
