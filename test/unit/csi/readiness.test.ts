import { expect } from 'chai';
import { Readiness } from '../../../src/csi/readiness.ts';

const ready = async () => ({ ready: true, reasons: [] });

describe('readiness', () => {
  it('is that of all roles, with the reasons of those that are not ready', async () => {
    expect(await new Readiness([ready, ready]).check()).to.deep.equal({ ready: true, reasons: [] });
    const notReady = async () => ({ ready: false, reasons: ['volume group "x" not found'] });
    expect(await new Readiness([ready, notReady]).check()).to.deep.equal({
      ready: false,
      reasons: ['volume group "x" not found'],
    });
  });

  it('asks once, however many want to know at a time', async () => {
    let asked = 0;
    const readiness = new Readiness([
      async () => {
        asked += 1;
        return await ready();
      },
    ]);
    await Promise.all([readiness.check(), readiness.check(), readiness.check()]);
    expect(asked).to.equal(1);
    await readiness.check();
    expect(asked).to.equal(2);
  });

  it('does not start a check that hangs a second time, and is ready when it has ended after all', async () => {
    const end = Promise.withResolvers<void>();
    let asked = 0;
    const slow = async () => {
      asked += 1;
      await end.promise;
      return await ready();
    };
    const readiness = new Readiness([slow], 10);
    expect((await readiness.check()).ready).to.equal(false);
    const second = readiness.check();
    end.resolve();
    expect((await second).ready).to.equal(true);
    expect(asked).to.equal(1);
  });

  it('is not ready when a check fails or hangs', async () => {
    const failed = await new Readiness([async () => await Promise.reject(new Error('boom'))]).check();
    expect(failed.ready).to.equal(false);
    expect(failed.reasons.join()).to.include("driver's log").and.not.include('boom');
    const hung = await new Readiness([async () => await new Promise<never>(() => {})], 10).check();
    expect(hung.ready).to.equal(false);
    expect(hung.reasons.join()).to.include('10 ms');
  });
});
