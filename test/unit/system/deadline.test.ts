import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { Deadline, lockWithin } from '../../../src/system/deadline.ts';
import { KeyedMutex } from '../../../src/system/keyed-mutex.ts';

const late = (): Error => new Error('late');

async function messageOf(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => (error as Error).message,
  );
}

describe('deadlines', () => {
  it('end the waiting, not the work', async () => {
    let done = false;
    const work = delay(60).then(() => {
      done = true;
    });
    expect(await messageOf(new Deadline(10).wait(work, late))).to.equal('late');
    expect(done).to.equal(false);
    await work;
    expect(await new Deadline(1000).wait(Promise.resolve(7), late)).to.equal(7);
  });

  it('an action that did not get the lock in time never runs', async () => {
    const lock = { mutex: new KeyedMutex(), key: 'k' };
    const first = lockWithin(lock, new Deadline(1000), late, () => delay(60));
    let ran = false;
    const second = lockWithin(lock, new Deadline(10), late, async () => {
      ran = true;
    });
    expect(await messageOf(second)).to.equal('late');
    await first;
    await lockWithin(lock, new Deadline(1000), late, async () => undefined);
    expect(ran).to.equal(false);
  });

  it('what is kept holds the lock after the action has failed', async () => {
    const lock = { mutex: new KeyedMutex(), key: 'k' };
    const order: string[] = [];
    const stuck = delay(50).then(() => order.push('stuck work ended'));
    const failing = lockWithin(lock, new Deadline(1000), late, async (keep) => {
      keep(stuck);
      throw new Error('gave up');
    });
    expect(await messageOf(failing)).to.equal('gave up');
    await lockWithin(lock, new Deadline(1000), late, async () => order.push('next'));
    expect(order).to.deep.equal(['stuck work ended', 'next']);
  });
});
