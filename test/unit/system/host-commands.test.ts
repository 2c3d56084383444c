import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import type { CommandObserver } from '../../../src/system/command-observer.ts';
import { CommandError, type CommandRequest } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { isAlive, removeFolder, startFixture, temporaryFolder, until } from './support.ts';

const sh = (script: string, more: Partial<CommandRequest> = {}): CommandRequest => ({
  file: 'sh',
  args: ['-c', script],
  kind: 'read',
  ...more,
});

async function failure(work: Promise<unknown>): Promise<CommandError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof CommandError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

// nsenter into our own namespaces: the same program and the same forks as into PID 1's.
for (const host of [{ mode: 'direct' }, { mode: 'nsenter', targetPid: process.pid }] as const) {
  describe(`HostCommands, ${host.mode}`, () => {
    const folder = temporaryFolder();
    const outputFolder = join(folder, 'run');
    const seen: string[] = [];
    const observer: CommandObserver = {
      observe: (program, kind, durationMs, outcome) => seen.push(`${program} ${kind} ${durationMs >= 0} ${outcome}`),
    };
    const commands = new HostCommands({ host, owner: 'test', outputFolder, observer, outputLimitBytes: 1_000_000 });

    beforeEach(() => seen.splice(0));
    after(async () => {
      await commands.close();
      removeFolder(folder);
    });

    for (const kind of ['read', 'mutate'] as const) {
      it(`${kind}: gives output, exit code and a quoted command line`, async () => {
        const result = await commands.run({ file: 'printf', args: ['%s\\n', "it's"], kind });
        expect(result).to.include({ command: "printf '%s\\n' 'it'\\''s'", exitCode: 0, stdout: "it's\n", stderr: '' });
        expect(seen).to.deep.equal([`printf ${kind} true ok`]);
      });

      it(`${kind}: passes input, a minimal environment, and what the request adds`, async () => {
        const request = sh('cat; env | sort | grep -v -e ^_ -e ^PWD -e ^SHLVL -e ^OLDPWD; pwd', {
          kind,
          input: 'in: ü\n',
          env: { EXTRA: '1' },
        });
        const { stdout } = await commands.run(request);
        const path = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
        expect(stdout).to.equal(`in: ü\nEXTRA=1\nLC_ALL=C\n${path}\n/\n`);
      });

      it(`${kind}: an exit code that is not accepted is an error with all that is known`, async () => {
        const error = await failure(commands.run(sh('echo out; echo err >&2; exit 5', { kind })));
        expect(error).to.include({ exitCode: 5, stdout: 'out\n', stderr: 'err\n', timedOut: false, missing: false });
        expect(error.shortMessage).to.equal('sh failed with exit code 5');
        expect(error.message).to.equal('sh failed with exit code 5\nerr');
        expect(seen).to.deep.equal([`sh ${kind} true exit`]);
      });

      it(`${kind}: an accepted exit code is an answer`, async () => {
        const result = await commands.run(sh('exit 5', { kind, acceptedExitCodes: [0, 5] }));
        expect(result.exitCode).to.equal(5);
      });

      it(`${kind}: goes by the name of what does the work, in metrics and messages`, async () => {
        const error = await failure(commands.run(sh('exit 5', { kind, program: 'lvcreate' })));
        expect(error.shortMessage).to.equal('lvcreate failed with exit code 5');
        await commands.run(sh('exit 0', { kind, program: 'lvs' }));
        expect(seen).to.deep.equal([`lvcreate ${kind} true exit`, `lvs ${kind} true ok`]);
      });

      it(`${kind}: names a program that does not exist`, async () => {
        const error = await failure(commands.run({ file: 'no-such-program', args: ['x'], kind }));
        expect(error.missing).to.equal(true);
        expect(error.shortMessage).to.contain('"no-such-program" not found');
        expect(seen).to.deep.equal([`no-such-program ${kind} true missing`]);
      });

      it(`${kind}: exit code 127 of a program that exists is not "missing"`, async () => {
        const error = await failure(commands.run(sh('echo "lvs: file not found" >&2; exit 127', { kind })));
        expect(error).to.include({ missing: false, exitCode: 127 });
      });

      it(`${kind}: says by which signal a program ended`, async () => {
        const error = await failure(commands.run(sh('kill -9 $$', { kind })));
        expect(error).to.include({ signal: 'SIGKILL', exitCode: undefined, timedOut: false });
      });

      it(`${kind}: output over the limit is an error, but the exit code goes first`, async () => {
        const tooMuch = 'head -c 1200000 /dev/zero';
        expect((await failure(commands.run(sh(tooMuch, { kind })))).shortMessage).to.contain('more than 1000000 bytes');
        if (kind === 'mutate')
          expect((await failure(commands.run(sh(`${tooMuch}; exit 3`, { kind })))).exitCode).to.equal(3);
      });

      it(`${kind}: bytes that are no UTF-8 do not hide the exit code`, async () => {
        const error = await failure(commands.run(sh('printf "\\377\\376"; exit 4', { kind })));
        expect(error.exitCode).to.equal(4);
      });
    }

    it('read: is killed at its deadline, with its children', async () => {
      const pidFile = join(folder, 'pid');
      const startedAt = Date.now();
      const error = await failure(commands.run(sh(`sleep 600 & echo $! > ${pidFile}; wait`, { timeoutMs: 300 })));
      expect(error.timedOut).to.equal(true);
      expect(error.shortMessage).to.equal('sh did not end within 300 ms');
      expect(Date.now() - startedAt).to.be.lessThan(3_000);
      const pid = Number(readFileSync(pidFile, 'utf8'));
      await until('the child is gone', () => !isAlive(pid));
      expect(seen).to.deep.equal(['sh read true timeout']);
    });

    it('mutate: has no deadline, and its output is whole whatever daemons it leaves behind', async () => {
      const result = await commands.run(
        sh('sleep 0.5; echo done; sleep 3 & exit 0', { kind: 'mutate', timeoutMs: 100 }),
      );
      expect(result.stdout).to.equal('done\n');
      expect(result.durationMs).to.be.within(400, 2_500);
    });

    it('mutate: is listed while it runs and leaves no file behind', async () => {
      const running = commands.run(sh('sleep 0.3', { kind: 'mutate' }));
      expect(commands.mutating).to.deep.equal(["sh -c 'sleep 0.3'"]);
      await running;
      expect(commands.mutating).to.deep.equal([]);
      expect(readdirSync(outputFolder)).to.deep.equal([]);
    });
  });
}

