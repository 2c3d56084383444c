/** Every operation on a sound VG: what it does, that it converges, and how many processes it takes. */
import { strict as assert } from 'node:assert';
import { escapeTagValue, unescapeTagValue } from '../../../src/lvm/tags.ts';
import { type Bench, fails, MIB, type Scenario, timed, VG } from './bench.ts';

const NAMES = ['volume-1', 'volume-2', 'volume-3'];

async function life(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  const empty = await timed('first read, VG without LVs, environment made', () => lvm.read());
  assert.deepEqual(bench.commands.take(), ['lvmconfig', 'vgs', 'lvs', 'vgs']);
  assert.equal(empty.lvs.length, 0);
  assert.equal(empty.vg.name, VG);
  assert.equal(empty.vg.freeBytes, empty.vg.sizeBytes);
  assert.match(empty.vg.spaceId ?? '', /^[0-9a-f]{32}$/);

  // Not a multiple of anything: rounded up to an extent.
  await timed('lvcreate', () => lvm.createLinear({ name: 'volume-1', sizeBytes: 4 * MIB + 1, tags: ['a', 'b=c'] }));
  assert.deepEqual(bench.commands.take(), ['lvcreate']);
  // Of an LV that anybody may activate at boot it says "enabled".
  assert.equal(await bench.sh(`lvs --noheadings -o autoactivation ${VG}/volume-1`), '');
  const report = await timed('read of one LV', () => lvm.read());
  assert.deepEqual(bench.commands.take(), ['lvs']);
  const [lv] = report.lvs;
  assert.deepEqual(
    {
      ...lv,
      uuid: '',
      extents: lv?.extents.length,
      tags: lv?.tags.toSorted(),
      createdAt: Math.abs((lv?.createdAt ?? 0) - Date.now() / 1000) < 60,
    },
    {
      name: 'volume-1',
      uuid: '',
      path: `/dev/${VG}/volume-1`,
      sizeBytes: 8 * MIB,
      tags: ['a', 'b=c'],
      createdAt: true,
      active: true,
      open: false,
      suspended: false,
      segmentType: 'linear',
      poolName: undefined,
      originName: undefined,
      extents: 1,
      dataPercent: undefined,
      metadataPercent: undefined,
    },
  );
  assert.equal(report.vg.spaceId, empty.vg.spaceId);
  assert.equal(report.vg.freeBytes, empty.vg.freeBytes - 8 * MIB);
  await fails('lv-exists', lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] }));

  bench.commands.take();
  await timed('tags', () => lvm.changeTags('volume-1', { add: ['x', 'y'], remove: ['a', 'never'] }));
  await lvm.changeTags('volume-1', { add: ['x', 'y'], remove: ['a', 'never'] });
  assert.deepEqual(bench.commands.take(), ['lvchange', 'lvchange']);
  assert.deepEqual((await lvm.read()).lvs[0]?.tags.toSorted(), ['b=c', 'x', 'y']);
  await fails('lv-not-found', lvm.changeTags('volume-9', { add: ['x'] }));
  await lvm.changeVgTags({ add: ['v1', 'v2'] });
  await lvm.changeVgTags({ add: ['v3'], remove: ['v1'] });
  assert.deepEqual((await lvm.read()).vg.tags.toSorted(), ['v2', 'v3']);

  await timed('extend', () => lvm.extend('volume-1', 12 * MIB));
  await lvm.extend('volume-1', 12 * MIB);
  await lvm.extend('volume-1', 9 * MIB);
  assert.equal((await lvm.read()).lvs[0]?.sizeBytes, 12 * MIB);
  assert.equal(await bench.sh(`blockdev --getsize64 /dev/${VG}/volume-1`), String(12 * MIB));
  await fails('lv-not-found', lvm.extend('volume-9', MIB));

  await timed('deactivate', () => lvm.deactivate(['volume-1', 'volume-9']));
  assert.equal((await lvm.read()).lvs[0]?.active, false);
  await timed('activate', () => lvm.activate(['volume-1']));
  await lvm.activate(['volume-1']);
  assert.equal((await lvm.read()).lvs[0]?.active, true);
  await fails('lv-not-found', lvm.activate(['volume-1', 'volume-9']));

  await timed('rename', () => lvm.rename('volume-1', '_wipe-1'));
  await fails('lv-not-found', lvm.rename('volume-1', '_wipe-2'));
  await lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] });
  await fails('lv-exists', lvm.rename('volume-1', '_wipe-1'));

  bench.commands.take();
  await timed('remove of 2', () => lvm.remove(['volume-1', '_wipe-1']));
  assert.deepEqual(bench.commands.take(), ['lvremove']);
  await lvm.remove(['volume-1', '_wipe-1', 'never']);
  assert.equal((await lvm.read()).lvs.length, 0);
}

