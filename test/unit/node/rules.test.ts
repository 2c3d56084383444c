import { expect } from 'chai';
import { DriverError } from '../../../src/errors.ts';
import { FileSystemError } from '../../../src/filesystem/errors.ts';
import { IscsiError } from '../../../src/iscsi/initiator/errors.ts';
import type { IscsiSession } from '../../../src/iscsi/initiator/types.ts';
import { DiskHeldError } from '../../../src/node/exclusive.ts';
import { toDriverError } from '../../../src/node/explain.ts';
import { mountOptions, stagingOptions } from '../../../src/node/mount-options.ts';
import { Outstanding, StillRunningError } from '../../../src/node/outstanding.ts';
import type { NodeRecord } from '../../../src/node/records.ts';
import { isOlder } from '../../../src/node/recovery.ts';
import { Refusals } from '../../../src/node/refusals.ts';
import { isTargetOf } from '../../../src/node/sessions.ts';
import { staleReason } from '../../../src/node/stale.ts';
import { Undo } from '../../../src/node/undo.ts';
import { CommandError } from '../../../src/system/commands.ts';
import { FileTimeoutError } from '../../../src/system/files.ts';
import type { PublishContext } from '../../../src/volumes/publish-context.ts';

const VOLUME = 'volume-00000000-0000-4000-8000-000000000001';

