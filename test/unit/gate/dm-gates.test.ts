/** Decisions of the gate adapter, on a fake of device-mapper. */
import { expect } from 'chai';
import { DmGates } from '../../../src/gate/dm-gates.ts';
import { GateError, GateTimeoutError } from '../../../src/gate/errors.ts';
import { dmFailure, FakeDm } from './fake-dm.ts';

const ID = 'volume-a';

async function reasonOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    if (error instanceof GateError) return error.reason;
    throw error;
  }
}

describe('gates', () => {
  let dm: FakeDm;
  let gates: DmGates;
  const ensure = (sizeBytes = 8 * 512) => gates.ensure({ volumeId: ID, lvPath: dm.lvPath, sizeBytes });

  beforeEach(() => {
    dm = new FakeDm();
    gates = new DmGates({ commands: dm, files: dm.files() });
  });

  it('are made in one dmsetup, and not touched when they are right', async () => {
    await ensure();
    await ensure();
    expect(dm.changes).to.deep.equal(['create gate-a']);
    expect(await gates.list()).to.have.lengthOf(1);
  });

  it('grow while they are held open, and shrink only when not', async () => {
    const device = dm.add('gate-a', { openCount: 1 });
    await ensure(16 * 512);
    expect(device.table).to.equal('0 16 linear 253:0 0');
    expect(dm.changes).to.deep.equal(['reload gate-a', 'resume gate-a']);
    expect(await reasonOf(ensure())).to.equal('in-use');
    device.openCount = 0;
    await ensure();
    expect(device.table).to.equal('0 8 linear 253:0 0');
  });

  for (const [what, table, reason] of [
    ['an error table', '0 8 error', 'severed'],
    ['another device beneath', '0 8 linear 253:9 0', 'in-use'],
    ['another offset', '0 8 linear 253:0 2048', 'in-use'],
  ] as const) {
    it(`with ${what} are rebuilt only when nothing holds them open`, async () => {
      const device = dm.add('gate-a', { table, openCount: 1 });
      expect(await reasonOf(ensure())).to.equal(reason);
      expect(dm.changes).to.deep.equal([]);
      device.openCount = 0;
      await ensure();
      expect(device.table).to.equal('0 8 linear 253:0 0');
    });
  }

  it('without a table get one; suspended ones are resumed; a waiting table is dropped', async () => {
    const device = dm.add('gate-a', { table: undefined });
    await ensure();
    expect(device.table).to.equal('0 8 linear 253:0 0');
    device.suspended = true;
    device.inactive = '0 8 error';
    await ensure();
    expect(device).to.include({ suspended: false, inactive: undefined, table: '0 8 linear 253:0 0' });
  });

  it('that are not ours are refused everywhere', async () => {
    dm.add('gate-a', { uuid: 'LVM-somebody', suspended: true });
    expect(await reasonOf(ensure())).to.equal('foreign');
    expect(await reasonOf(gates.sever(ID))).to.equal('foreign');
    expect(await reasonOf(gates.remove(ID))).to.equal('foreign');
    expect(await gates.resumeAll()).to.deep.equal([]);
    expect(await gates.list()).to.deep.equal([]);
    expect(dm.changes).to.deep.equal([]);
  });

  it('refuse an LV that is not there and a size that is none', async () => {
    dm.lvExists = false;
    expect(await reasonOf(ensure())).to.equal('backing');
    dm.lvExists = true;
    for (const size of [0, -512, 513, 0.5]) expect(await reasonOf(ensure(size))).to.equal('backing');
  });

  it('are severed once, and whatever is suspended goes on', async () => {
    const device = dm.add('gate-a', { suspended: true, openCount: 1 });
    await gates.sever(ID);
    expect(device).to.include({ table: '0 8 error', suspended: false });
    await gates.sever(ID);
    expect(dm.changes).to.deep.equal(['wipe_table gate-a']);
  });

  it("a sever that an earlier life's wipe_table overtakes looks again, and never takes an error for success", async () => {
    const device = dm.add('gate-a', { openCount: 1 });
    dm.before = async () => {
      device.table = '0 8 error';
      throw dmFailure('resume ioctl on gate-a  failed: Invalid argument');
    };
    await gates.sever(ID);
    expect(dm.changes).to.deep.equal(['wipe_table gate-a']);
    device.table = '0 8 linear 253:0 0';
    dm.before = async () => {
      throw dmFailure('resume ioctl on gate-a  failed: Invalid argument');
    };
    expect(await gates.sever(ID).catch((error: Error) => error.message)).to.contain('Invalid argument');
    expect(device.table).to.equal('0 8 linear 253:0 0');
  });

  it('that are absent are severed and removed already', async () => {
    await gates.sever(ID);
    await gates.remove(ID);
    expect(dm.changes).to.deep.equal([]);
  });

  it('never say that they are severed before dmsetup has said so; a retry joins it, others wait', async () => {
    dm.add('gate-a');
    const drained = Promise.withResolvers<void>();
    dm.before = () => drained.promise;
    let failed: unknown;
    await gates.sever(ID, { timeoutMs: 20 }).catch((error: unknown) => {
      failed = error;
    });
    expect(failed).to.be.instanceOf(GateTimeoutError);
    const retry = gates.sever(ID, { timeoutMs: 10_000 });
    const ensured = reasonOf(ensure());
    let over = false;
    void retry.then(() => {
      over = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([over, dm.changes]).to.deep.equal([false, ['wipe_table gate-a']]);
    drained.resolve();
    await retry;
    await ensured;
    expect(dm.changes[0]).to.equal('wipe_table gate-a');
    expect(dm.changes.filter((change) => change.startsWith('wipe'))).to.have.lengthOf(1);
  });

  it('believe the kernel, not dmsetup: a table that is still there is an error', async () => {
    const device = dm.add('gate-a');
    dm.before = async () => {
      setImmediate(() => {
        device.table = '0 8 linear 253:0 0';
      });
    };
    const files = dm.files();
    const stubborn = new DmGates({ commands: dm, files: { ...files, readdir: async () => ['dm-0'] } });
    expect(await reasonOf(stubborn.sever(ID))).to.equal('failed');
  });

  it('are removed when the last one has let go, and only then', async () => {
    const device = dm.add('gate-a', { openCount: 1 });
    const removing = gates.remove(ID);
    setTimeout(() => {
      device.openCount = 0;
    }, 120);
    await removing;
    expect(dm.changes).to.deep.equal(['remove gate-a']);
    dm.add('gate-a', { openCount: 1 });
    expect(await reasonOf(gates.remove(ID))).to.equal('in-use');
  });

  it('that a crash left suspended are resumed with the table that they had', async () => {
    const left = dm.add('gate-a', { suspended: true, inactive: '0 8 error' });
    dm.add('gate-b');
    expect(await gates.resumeAll()).to.deep.equal([ID]);
    expect(left).to.include({ suspended: false, table: '0 8 linear 253:0 0' });
  });

  it('know whose LV is beneath them', async () => {
    dm.add('gate-a');
    expect(await gates.servesOtherVg(ID, 'vgv-gvg')).to.equal(false);
    expect(await gates.servesOtherVg(ID, 'xyz')).to.equal(true);
    expect(await gates.servesOtherVg('volume-none', 'xyz')).to.equal(false);
  });
});
