/** The guard's shells, run for real, with a dmsetup that only writes down what it was asked. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { GUARD_SCRIPT, GUARD_SECONDS, SUSPEND_SCRIPT } from '../../../src/gate/suspension.ts';
import { removeFolder, temporaryFolder } from '../system/support.ts';

describe('the shells that suspend and guard', () => {
  let folder: string;
  let flag: string;

  beforeEach(() => {
    folder = temporaryFolder();
    flag = join(folder, 'flag');
    writeFileSync(
      join(folder, 'dmsetup'),
      `#!/bin/sh\necho "$*" >> ${folder}/calls\n[ ! -e ${folder}/wait ] || sleep 1\n`,
    );
    chmodSync(join(folder, 'dmsetup'), 0o755);
  });

  afterEach(() => removeFolder(folder));

  const calls = (): string[] =>
    existsSync(join(folder, 'calls')) ? readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n') : [];

  const start = (script: string): ChildProcess =>
    spawn('sh', ['-c', script, 'sh', flag, 'gate-a', 'gate-b'], { env: { PATH: `${folder}:${process.env['PATH']}` } });

  const end = async (child: ChildProcess): Promise<unknown> => (await once(child, 'exit'))[0];

  const armed = async (): Promise<void> => {
    while (!existsSync(flag)) await delay(10);
  };

  /** Of one second instead of eight. */
  const quickGuard = GUARD_SCRIPT.replace(`-lt ${GUARD_SECONDS}`, '-lt 1');

  it('a guard that nobody disarms resumes every gate and cleans up', async () => {
    expect(quickGuard).not.to.equal(GUARD_SCRIPT);
    const guard = start(quickGuard);
    await armed();
    expect(await end(guard)).to.equal(0);
    expect(calls()).to.deep.equal(['resume --noudevsync gate-a', 'resume --noudevsync gate-b']);
    expect([existsSync(flag), existsSync(`${flag}.fired`)]).to.deep.equal([false, false]);
  });

  it('a guard that was disarmed touches nothing', async () => {
    const guard = start(GUARD_SCRIPT);
    await armed();
    unlinkSync(flag);
    expect(await end(guard)).to.equal(0);
    expect(calls()).to.deep.equal([]);
  });

  it('a suspend in time leaves the gates suspended', async () => {
    writeFileSync(flag, '');
    expect(await end(start(SUSPEND_SCRIPT))).to.equal(0);
    expect(calls()).to.deep.equal(['suspend --noudevsync gate-a gate-b']);
  });

  it('a suspend without a guard does nothing but resume', async () => {
    expect(await end(start(SUSPEND_SCRIPT))).to.equal(1);
    expect(calls()).to.deep.equal(['resume --noudevsync gate-a', 'resume --noudevsync gate-b']);
  });

  it('a suspend that ends after its guard has fired resumes by itself', async () => {
    writeFileSync(flag, '');
    writeFileSync(join(folder, 'wait'), '');
    const suspending = start(SUSPEND_SCRIPT);
    while (calls().length === 0) await delay(10);
    unlinkSync(flag);
    expect(await end(suspending)).to.equal(1);
    expect(calls().slice(1)).to.deep.equal(['resume --noudevsync gate-a', 'resume --noudevsync gate-b']);
  });
});
