/**
 * Order, sharing and error paths of the adapter, over a fake `lvm` (the real one: test/integration/lvm). The fake knows a
 * VG with LVs and tags, answers with reports of the real one's form, and can be made to fail.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { LvmError } from '../../../src/lvm/types.ts';
import { VgLvm } from '../../../src/lvm/vg-lvm.ts';
import { requestId, withContext } from '../../../src/system/context.ts';
import { FakeLvm, FakeNodes } from './fake-lvm.ts';

describe('lvm/vg-lvm over a fake lvm', () => {
  const files = new FakeNodes();
  let root: string;
  let fake: FakeLvm;
  let lvm: VgLvm;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'vg-lvm-'));
    fake = new FakeLvm(root, 'vg');
    lvm = new VgLvm({ commands: fake, files, vgName: 'vg', runDir: '/run/x', hostRoot: root });
  });

  afterEach(() => rmSync(root, { recursive: true }));
  after(() => files.close());

  async function kindOf(action: Promise<unknown>): Promise<string> {
    try {
      await action;
      return 'ok';
    } catch (error) {
      if (error instanceof LvmError) return error.kind;
      throw error;
    }
  }

  it('gives LVM a filter of the VG’s devices, and the settings that our parsers count on', async () => {
    await lvm.read();
    const conf = readFileSync(join(root, 'run/x/lvm/vg/lvm.conf'), 'utf8');
    expect(conf).to.contain('global_filter=["a|^/dev/vdb$|","r|.*|"]');
    // The host's own global filter counts as well.
    expect(conf).to.contain('filter=["r|^/dev/drbd|"]');
    for (const setting of ['use_aio=0', 'archive=0', 'backup=1', 'use_devicesfile=0', 'backup_dir="/etc/lvm/backup"'])
      expect(conf).to.contain(`\t${setting}\n`);
    const scan = readFileSync(join(root, 'run/x/lvm/vg/scan/lvm.conf'), 'utf8');
    expect(scan).to.contain('global_filter=["a|^/dev/vda$|","a|^/dev/vdb$|","a|^/dev/vdc$|","r|.*|"]');
    // No udevd runs on this "host".
    expect(fake.requests.at(-1)?.env).to.deep.equal({
      LVM_SUPPRESS_FD_WARNINGS: '1',
      DM_DISABLE_UDEV: '1',
      LVM_SYSTEM_DIR: '/run/x/lvm/vg',
    });
  });

  it('flushes the disks after each mutation while a cache of theirs is volatile, and fails when that fails', async () => {
    let mustFlush = false;
    const options = { commands: fake, files, vgName: 'vg', runDir: '/run/x', hostRoot: root };
    lvm = new VgLvm({ ...options, mustFlush: () => mustFlush });
    const flushes = () => fake.requests.filter(({ file }) => file === 'sync').map(({ args }) => args);
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    expect(flushes()).to.deep.equal([]);
    mustFlush = true;
    await lvm.changeTags('a', { add: ['x'] });
    await lvm.read({ fresh: true });
    expect(flushes()).to.deep.equal([['--', '/dev/vdb']]);
    fake.failNext('--', 'sync: error syncing');
    expect(await kindOf(lvm.changeTags('a', { add: ['y'] }))).to.equal('write-failed');
  });

  it('gives each command the name of LVM’s own command, for metrics and messages', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    await lvm.changeTags('a', { add: ['x'] });
    await lvm.rename('a', 'b');
    await lvm.remove(['b']);
    await lvm.read();
    const programs = new Set(fake.requests.map(({ program }) => program));
    expect([...programs].sort()).to.deep.equal([
      'lvchange',
      'lvcreate',
      'lvmconfig',
      'lvremove',
      'lvrename',
      'lvs',
      'vgs',
    ]);
    expect(fake.requests.every(({ program, args }) => program === args[0])).to.equal(true);
  });

  it('runs mutations one after another', async () => {
    await Promise.all([
      lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] }),
      lvm.createLinear({ name: 'b', sizeBytes: 1, tags: [] }),
      lvm.changeTags('a', { add: ['x'] }),
      lvm.rename('b', 'c'),
    ]);
    expect(fake.mostAtOnce('mutate')).to.equal(1);
    const { lvs } = await lvm.read();
    expect(lvs.map(({ name, tags }) => [name, ...tags])).to.deep.equal([['a', 'x'], ['c']]);
  });

  it('runs what waited in the queue under the id of its own call', async () => {
    await lvm.read();
    const seen = new Map<string, string | undefined>();
    const ids = new Map<string, string | undefined>();
    const run = fake.run.bind(fake);
    fake.run = async (request) => {
      const created = request.args[request.args.indexOf('--name') + 1];
      if (request.args[0] === 'lvcreate') seen.set(created ?? '', requestId());
      return await run(request);
    };
    const create = (name: string) =>
      withContext({}, async () => {
        ids.set(name, requestId());
        await lvm.createLinear({ name, sizeBytes: 1, tags: [] });
      });
    await Promise.all(['a', 'b', 'c'].map(create));
    expect(new Set(ids.values()).size).to.equal(3);
    expect([...seen]).to.deep.equal([...ids]);
  });

  it('reads its own writes, and shares reads', async () => {
    await Promise.all(
      ['a', 'b', 'c', 'd'].map(async (name) => {
        await lvm.createLinear({ name, sizeBytes: 1, tags: [] });
        expect((await lvm.read()).lvs.map((lv) => lv.name)).to.include(name);
      }),
    );
    fake.requests.length = 0;
    await Promise.all(Array.from({ length: 50 }, () => lvm.read()));
    expect(fake.subcommands()).to.deep.equal([]);
    await lvm.changeTags('a', { add: ['x'] });
    await Promise.all(Array.from({ length: 50 }, () => lvm.read()));
    expect(fake.subcommands()).to.deep.equal(['lvchange', 'lvs']);
  });

  it('a failed mutation ends the cache as well: it may have changed something', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    await lvm.read();
    fake.failNext('lvchange', '  Something went wrong after the commit');
    expect(await kindOf(lvm.changeTags('a', { add: ['x'] }))).to.equal('other');
    fake.requests.length = 0;
    await lvm.read();
    expect(fake.subcommands()).to.deep.equal(['lvs']);
  });

  it('never mutates with a size in anything but whole sectors told in bytes', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1000, tags: [] });
    expect(fake.requests.at(-1)?.args).to.include('1024b');
    for (const sizeBytes of [0, -1, 1.5, Number.NaN, 2 ** 60])
      expect(await kindOf(lvm.createLinear({ name: 'b', sizeBytes, tags: [] }))).to.equal('invalid');
  });

  it('keeps everyone else from activating a volume, as far as LVM knows how to', async () => {
    const options = () => fake.requests.flatMap(({ args }) => (args[0] === 'lvcreate' ? [args.slice(-3)] : []));
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    expect(options()).to.deep.equal([['--setautoactivation', 'n', 'vg']]);
    // As lvcreate 2.03.11 says it, with exit code 3.
    fake.failNext(
      'lvcreate',
      "lvcreate: unrecognized option '--setautoactivation'\n  Error during parsing of command line.",
    );
    await lvm.createLinear({ name: 'b', sizeBytes: 1, tags: [] });
    await lvm.createLinear({ name: 'c', sizeBytes: 1, tags: [] });
    expect(options().map((args) => args.includes('--setautoactivation'))).to.deep.equal([true, true, false, false]);
    expect((await lvm.read()).lvs.map(({ name }) => name)).to.have.members(['a', 'b', 'c']);
    fake.failNext('lvcreate', '  Something else');
    expect(await kindOf(lvm.createLinear({ name: 'd', sizeBytes: 1, tags: [] }))).to.equal('other');
  });

  it('extend is done when the LV is that large, whatever exit code that has', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 8192, tags: [] });
    fake.failNext('lvextend', '  New size (2 extents) matches existing size (2 extents).');
    expect(await kindOf(lvm.extend('a', 8192))).to.equal('ok');
    fake.failNext('lvextend', '  Something else');
    expect(await kindOf(lvm.extend('a', 16384))).to.equal('other');
  });

  it('remove: what is gone is no error, what is in use is', async () => {
    for (const name of ['a', 'b', 'c']) await lvm.createLinear({ name, sizeBytes: 1, tags: [] });
    expect(await kindOf(lvm.remove(['a', 'nothing']))).to.equal('ok');
    fake.failNext('lvremove', '  Logical volume vg/b is used by another device.');
    expect(await kindOf(lvm.remove(['b', 'c']))).to.equal('in-use');
    expect(await kindOf(lvm.remove([]))).to.equal('ok');
    fake.passOver.add('b');
    expect(await kindOf(lvm.remove(['b', 'c']))).to.equal('in-use');
    expect((await lvm.read()).lvs.map((lv) => lv.name)).to.deep.equal(['b']);
  });

  it('a PV that was added by hand is found; a VG that stays partial is not written to', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    fake.addPv('/dev/vdc', '254:32');
    await lvm.changeTags('a', { add: ['x'] });
    const { vg, lvs } = await lvm.read();
    expect(vg.missingPvCount).to.equal(0);
    expect(lvs[0]?.tags).to.deep.equal(['x']);
    fake.addPv('/dev/gone', undefined);
    expect(await kindOf(lvm.changeTags('a', { add: ['y'] }))).to.equal('vg-partial');
    expect(await kindOf(lvm.changeVgTags({ add: ['y'] }))).to.equal('vg-partial');
    expect(await kindOf(lvm.remove(['a']))).to.equal('vg-partial');
    const partial = await lvm.read({ fresh: true });
    expect(partial.vg).to.include({ missingPvCount: 1, spaceId: undefined });
    expect(partial.lvs[0]?.tags).to.deep.equal(['x']);
  });

  it('never takes a list that contradicts LVM’s own count for the VG’s', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    fake.report = '{"report":[{"lv":[]}]}';
    const refusal = await lvm.read({ fresh: true }).catch((error: Error) => error.message);
    expect(refusal).to.match(/lists 0 logical volumes .* counts 1/);
    fake.report = undefined;
    fake.nextReport = '{"report":[{"lv":[]}]}';
    expect((await lvm.read({ fresh: true })).lvs).to.have.length(1);
  });

  it('says that the VG is exported, and never that an LV is gone because of it', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    fake.exported = true;
    expect((await lvm.read({ fresh: true })).vg.exported).to.equal(true);
    expect(await kindOf(lvm.remove(['a']))).to.equal('vg-inaccessible');
    expect(await kindOf(lvm.deactivate(['a']))).to.equal('vg-inaccessible');
  });

  it('never takes extents of a disk that it has just found: who asked did not know of it', async () => {
    await lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] });
    for (const [device, allocate] of [
      ['/dev/vdc', () => lvm.createLinear({ name: 'b', sizeBytes: 1, tags: [] })],
      ['/dev/vda', () => lvm.extend('a', 8192)],
    ] as const) {
      fake.addPv(device, device === '/dev/vdc' ? '254:32' : '254:0');
      fake.requests.length = 0;
      expect(await kindOf(allocate())).to.equal('vg-changed');
      expect(fake.subcommands().filter((name) => /^lv(create|extend)$/.test(name))).to.have.length(1);
      expect(await kindOf(allocate())).to.equal('ok');
    }
  });

  it('says which device node is missing', async () => {
    fake.makesNodes = false;
    const creation = lvm.createLinear({ name: 'a', sizeBytes: 1, tags: [] }).catch((error: Error) => error.message);
    expect(await creation).to.contain('/dev/vg/a');
  });

  it('names the package when LVM is not installed', async () => {
    fake.missing = true;
    expect(await kindOf(lvm.read())).to.equal('lvm-missing');
  });

  it('says clearly that a report is not what it should be', async () => {
    await lvm.read();
    for (const output of ['', '{', '{"report":[{"lv":[{"lv_name":5}]}]}', '{"report":[{"lv":[{"lv_name":"x"}]}]}']) {
      fake.nextReport = output;
      const message = await lvm.read({ fresh: true }).catch((error: Error) => error.message);
      expect(message).to.match(/^LVM's report/);
    }
  });
});
