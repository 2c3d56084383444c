import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { CommandError } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { acquireHostLock, describeHolder, type HostLock, type LockHolder } from '../../../src/system/host-lock.ts';
import { type Fixture, removeFolder, startFixture, temporaryFolder, until } from './support.ts';

for (const host of [{ mode: 'direct' }, { mode: 'nsenter', targetPid: process.pid }] as const) {
  describe(`host lock, ${host.mode}`, () => {
    const folder = temporaryFolder();
    const commands = new HostCommands({ host, owner: 'test', outputFolder: join(folder, 'run') });
    const me: LockHolder = {
      pid: process.pid,
      hostName: 'host-2',
      instance: "it's me",
      since: '2026-01-01T00:00:00.000Z',
    };
    let count = 0;
    let path = '';

    beforeEach(() => {
      count += 1;
      path = join(folder, `locks ${count}`, 'vg0.lock');
    });
    after(() => removeFolder(folder));

    const acquire = async (): Promise<HostLock> => await acquireHostLock(host, commands, path, me);

    async function startHolder(): Promise<Fixture> {
      const holder = startFixture('lock-holder', [path, join(folder, 'run')]);
      await until('the other holds the lock', () => holder.stdout() !== '' || holder.stderr() !== '');
      expect(holder.stdout(), holder.stderr()).to.equal('held\n');
      return holder;
    }

    async function acquireWhenFree(): Promise<void> {
      await until('the lock is free', async () => {
        const lock = await acquire();
        if (lock.held) await lock.release();
        return lock.held;
      });
    }

    it('is exclusive, names its holder, and is free again after release', async () => {
      const lock = await acquire();
      if (!lock.held) throw new Error('not held');
      const second = await acquire();
      expect(second).to.deep.equal({ held: false, holder: me });
      await lock.release();
      const third = await acquire();
      expect(third.held).to.equal(true);
      if (third.held) await third.release();
    });

    it('goes at once when its holder is killed', async () => {
      const holder = await startHolder();
      const refused = await acquire();
      if (refused.held) throw new Error('held twice');
      expect(describeHolder(refused.holder)).to.match(/^instance "holder-1" on host "host-1" \(PID [0-9]+, since /);
      holder.child.kill('SIGKILL');
      await holder.ended;
      const startedAt = Date.now();
      await acquireWhenFree();
      expect(Date.now() - startedAt).to.be.lessThan(1_000);
    });

    it('outlasts signals to the holder’s whole process group, which drains first', async () => {
      const holder = await startHolder();
      process.kill(-(holder.child.pid ?? 0), 'SIGTERM');
      await until('the holder got the signal', () => holder.stdout().includes('SIGTERM'));
      expect((await acquire()).held).to.equal(false);
      holder.child.stdin?.end();
      expect(await holder.ended).to.equal(0);
      await acquireWhenFree();
    });

    it('tells when it is lost', async () => {
      const lock = await acquire();
      if (!lock.held) throw new Error('not held');
      const keepers = keepersOf(path);
      expect(keepers).to.have.length.greaterThan(0);
      for (const pid of keepers) process.kill(pid, 'SIGKILL');
      expect(await lock.lost).to.match(/SIGKILL|exit code/);
    });

    it('a place that cannot be is an error, not "held by another"', async () => {
      path = '/proc/no-such-folder/vg0.lock';
      try {
        await acquire();
      } catch (error) {
        expect(error).to.be.instanceOf(CommandError);
        return;
      }
      throw new Error('it did not fail');
    });

    it('a holder that has not written its name is still a holder', async () => {
      const lock = await acquire();
      if (!lock.held) throw new Error('not held');
      await commands.run({ file: 'truncate', args: ['-s', '0', path], kind: 'mutate' });
      expect(await acquire()).to.deep.equal({ held: false, holder: undefined });
      await lock.release();
    });
  });
}

/** Processes of the keeper: those with the lock file in their arguments. */
function keepersOf(path: string): number[] {
  const pids: number[] = [];
  const children = (pid: number): void => {
    const file = `/proc/${pid}/task/${pid}/children`;
    if (!existsSync(file)) return;
    for (const child of readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number)) {
      if (readFileSync(`/proc/${child}/cmdline`, 'utf8').includes(path)) pids.push(child);
      children(child);
    }
  };
  children(process.pid);
  return pids;
}
