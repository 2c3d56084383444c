/** What goes wrong on a storage host, made to happen: full, absent, partial, foreign, in use, suspended above us. */
import { strict as assert } from 'node:assert';
import { type Bench, fails, MIB, type Scenario, timed, VG } from './bench.ts';

async function full(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  const { vg } = await lvm.read();
  await fails('no-space', lvm.createLinear({ name: 'volume-1', sizeBytes: vg.freeBytes + 1, tags: [] }));
  await lvm.createLinear({ name: 'volume-1', sizeBytes: vg.freeBytes - vg.extentSizeBytes, tags: [] });
  await fails('no-space', lvm.extend('volume-1', vg.sizeBytes + 1));
  await lvm.extend('volume-1', vg.sizeBytes);
  assert.equal((await lvm.read()).vg.freeBytes, 0);
  await fails('no-space', lvm.createLinear({ name: 'volume-2', sizeBytes: 1, tags: [] }));
}

async function metadataFull(bench: Bench): Promise<void> {
  // The smallest area there is.
  await bench.sh(`pvcreate -qq -y -ff --metadatasize 4k --dataalignment 64k ${bench.disk(0)}`);
  await bench.vgcreate('');
  const lvm = bench.lvm();
  const { vg } = await lvm.read();
  console.log(`  metadata area: ${vg.metadataSizeBytes} bytes, ${vg.metadataFreeBytes} free`);
  const tags = Array.from({ length: 16 }, (_, index) => `${index}=${'x'.repeat(1000)}`);
  let created = 0;
  const fill = async (): Promise<never> => {
    for (;;) {
      await lvm.createLinear({ name: `volume-${created}`, sizeBytes: 4 * MIB, tags });
      created += 1;
    }
  };
  const error = await fails('metadata-full', fill());
  console.log(`  after ${created} LVs: ${error.message.split('\n').at(1)?.trim()}`);
  const { lvs } = await lvm.read();
  assert.equal(lvs.length, created);
  await fails('metadata-full', lvm.changeVgTags({ add: tags }));
  await lvm.remove(lvs.map((lv) => lv.name));
}

async function absent(bench: Bench): Promise<void> {
  const lvm = bench.lvm();
  await fails('vg-not-found', lvm.read());
  await fails('vg-not-found', lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] }));
  // Late, not absent.
  await bench.vgcreate();
  assert.equal((await lvm.read()).lvs.length, 0);
  await lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] });
  await bench.sh(`vgremove -qq -ff -y ${VG}`);
  await fails('vg-not-found', lvm.read({ fresh: true }));
  await fails('vg-not-found', lvm.changeTags('volume-1', { add: ['x'] }));
}

/**
 * vgextend by hand: found by the next command, whichever it is; no command ever writes metadata without the new PV. An
 * allocation is not repeated by itself, because the new PV may hold anything: whoever asked looks again.
 */
async function vgextend(bench: Bench): Promise<void> {
  for (const first of ['read', 'create', 'tags', 'vg-tags', 'remove', 'extend', 'rename']) {
    await bench.vgcreate();
    const lvm = bench.lvm();
    await lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] });
    const before = await lvm.read();
    await bench.sh(`vgextend -qq -y ${VG} ${bench.disk(1)}`);
    const create = () => lvm.createLinear({ name: 'volume-2', sizeBytes: MIB, tags: [] });
    const extend = () => lvm.extend('volume-1', 8 * MIB);
    if (first === 'create') await fails('vg-changed', create());
    if (first === 'extend') await fails('vg-changed', extend());
    if (first === 'create') await create();
    if (first === 'extend') await extend();
    if (first === 'tags') await lvm.changeTags('volume-1', { add: ['x'] });
    if (first === 'vg-tags') await lvm.changeVgTags({ add: ['x'] });
    if (first === 'remove') await lvm.remove(['volume-1']);
    if (first === 'rename') await lvm.rename('volume-1', 'volume-3');
    const after = await lvm.read({ fresh: true });
    assert.equal(after.vg.missingPvCount, 0, first);
    assert.ok(after.vg.sizeBytes > before.vg.sizeBytes, first);
    assert.notEqual(after.vg.spaceId, before.vg.spaceId, first);
    const pvs = await bench.sh(`vgs ${VG} 2>&1 >/dev/null; pvs --noheadings -o pv_missing -S vg_name=${VG} 2>&1`);
    assert.doesNotMatch(pvs, /WARNING|missing/, `${first}: metadata was written without the new PV`);
    if (first === 'tags') assert.deepEqual(after.lvs[0]?.tags, ['x']);
    if (first === 'remove') assert.equal(after.lvs.length, 0);
    await bench.clean();
  }
}

