import { expect } from 'chai';
import { canonicalJson, InFlight } from '../../../src/csi/in-flight.ts';
import { DriverError } from '../../../src/errors.ts';

interface Gate<T> {
  readonly promise: Promise<T>;
  readonly open: (value: T) => void;
  readonly fail: (error: Error) => void;
}

function gate<T>(): Gate<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  return { promise, open: resolve, fail: reject };
}

async function errorOf(promise: Promise<unknown>): Promise<DriverError> {
  try {
    await promise;
  } catch (error) {
    expect(error).to.be.instanceOf(DriverError);
    return error as DriverError;
  }
  throw new Error('should have failed');
}

describe('operations in flight', () => {
  it('joins an equal request, whatever the order of its keys', async () => {
    const inFlight = new InFlight();
    const work = gate<string>();
    let started = 0;
    const action = async () => {
      started += 1;
      return await work.promise;
    };
    const first = inFlight.run('v1', 'CreateVolume', { a: 1, m: { x: '1', y: '2' }, secrets: { p: 's' } }, action);
    const second = inFlight.run('v1', 'CreateVolume', { secrets: { p: 's' }, m: { y: '2', x: '1' }, a: 1 }, action);
    expect(inFlight.size).to.equal(1);
    work.open('done');
    expect(await Promise.all([first, second])).to.deep.equal(['done', 'done']);
    expect(started).to.equal(1);
    expect(inFlight.size).to.equal(0);
  });

  const others: readonly [string, string, object][] = [
    ['another method', 'DeleteVolume', { id: 'v1' }],
    ['another size', 'CreateVolume', { id: 'v1', size: 2 }],
    ['another secret', 'CreateVolume', { id: 'v1', size: 1, secrets: { p: 't' } }],
    ['another order of a list', 'CreateVolume', { id: 'v1', size: 1, secrets: { p: 's' }, list: [2, 1] }],
  ];
  for (const [what, method, request] of others) {
    it(`aborts ${what} that has waited for long enough, naming what is in progress`, async () => {
      const inFlight = new InFlight(10);
      const work = gate<void>();
      const running = { id: 'v1', size: 1, secrets: { p: 's' }, list: [1, 2] };
      const first = inFlight.run('v1', 'CreateVolume', running, async () => await work.promise);
      const error = await errorOf(inFlight.run('v1', method, request, async () => expect.fail('must not run')));
      expect(error.code).to.equal('ABORTED');
      expect(error.message).to.match(/v1.*CreateVolume since \d{4}-.*retry/);
      expect(error.message).to.not.include('secrets');
      work.open();
      await first;
    });
  }

  it('lets a different request wait for the one in progress, whether that succeeds or fails', async () => {
    const inFlight = new InFlight();
    for (const end of ['open', 'fail'] as const) {
      const work = gate<void>();
      const order: string[] = [];
      const first = inFlight.run('v1', 'DeleteVolume', {}, async () => {
        await work.promise;
        order.push('first');
      });
      const second = inFlight.run('v1', 'CreateVolume', {}, async () => order.push('second'));
      if (end === 'open') work.open();
      else work.fail(new Error('boom'));
      await Promise.allSettled([first, second]);
      expect(await second).to.equal(order.length);
      expect(order).to.deep.equal(end === 'open' ? ['first', 'second'] : ['second']);
    }
  });

  it('runs those that waited one at a time, and equal ones once', async () => {
    const inFlight = new InFlight();
    const work = gate<void>();
    const first = inFlight.run('v1', 'Publish', { node: 1 }, async () => await work.promise);
    let running = 0;
    const runs: number[] = [];
    const publish = (node: number) =>
      inFlight.run('v1', 'Publish', { node }, async () => {
        running += 1;
        expect(running, 'at once').to.equal(1);
        await new Promise((resolve) => setImmediate(resolve));
        running -= 1;
        return runs.push(node);
      });
    const others = [publish(2), publish(3), publish(2)];
    work.open();
    expect(await Promise.all([first, ...others])).to.deep.equal([undefined, 1, 2, 1]);
    expect(runs).to.deep.equal([2, 3]);
    expect(inFlight.size).to.equal(0);
  });

  it('lets other volumes go on', async () => {
    const inFlight = new InFlight();
    const work = gate<void>();
    const first = inFlight.run('v1', 'DeleteVolume', {}, async () => await work.promise);
    expect(await inFlight.run('v2', 'DeleteVolume', {}, async () => 'other')).to.equal('other');
    work.open();
    await first;
  });

  it('shares a failure, and is free afterwards', async () => {
    const inFlight = new InFlight();
    const work = gate<void>();
    const calls = [1, 2].map(() => inFlight.run('v1', 'DeleteVolume', {}, async () => await work.promise));
    const results = Promise.allSettled(calls);
    work.fail(new Error('boom'));
    expect((await results).map((each) => each.status)).to.deep.equal(['rejected', 'rejected']);
    expect(await inFlight.run('v1', 'CreateVolume', {}, async () => 'free')).to.equal('free');
  });

  it('is free after an action that throws at once', async () => {
    const inFlight = new InFlight();
    const throwing = (): Promise<void> => {
      throw new DriverError('INTERNAL', 'at once');
    };
    expect((await errorOf(inFlight.run('v1', 'DeleteVolume', {}, throwing))).message).to.equal('at once');
    expect(inFlight.size).to.equal(0);
  });
});

describe('canonical JSON', () => {
  it('sorts keys at every depth and leaves lists alone', () => {
    expect(canonicalJson({ b: [{ d: 1, c: 2 }], a: null })).to.equal('{"a":null,"b":[{"c":2,"d":1}]}');
  });
});