describe('rules of the node plugin', () => {
  it('mount options: for writing as asked, for reading never a write', () => {
    const of = (fsType: 'ext4' | 'xfs', readOnly: boolean, mountFlags: string[] = []): string =>
      stagingOptions({ fsType, readOnly, mountFlags }).join(',');
    expect(of('ext4', false, ['noatime'])).to.equal('_netdev,noatime');
    expect(of('xfs', false)).to.equal('_netdev,nouuid');
    expect(of('ext4', true, ['rw', 'noatime'])).to.equal('_netdev,noatime,ro,noload');
    expect(of('xfs', true)).to.equal('_netdev,nouuid,ro,norecovery');
  });

  it('mount flags: split at commas once, but not within quotes; what mount(8) would take for another command is refused', () => {
    const context = 'context="system_u:object_r:t:s0:c1,c2"';
    expect(mountOptions(['noatime,ro', context, `nodev,${context},nosuid`])).to.deep.equal([
      'noatime',
      'ro',
      context,
      'nodev',
      context,
      'nosuid',
    ]);
    for (const flag of ['', ',', 'a,', ',a', 'a,,b', 'noatime,bind', 'a b', 'x="1,remount', '"', 'ro,"bind']) {
      expect(() => mountOptions([flag]), flag).to.throw(DriverError, /mount flag/);
    }
  });

  it('a target belongs to a volume by the end of its name, and only whole', () => {
    expect(isTargetOf(`iqn.2010-10.org.openstack:${VOLUME}`, VOLUME)).to.equal(true);
    expect(isTargetOf(`iqn.2010-10.org.openstack:x${VOLUME}`, VOLUME)).to.equal(false);
    expect(isTargetOf('iqn.2010-10.org.openstack:a', '')).to.equal(false);
    expect(isTargetOf('iqn.2010-10.org.openstack:../x', '../x')).to.equal(false);
  });

  describe('what is stale', () => {
    const context = {
      targetIqn: `iqn.x:${VOLUME}`,
      nonce: 'n',
      authentication: 'derived',
      chap: { user: 'u', password: 'p' },
    } as PublishContext;
    const session = (fields: Partial<IscsiSession> = {}): IscsiSession => ({
      sid: 1,
      hostNumber: 1,
      targetIqn: context.targetIqn,
      portal: '10.0.0.1:3260',
      state: 'LOGGED_IN',
      chapUser: 'u',
      ...fields,
    });
    const record = (fields: Partial<NodeRecord> = {}): NodeRecord =>
      ({ bootId: 'b', nonce: 'n', targetIqn: context.targetIqn, phase: 'attaching', ...fields }) as NodeRecord;
    const staged = record({
      phase: 'staged',
      device: { name: 'sda', majorMinor: '8:0', sid: 1, sizeBytes: 1, readOnly: false },
    });
    const cases: [string, NodeRecord | undefined, IscsiSession[], RegExp | undefined][] = [
      ['nothing there', undefined, [], undefined],
      ['begun, no session yet', record(), [], undefined],
      ['begun, its session', record(), [session()], undefined],
      ['staged, its session', staged, [session()], undefined],
      ['staged, its session down', staged, [session({ state: 'FAILED' })], undefined],
      ['staged, user not readable', staged, [session({ chapUser: undefined })], undefined],
      ['a session alone', undefined, [session()], /no record/],
      ['another nonce', record({ nonce: 'm' }), [], /earlier attachment/],
      ['another boot', record({ bootId: 'c' }), [], /earlier boot/],
      ['another target', record({ targetIqn: 'iqn.y' }), [], /target/],
      ['another user', staged, [session({ chapUser: 'v' })], /credentials/],
      ['staged, no session', staged, [], /ended under it/],
      ['staged, another session', staged, [session({ sid: 2 })], /ended under it/],
      ['begun, two sessions', record(), [session(), session({ sid: 2 })], /several/],
      ['begun, its session down', record(), [session({ state: 'FAILED' })], /broke before/],
    ];
    for (const [name, known, sessions, words] of cases) {
      it(`${name}: ${words === undefined ? 'not stale' : 'stale'}`, () => {
        const reason = staleReason(known, sessions, context, 'b');
        if (words === undefined) expect(reason).to.equal(undefined);
        else expect(reason).to.match(words);
      });
    }
  });

  it('errors of adapters get a code and words; others stay what they are', () => {
    const code = (error: unknown, mayLeaveState = false): string | undefined => {
      const result = toDriverError(error, 'volume x could not be staged', { mayLeaveState });
      return result instanceof DriverError ? result.code : undefined;
    };
    expect(code(new FileSystemError('io', 'x'))).to.equal('UNAVAILABLE');
    expect(code(new FileSystemError('busy', 'x'))).to.equal('FAILED_PRECONDITION');
    expect(code(new IscsiError('lock-busy', 'x'))).to.equal('ABORTED');
    expect(code(new FileTimeoutError('statfs', '/x', 10))).to.equal('UNAVAILABLE');
    const system = Object.assign(new Error('EIO: read'), { code: 'EIO', syscall: 'read' });
    const command = new CommandError({ command: 'x', shortMessage: 'x failed', durationMs: 1 });
    for (const error of [system, command]) {
      expect(code(error)).to.equal('INTERNAL');
      expect(code(error, true)).to.equal('UNAVAILABLE');
    }
    const original = new DriverError('NOT_FOUND', 'x');
    expect(toDriverError(original, 'y')).to.equal(original);
    const bug = new TypeError('x is not a function');
    expect(toDriverError(bug, 'y')).to.equal(bug);
  });

  it('a step at its deadline: answered, and nothing else of that volume until it has ended', async () => {
    const outstanding = new Outstanding();
    let end: () => void = () => undefined;
    const hang = new Promise<void>((resolve) => {
      end = resolve;
    });
    const error = await outstanding.run('v', 'mounting', 10, () => hang).catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(StillRunningError);
    expect(() => outstanding.assertIdle('v')).to.throw(/mounting has not come to an end/);
    expect(await outstanding.run('other', 'mounting', 1_000, async () => 7)).to.equal(7);
    end();
    await hang;
    await new Promise((resolve) => setImmediate(resolve));
    outstanding.assertIdle('v');
    const failed = await outstanding
      .run('v', 'failing', 1_000, () => Promise.reject(new Error('own words')))
      .catch((caught: Error) => caught.message);
    expect(failed).to.equal('own words');
    outstanding.assertIdle('v');
  });

  it('kernels that do not report write errors of syncfs', () => {
    const of = (release: string): boolean => isOlder(release, [5, 8]);
    expect(['5.7.19', '4.18.0-553.el8.x86_64', '3.10.0'].map(of)).to.deep.equal([true, true, true]);
    expect(['5.8.0', '5.10.0-1', '6.1.0-40-amd64', '10.0', 'odd'].map(of)).to.deep.equal([
      false,
      false,
      false,
      false,
      false,
    ]);
  });

  it('refusals: counted while they go on, anew after one answer of another kind, or after a long silence', () => {
    const refusals = new Refusals();
    expect(refusals.note('a', 5_000, 10_000)).to.equal(5_000);
    expect(refusals.note('a', 5_000, 130_000)).to.equal(125_000);
    expect(refusals.note('b', 5_000, 130_000)).to.equal(5_000);
    expect(refusals.note('a', 5_000, 500_000)).to.equal(5_000);
    expect(refusals.note('a', 5_000, 620_000)).to.equal(125_000);
    refusals.forget('a');
    expect(refusals.note('a', 5_000, 630_000)).to.equal(5_000);
  });

  describe('undo', () => {
    const done: string[] = [];
    const make = (...failing: string[]): Undo => {
      done.length = 0;
      const undo = new Undo('volume x could not be staged');
      const action = (name: string) => async () => {
        done.push(name);
        if (failing.includes(name)) throw new FileSystemError('busy', `${name} is in use`);
      };
      undo.pushMemory('record', action('record'));
      for (const name of ['session', 'mount']) undo.push(name, action(name));
      return undo;
    };
    const answer = async (undo: Undo, error: Error): Promise<unknown> =>
      await undo.run(error).catch((caught: unknown) => caught);

    it('in reverse; nothing is left: the error itself is the answer', async () => {
      const error = new DriverError('FAILED_PRECONDITION', 'own words');
      expect(await answer(make(), error)).to.equal(error);
      expect(done).to.deep.equal(['mount', 'session', 'record']);
    });

    it('goes on after a failure, keeps the memory, and answers a code after which kubelet comes back', async () => {
      const error = await answer(make('mount'), new DriverError('FAILED_PRECONDITION', 'own words'));
      expect(done).to.deep.equal(['mount', 'session']);
      expect(error).to.be.instanceOf(DriverError).and.deep.include({ code: 'ABORTED' });
      expect((error as Error).message).to.match(/own words.*not taken back: mount \(.*mount is in use/);
    });

    it('nothing while a step still runs, or while somebody has the disk', async () => {
      for (const error of [new StillRunningError('x', 1), new DiskHeldError('v', 'sda', 'e2fsck')]) {
        expect(await answer(make(), error)).to.equal(error);
        expect(done).to.deep.equal([]);
      }
    });
  });
});
