/** Scopes as folders of our own: what systemd makes of them is in test/integration/host-scope.test.ts. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { CommandError, type Commands } from '../../../src/system/commands.ts';
import { HostCommands } from '../../../src/system/host-commands.ts';
import { acquireHostLock } from '../../../src/system/host-lock.ts';
import { KEEPER_NAME } from '../../../src/system/mutating-scope.ts';
import { awaitPredecessors, leftBehind } from '../../../src/system/predecessors.ts';
import { removeFolder, temporaryFolder, until } from './support.ts';

describe('commands that a former holder of the lock left behind', () => {
  const folder = temporaryFolder();
  const host = { mode: 'direct' } as const;
  const commands = new HostCommands({ host, owner: 'test', outputFolder: join(folder, 'run') });
  const started: ChildProcess[] = [];
  let root: string;
  let count = 0;

  beforeEach(() => {
    count += 1;
    root = join(folder, `cgroup-${count}`);
  });
  afterEach(() => {
    for (const child of started.splice(0)) child.kill('SIGKILL');
  });
  after(async () => {
    await commands.close();
    removeFolder(folder);
  });

  function scope(name: string, pids: readonly number[]): string {
    const path = join(root, 'system.slice', name);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'cgroup.procs'), pids.map((pid) => `${pid}\n`).join(''));
    return path;
  }

  async function process(program: string): Promise<number> {
    const child = spawn('sh', ['-c', `echo '${program}' > /proc/$$/comm; echo; read _`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    started.push(child);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    return child.pid ?? 0;
  }

  it('are those in the scopes of this volume group, keepers aside', async () => {
    const lvm = await process('lvm');
    const other = await process('dm setup');
    scope('lvm-iscsi-csi-vg-a-0123456789ab.scope', [lvm, await process(KEEPER_NAME), 999_999_999]);
    scope('lvm-iscsi-csi-vg-a-cdef01234567.scope', [other]);
    for (const name of ['vg-a-b', 'vg-b', 'node', 'vg-a-0123456789ab'])
      scope(`lvm-iscsi-csi-${name}-0123456789ab.scope`, [await process('lvm')]);
    const found = await leftBehind(commands, 'vg-a', root);
    expect(found.toSorted((a, b) => a.program.localeCompare(b.program))).to.deep.equal([
      { pid: other, program: 'dm setup', scope: 'lvm-iscsi-csi-vg-a-cdef01234567.scope' },
      { pid: lvm, program: 'lvm', scope: 'lvm-iscsi-csi-vg-a-0123456789ab.scope' },
    ]);
    expect(await leftBehind(commands, 'vg-a', join(folder, 'nowhere'))).to.deep.equal([]);
  });

  it('are waited for, with words; what was started later, and those of a look that failed, are told apart', async () => {
    const lvm = await process('lvm');
    const path = scope('lvm-iscsi-csi-vg-a-0123456789ab.scope', [lvm]);
    let failures = 1;
    const flaky: Commands = {
      run: async (request) => {
        if (failures-- > 0) throw new CommandError({ command: 'find', shortMessage: 'no', durationMs: 1 });
        return await commands.run(request);
      },
    };
    const reasons: string[] = [];
    const onWaiting = (reason: string) => reasons.push(reason);
    const signal = new AbortController().signal;
    let ended = false;
    const waiting = awaitPredecessors({ commands: flaky, owner: 'vg-a', onWaiting, signal, cgroupRoot: root });
    void waiting.then(() => {
      ended = true;
    });
    await until('it is told', () => reasons.length >= 2);
    expect(reasons[0]).to.contain('cannot be told');
    expect(reasons[1]).to.contain(`lvm (PID ${lvm})`);
    expect(ended).to.equal(false);
    // Another process of ours is at work by now: a scrub.
    writeFileSync(join(path, 'cgroup.procs'), `${await process('lvm')}\n`);
    await waiting;
  });

  it('are waited for only as long as we are to run at all', async () => {
    scope('lvm-iscsi-csi-vg-a-0123456789ab.scope', [await process('lvm')]);
    const stop = new AbortController();
    const onWaiting = () => stop.abort(new Error('stopped'));
    const waiting = awaitPredecessors({ commands, owner: 'vg-a', onWaiting, signal: stop.signal, cgroupRoot: root });
    expect(await waiting.catch((error: Error) => error.name)).to.match(/Error/);
  });

  it('cannot come later: one that was not in its scope yet finds the words of the successor', async () => {
    const path = join(folder, 'vg.lock');
    const holder = (instance: string) => ({ pid: 1, hostName: 'h', instance, since: '2026-01-01T00:00:00.000Z' });
    const first = await acquireHostLock(host, commands, path, holder('first'));
    if (!first.held) throw new Error('not held');
    const holding = commands.holding(first.record, 'vg-a');
    const witness = join(folder, 'witness');
    const touch = { file: 'touch', args: [witness], kind: 'mutate' } as const;
    await holding.run(touch);
    rmSync(witness);
    await first.release();
    const second = await acquireHostLock(host, commands, path, holder('second'));
    if (!second.held) throw new Error('not held');
    const error = await holding.run(touch).catch((refusal: unknown) => refusal);
    expect((error as CommandError).shortMessage).to.match(/^touch was not run: the lock/);
    expect(() => rmSync(witness)).to.throw(/ENOENT/);
    await holding.run({ file: 'true', args: [], kind: 'read' });
    await second.release();
  });
});