/** A PV goes away for real: read says so, nothing is changed, and it comes back. */
async function partial(bench: Bench): Promise<void> {
  // A PV that can be taken away: a device-mapper device with an awkward name over the second disk.
  // Not from the disk's first sector on, or LVM would find the PV on the disk itself.
  const table = `0 524288 linear ${bench.disk(1)} 2048`;
  await bench.sh(`dmsetup create pv-a.b+c --table '${table}'; udevadm settle`);
  await bench.vgcreate('--metadatasize 16m', [bench.disk(0), '/dev/mapper/pv-a.b+c']);
  const lvm = bench.lvm();
  await lvm.createLinear({ name: 'volume-1', sizeBytes: 4 * MIB, tags: ['a'] });
  const whole = await lvm.read();
  assert.equal(whole.vg.missingPvCount, 0);
  await bench.sh('dmsetup remove pv-a.b+c; udevadm settle');
  const report = await timed('read of a partial VG (searches for the PV)', () => lvm.read({ fresh: true }));
  assert.equal(report.vg.missingPvCount, 1);
  assert.equal(report.vg.spaceId, undefined);
  assert.equal(report.lvs.length, 1);
  await fails('vg-partial', lvm.createLinear({ name: 'volume-2', sizeBytes: MIB, tags: [] }));
  await fails('vg-partial', lvm.changeTags('volume-1', { add: ['x'] }));
  await fails('vg-partial', lvm.changeVgTags({ add: ['x'] }));
  await fails('vg-partial', lvm.remove(['volume-1']));
  await fails('vg-partial', lvm.rename('volume-1', 'volume-2'));
  await fails('vg-partial', lvm.extend('volume-1', 16 * MIB));
  await bench.sh(`dmsetup create pv-a.b+c --table '${table}'; udevadm settle`);
  const back = await lvm.read({ fresh: true });
  assert.deepEqual(back.vg, whole.vg);
  assert.deepEqual(back.lvs, whole.lvs);
  assert.doesNotMatch(await bench.sh(`vgs ${VG} 2>&1`), /WARNING/);
}

async function notOurs(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  await lvm.createLinear({ name: 'volume-1', sizeBytes: MIB, tags: [] });
  await bench.sh(`vgchange -qq -an ${VG}; vgexport -qq ${VG}`);
  const exported = await lvm.read({ fresh: true });
  assert.equal(exported.vg.exported, true);
  await fails('vg-inaccessible', lvm.createLinear({ name: 'volume-2', sizeBytes: MIB, tags: [] }));
  await fails('vg-inaccessible', lvm.activate(['volume-1']));
  await bench.sh(`vgimport -qq ${VG}; vgchange -qq -y --systemid another-host ${VG}`);
  await fails('vg-inaccessible', lvm.read({ fresh: true }));
  await fails('vg-inaccessible', lvm.changeTags('volume-1', { add: ['x'] }));
  await fails('vg-inaccessible', bench.lvm().read());
  await bench.sh(
    `vgchange -qq -y --config 'global/system_id_source="lvmlocal" local/system_id="another-host"' --systemid '' ${VG}`,
  );
  assert.equal((await lvm.read({ fresh: true })).lvs.length, 1);
}

/** A gate above an LV: renaming goes, removing does not; LVM never waits for it while it is suspended. */
async function gates(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  for (const name of ['volume-1', 'volume-2']) await lvm.createLinear({ name, sizeBytes: 8 * MIB, tags: [] });
  await bench.sh(
    `dmsetup create gate-1 --uuid LVMISCSICSI-gate-1 --table "0 16384 linear /dev/${VG}/volume-1 0"
     dmsetup create pv-above --table "0 16384 linear /dev/mapper/gate-1 0"; udevadm settle`,
  );
  assert.equal((await lvm.read({ fresh: true })).lvs.find((lv) => lv.name === 'volume-1')?.open, true);
  await fails('in-use', lvm.remove(['volume-1', 'volume-2']));
  await fails('in-use', lvm.deactivate(['volume-1']));
  await bench.sh('dmsetup suspend gate-1');
  // A reader of the device that stands on the gate would hang: LVM must not be one. Also with a new environment.
  for (const adapter of [lvm, bench.lvm({ runDir: '/run/lvm-adapter-test/second' })]) {
    await timed('read while a gate is suspended', () => adapter.read({ fresh: true }));
    await adapter.createLinear({ name: 'volume-3', sizeBytes: MIB, tags: [] });
    await adapter.remove(['volume-3']);
  }
  await timed('search for PVs while a gate is suspended', async () => {
    await bench.sh(
      `vgextend -qq -y --config 'devices{global_filter=["a|^${bench.disk(0)}$|","a|^${bench.disk(1)}$|","r|.*|"]}' ${VG} ${bench.disk(1)}`,
    );
    assert.equal((await lvm.read({ fresh: true })).vg.missingPvCount, 0);
  });
  await bench.sh('dmsetup resume gate-1; dmsetup remove pv-above; dmsetup remove gate-1');
  await lvm.remove(['volume-1', 'volume-2']);
}

export const failureScenarios: Readonly<Record<string, Scenario>> = {
  full,
  metadataFull,
  absent,
  vgextend,
  partial,
  notOurs,
  gates,
};