describe('a command whose parent is killed', () => {
  for (const kind of ['mutate', 'read'] as const) {
    // The read is the control: its output goes through pipes, so it must not get to its end.
    it(
      kind === 'mutate' ? 'mutate: prints without SIGPIPE and completes' : 'read: ends at its next output',
      async () => {
        const folder = temporaryFolder();
        const [begun, finished] = [join(folder, 'begun'), join(folder, 'finished')];
        const script = `set -e; echo $$ > ${begun}; sleep 1; for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.1; done; echo yes > ${finished}`;
        const { child, ended } = startFixture('mutating-parent', [join(folder, 'run'), kind, script]);
        await until('the command has begun', () => existsSync(begun) && readFileSync(begun, 'utf8') !== '');
        const pid = Number(readFileSync(begun, 'utf8'));
        // The whole process group, as a terminal or a shell would.
        process.kill(-(child.pid ?? 0), 'SIGKILL');
        expect(await ended).to.equal('SIGKILL');
        expect(existsSync(finished)).to.equal(false);
        await until('the command has ended', () => !isAlive(pid));
        expect(existsSync(finished)).to.equal(kind === 'mutate');
        if (kind === 'mutate') expect(readdirSync(join(folder, 'run'))).to.deep.equal([]);
        removeFolder(folder);
      },
    );
  }
});