/** Any text becomes tags that LVM keeps byte for byte. */
async function tags(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  const texts = [
    'Ünïcødé ☃ 💾',
    `quotes ' " \` $(touch /tmp/oops) $HOME`,
    'new\nline\ttab\u0000nul',
    'a,b@c%d~e&f#g!h:i=j/k-l.m_n+o',
    'x'.repeat(128),
  ];
  const values = texts.map((text, index) => `t${index}=${escapeTagValue(text)}`);
  values.push(`long=${'y'.repeat(1019)}`);
  await lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: values });
  const kept = (await lvm.read()).lvs[0]?.tags ?? [];
  assert.deepEqual(kept.toSorted(), values.toSorted());
  for (const [index, text] of texts.entries()) {
    const tag = kept.find((candidate) => candidate.startsWith(`t${index}=`)) ?? '';
    assert.equal(unescapeTagValue(tag.slice(3)), text);
  }
  await fails('invalid', lvm.changeTags('volume-1', { add: ['a b'] }));
  await fails('invalid', lvm.createLinear({ name: 'volume $x', sizeBytes: MIB, tags: [] }));
  await fails('invalid', lvm.createLinear({ name: 'snapshot-1', sizeBytes: MIB, tags: [] }));
}

/** Concurrent callers: mutations one after another, reads shared, nothing lost. */
async function concurrency(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  await lvm.read();
  bench.commands.take();
  await timed('3 lvcreate at once, each read back', () =>
    Promise.all(
      NAMES.map(async (name) => {
        await lvm.createLinear({ name, sizeBytes: 4 * MIB, tags: [name] });
        const { lvs } = await lvm.read();
        assert.deepEqual(lvs.find((lv) => lv.name === name)?.tags, [name]);
      }),
    ),
  );
  assert.equal(bench.commands.take().filter((command) => command === 'lvcreate').length, 3);
  await timed('20 fresh reads at once', () => Promise.all(Array.from({ length: 20 }, () => lvm.read({ fresh: true }))));
  // One was running when the others came; they share the next.
  assert.deepEqual(bench.commands.take(), ['lvs', 'lvs']);
  await Promise.all(Array.from({ length: 20 }, () => lvm.read()));
  assert.deepEqual(bench.commands.take(), []);
  await bench.sh(`lvcreate -qq -an -Zn -Wn -L 4m -n by-hand ${VG}`);
  assert.equal((await lvm.read({ fresh: true })).lvs.length, 4);
  await timed('remove of 4', () => lvm.remove([...NAMES, 'by-hand']));
}

/** Pools and snapshots in the VG are read rightly, and never removed along with something else. */
async function otherTypes(bench: Bench): Promise<void> {
  await bench.vgcreate();
  await bench.sh(
    `lvcreate -qq -y --type thin-pool -L 64m -n pool ${VG}; lvcreate -qq -y -V 32m --thinpool ${VG}/pool -n thin1
     lvcreate -qq -y -s -n thin2 ${VG}/thin1; lvcreate -qq -y -L 16m -n thick ${VG}; lvcreate -qq -y -s -L 8m -n snap ${VG}/thick
     vgextend -qq ${VG} ${bench.disk(1)}; lvcreate -qq -y -i2 -L 16m -n striped ${VG}`,
  );
  const lvm = bench.lvm();
  const { lvs } = await lvm.read();
  assert.deepEqual(Object.fromEntries(lvs.map((lv) => [lv.name, [lv.segmentType, lv.poolName, lv.originName]])), {
    pool: ['thin-pool', undefined, undefined],
    thin1: ['thin', 'pool', undefined],
    thin2: ['thin', 'pool', 'thin1'],
    thick: ['linear', undefined, undefined],
    snap: ['linear', undefined, 'thick'],
    striped: ['striped', undefined, undefined],
  });
  assert.equal(typeof lvs.find((lv) => lv.name === 'pool')?.metadataPercent, 'number');
  assert.equal(lvs.find((lv) => lv.name === 'thin2')?.active, false);
  await lvm.activate(['thin2']);
  assert.equal((await lvm.read()).lvs.find((lv) => lv.name === 'thin2')?.active, true);
  await fails('in-use', lvm.remove(['thick']));
  await fails('in-use', lvm.remove(['pool']));
  assert.equal((await lvm.read()).lvs.length, 6);
  // The origin of a thin snapshot may go.
  await lvm.remove(['thin1', 'snap']);
  await lvm.remove(['thick']);
  assert.deepEqual((await lvm.read()).lvs.map((lv) => lv.name).toSorted(), ['pool', 'striped', 'thin2']);
}

export const operationScenarios: Readonly<Record<string, Scenario>> = { life, tags, concurrency, otherTypes };
