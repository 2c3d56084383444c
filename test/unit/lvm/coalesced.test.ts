/** Pure logic, with a source that answers when it is told to (a fake). */
import { expect } from 'chai';
import { Coalesced } from '../../../src/lvm/coalesced.ts';

class Source {
  readonly pending: { resolve(value: number): void; reject(error: Error): void }[] = [];
  starts = 0;
  readonly read = (): Promise<number> => {
    this.starts += 1;
    return new Promise((resolve, reject) => this.pending.push({ resolve, reject }));
  };
  async answer(value: number): Promise<void> {
    this.pending.shift()?.resolve(value);
    await settle();
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('lvm/coalesced', () => {
  it('shares one read between callers at once, and caches it until the next change', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 60_000);
    const reads = [coalesced.read(), coalesced.read(), coalesced.read()];
    await source.answer(1);
    expect(await Promise.all(reads)).to.deep.equal([1, 1, 1]);
    expect(await coalesced.read()).to.equal(1);
    expect(source.starts).to.equal(1);
    coalesced.invalidate();
    const after = coalesced.read();
    await source.answer(2);
    expect(await after).to.equal(2);
  });

  it('never answers with a read that began before a change that was complete before the call', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 60_000);
    const before = coalesced.read();
    coalesced.invalidate();
    const after = [coalesced.read(), coalesced.read()];
    await source.answer(1);
    expect(await before).to.equal(1);
    expect(source.starts).to.equal(2);
    await source.answer(2);
    expect(await Promise.all(after)).to.deep.equal([2, 2]);
    expect(await coalesced.read()).to.equal(2);
    expect(source.starts).to.equal(2);
  });

  it('does not cache a read during which something changed', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 60_000);
    const early = coalesced.read();
    coalesced.invalidate();
    await source.answer(1);
    await early;
    const late = coalesced.read();
    expect(source.starts).to.equal(2);
    await source.answer(2);
    expect(await late).to.equal(2);
  });

  it('fresh: a read that starts after the call, shared by all that wait for it', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 60_000);
    const first = coalesced.read({ fresh: true });
    const others = Array.from({ length: 10 }, () => coalesced.read({ fresh: true }));
    await source.answer(1);
    expect(source.starts).to.equal(2);
    const last = coalesced.read({ fresh: true });
    await source.answer(2);
    await source.answer(3);
    expect(await first).to.equal(1);
    expect(await Promise.all(others)).to.deep.equal(Array.from({ length: 10 }, () => 2));
    expect(await last).to.equal(3);
    expect(source.starts).to.equal(3);
  });

  it('a failure goes to those who shared the read, and is not kept; the waiting read still starts', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 60_000);
    const first = coalesced.read().catch((error: Error) => error.message);
    const second = coalesced.read({ fresh: true });
    source.pending.shift()?.reject(new Error('gone'));
    await settle();
    expect(await first).to.equal('gone');
    await source.answer(2);
    expect(await second).to.equal(2);
  });

  it('without a maximum age nothing is cached', async () => {
    const source = new Source();
    const coalesced = new Coalesced(source.read, 0);
    const first = coalesced.read();
    await source.answer(1);
    await first;
    const second = coalesced.read();
    await source.answer(2);
    expect(await second).to.equal(2);
  });
});
