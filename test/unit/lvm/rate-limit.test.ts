import { expect } from 'chai';
import { delay, RateLimiter } from '../../../src/lvm/rate-limit.ts';

describe('lvm/rate-limit', () => {
  it('holds all takers together below the rate, in their order', async () => {
    const limiter = new RateLimiter(1_000_000);
    const startedAt = performance.now();
    const order: number[] = [];
    await Promise.all([0, 1, 2, 3].map((index) => limiter.take(500_000).then(() => order.push(index))));
    // One second's worth is there at the beginning, and the last one may draw into debt.
    expect(performance.now() - startedAt).to.be.within(400, 3_000);
    expect(order).to.deep.equal([0, 1, 2, 3]);
  });

  it('0 is no limit', async () => {
    const limiter = new RateLimiter(0);
    for (let index = 0; index < 1000; index += 1) await limiter.take(1e12);
  });

  it('a waiting taker can be aborted; those after it get their turn', async () => {
    const limiter = new RateLimiter(1_000);
    await limiter.take(1_300);
    const stop = new AbortController();
    const aborted = limiter.take(1_000_000, stop.signal).catch((error: Error) => error.message);
    const next = limiter.take(1);
    stop.abort(new Error('stopped'));
    expect(await aborted).to.equal('stopped');
    await next;
    expect(await new RateLimiter(0).take(1, stop.signal).catch((error: Error) => error.message)).to.equal('stopped');
  });

  it('delay ends with the signal', async () => {
    const stop = new AbortController();
    const waiting = delay(60_000, stop.signal).catch((error: Error) => error.message);
    stop.abort(new Error('woken'));
    expect(await waiting).to.equal('woken');
  });
});
