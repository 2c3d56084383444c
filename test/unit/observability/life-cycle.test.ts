/** The role is a fake: what is tested is the frame around it. */
import { expect } from 'chai';
import { LifeCycle } from '../../../src/life-cycle.ts';
import type { RunningRole } from '../../../src/roles/role.ts';

function fakeRole(events: string[], more: Partial<RunningRole> = {}): RunningRole {
  return {
    ready: async () => ({ ready: true, reasons: [] }),
    drain: async (timeoutMs) => {
      events.push(`drain ${timeoutMs}`);
      return 0;
    },
    close: async () => {
      events.push('close');
    },
    ...more,
  };
}

const OPTIONS = { drainTimeoutMs: 500, mutating: () => [] };

describe('life cycle', () => {
  it('runs until it is told to stop, drains, closes', async () => {
    const events: string[] = [];
    const life = new LifeCycle(OPTIONS);
    expect(life.state).to.equal('STARTING');
    const end = life.run(async () => fakeRole(events));
    await new Promise((resolve) => setImmediate(resolve));
    expect(life.state).to.equal('RUNNING');
    life.stop('SIGTERM');
    expect(await end).to.equal(0);
    expect(life.state).to.equal('STOPPED');
    expect(events).to.deep.equal(['drain 500', 'close']);
  });

  it('does not mind a second signal while it drains', async () => {
    const events: string[] = [];
    const life = new LifeCycle(OPTIONS);
    const drain = async (): Promise<number> => {
      life.stop('SIGTERM again');
      events.push(life.state);
      return 1;
    };
    const end = life.run(async () => fakeRole(events, { drain }));
    life.stop('SIGTERM');
    expect(await end).to.equal(0);
    expect(events).to.deep.equal(['DRAINING', 'close']);
  });

  it('gives up a start that waits, without calling it a failure', async () => {
    const life = new LifeCycle(OPTIONS);
    const end = life.run(
      (stopping) => new Promise((_, reject) => stopping.addEventListener('abort', () => reject(new Error('given up')))),
    );
    life.stop('SIGTERM');
    expect(await end).to.equal(0);
  });

  it('passes a failed start on', async () => {
    const life = new LifeCycle(OPTIONS);
    const error = await life
      .run(async () => {
        throw new Error('no VG');
      })
      .catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(Error).with.property('message', 'no VG');
    expect(life.state).to.equal('STOPPED');
  });

  it('ends with 1 when the role asks for it, or when ending goes wrong', async () => {
    const failing = new LifeCycle(OPTIONS);
    const end = failing.run(async () => fakeRole([]));
    failing.stop('the host lock was lost', 1);
    failing.stop('SIGTERM');
    expect(await end).to.equal(1);

    const broken = new LifeCycle(OPTIONS);
    const close = async (): Promise<void> => {
      throw new Error('no');
    };
    const brokenEnd = broken.run(async () => fakeRole([], { close }));
    broken.stop('SIGTERM');
    expect(await brokenEnd).to.equal(1);
  });
});
