import { access, link, readdir, stat, writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { DatabaseLock } from '../../../../src/iscsi/initiator/database-lock.ts';
import { IscsiError } from '../../../../src/iscsi/initiator/errors.ts';
import { FakeHost } from './support/host.ts';

const LOCK = 'run/lock/iscsi/lock.write';

describe("initiator: open-iscsi's database lock", () => {
  let host: FakeHost;
  beforeEach(async () => {
    host = await FakeHost.make();
  });
  afterEach(() => host.remove());

  const lock = (waitMs = 300): DatabaseLock => new DatabaseLock({ files: host.files, hostRoot: host.root, waitMs });
  const names = (): Promise<string[]> => readdir(host.path('run/lock/iscsi'));

  it('is held under the name that open-iscsi looks at, and leaves nothing', async () => {
    const held = await lock().run(async () => {
      // What iscsiadm does to take it (idbm.c): link(LOCK_FILE, LOCK_WRITE_FILE).
      await writeFile(host.path('run/lock/iscsi/lock'), '');
      return await link(host.path('run/lock/iscsi/lock'), host.path(LOCK)).catch(
        (error: NodeJS.ErrnoException) => error.code,
      );
    });
    expect(held).to.equal('EEXIST');
    expect(await names()).to.deep.equal(['lock']);
  });

  it('is given back when the work fails', async () => {
    const failing = lock().run(async () => {
      throw new Error('no');
    });
    expect(await failing.catch((error: Error) => error.message)).to.equal('no');
    expect(await names()).to.deep.equal([]);
  });

  it('is held by one at a time', async () => {
    const shared = lock(5_000);
    const other = new DatabaseLock({ files: host.files, hostRoot: host.root, pid: 99, waitMs: 5_000 });
    await host.process(99, 1);
    let inside = 0;
    const work = async (): Promise<void> => {
      inside += 1;
      expect(inside).to.equal(1);
      await new Promise((resolve) => setTimeout(resolve, 5));
      inside -= 1;
    };
    await Promise.all(Array.from({ length: 10 }, (_, index) => (index % 2 === 0 ? shared : other).run(work)));
    expect(await names()).to.deep.equal([]);
  });

  it("waits for somebody else's, then names it, and never breaks it", async () => {
    await host.write(LOCK, '');
    const error = await lock()
      .run(async () => 'done')
      .catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(IscsiError).with.property('kind', 'lock-busy');
    expect((error as Error).message).to.include('/run/lock/iscsi/lock.write');
    expect(await names()).to.deep.equal(['lock.write']);
  });

  it('gets it when the holder is done in time', async () => {
    await host.write(LOCK, '');
    setTimeout(() => void host.files.unlink(host.path(LOCK)), 50);
    expect(await lock(5_000).run(async () => 'done')).to.equal('done');
  });

  it('breaks the lock of an earlier run of ours that has died', async () => {
    // The pid lives again as another process: start times tell them apart.
    await host.process(77, 2);
    await host.write('run/lock/iscsi/lvm-iscsi-csi.77.1', '');
    await link(host.path('run/lock/iscsi/lvm-iscsi-csi.77.1'), host.path(LOCK));
    expect(await lock().run(async () => 'done')).to.equal('done');
    expect(await names()).to.deep.equal([]);
  });

  it('breaks such a lock at start, before anything else needs it, and no other', async () => {
    await lock().releaseLeft();
    await host.process(77, 2);
    await host.write('run/lock/iscsi/lvm-iscsi-csi.77.1', '');
    await link(host.path('run/lock/iscsi/lvm-iscsi-csi.77.1'), host.path(LOCK));
    await lock().releaseLeft();
    expect(await names()).to.deep.equal([]);
    await host.write(LOCK, '');
    await lock().releaseLeft();
    expect(await names()).to.deep.equal(['lock.write']);
  });

  it('takes back what a call of this very process has left', async () => {
    const own = `run/lock/iscsi/lvm-iscsi-csi.${process.pid}.4711`;
    await host.write(own, '');
    await link(host.path(own), host.path(LOCK));
    expect(await lock().run(async () => 'done')).to.equal('done');
    expect(await names()).to.deep.equal([]);
  });

  it("does not break another living process's, nor somebody else's beside a dead name of ours", async () => {
    await host.process(77, 1);
    await host.write('run/lock/iscsi/lvm-iscsi-csi.77.1', '');
    await link(host.path('run/lock/iscsi/lvm-iscsi-csi.77.1'), host.path(LOCK));
    await host.write('run/lock/iscsi/lvm-iscsi-csi.78.1', '');
    const before = (await stat(host.path(LOCK))).ino;
    const error = await lock()
      .run(async () => 'done')
      .catch((caught: unknown) => caught);
    expect(error).to.have.property('kind', 'lock-busy');
    expect((await stat(host.path(LOCK))).ino).to.equal(before);
    await access(host.path('run/lock/iscsi/lvm-iscsi-csi.77.1'));
  });
});
