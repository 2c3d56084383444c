import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { buildOnce, cacheFolder, contentHash, exists, touchAndPrune, withLock } from '../../lab/cache.ts';

describe('lab cache', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'lab-cache-'));
  });

  afterEach(() => rm(folder, { recursive: true }));

  it('is where the XDG specification says', () => {
    expect(cacheFolder({ XDG_CACHE_HOME: '/some/where' })).to.equal('/some/where/lvm-iscsi-csi');
    expect(cacheFolder({ XDG_CACHE_HOME: 'relative' })).to.match(/\/\.cache\/lvm-iscsi-csi$/);
    expect(cacheFolder({})).to.match(/\/\.cache\/lvm-iscsi-csi$/);
  });

  it('names content, whatever order it was written in', () => {
    const hash = contentHash({ b: [1, { y: 1, x: undefined }], a: 'text' });
    expect(hash).to.match(/^[0-9a-f]{16}$/);
    expect(contentHash({ a: 'text', b: [1, { y: 1 }] })).to.equal(hash);
    expect(contentHash({ a: 'text', b: [{ y: 1 }, 1] })).not.to.equal(hash);
    expect(contentHash({ a: 'text2', b: [1, { y: 1 }] })).not.to.equal(hash);
  });

  it('builds once for several who ask at once', async () => {
    let built = 0;
    const target = path.join(folder, 'thing');
    const ask = (): Promise<string> =>
      buildOnce(target, async (temporary) => {
        built++;
        await writeFile(path.join(temporary, 'part'), 'whole');
      });
    expect(await Promise.all([ask(), ask(), ask()])).to.deep.equal([target, target, target]);
    expect(built).to.equal(1);
    expect(await readdir(target)).to.deep.equal(['part']);
  });

  it('leaves nothing of a build that failed or was killed, and builds again', async () => {
    const target = path.join(folder, 'thing');
    await mkdir(`${target}.building-killed`);
    const failed = await buildOnce(target, () => Promise.reject(new Error('no'))).catch(
      (error: Error) => error.message,
    );
    expect(failed).to.equal('no');
    expect(await readdir(folder)).to.deep.equal(['thing.lock']);
    await buildOnce(target, async () => undefined);
    expect(await exists(target)).to.equal(true);
  });

  it('excludes others while it holds a lock, and says that it waits', async () => {
    const order: string[] = [];
    const lock = path.join(folder, 'lock');
    const { promise: held, resolve: hold } = Promise.withResolvers<void>();
    const first = withLock(lock, async () => {
      hold();
      await new Promise((resolve) => setTimeout(resolve, 1200));
      order.push('first');
    });
    await held;
    await withLock(
      lock,
      async () => void order.push('second'),
      () => order.push('waiting'),
    );
    await first;
    expect(order).to.deep.equal(['waiting', 'first', 'second']);
  });

  it('removes what nobody has used for weeks', async () => {
    const [used, old, recent] = ['used', 'old', 'recent'].map((name) => path.join(folder, name)) as [
      string,
      string,
      string,
    ];
    for (const each of [used, old, recent]) await mkdir(each);
    const days = (count: number): Date => new Date(Date.now() - count * 86_400_000);
    await utimes(used, days(30), days(30));
    await utimes(old, days(30), days(30));
    await utimes(recent, days(3), days(3));
    await touchAndPrune(used);
    expect((await readdir(folder)).sort()).to.deep.equal(['recent', 'used']);
    expect((await stat(used)).mtimeMs).to.be.closeTo(Date.now(), 60_000);
  });
});
