/** Zeroing, wiping and scrubbing on disks full of a pattern, checked byte for byte. */
import { strict as assert } from 'node:assert';
import { RateLimiter } from '../../../src/lvm/rate-limit.ts';
import { BlankTrust, scrub, scrubTags } from '../../../src/lvm/scrub.ts';
import type { LogicalVolume, VgReport } from '../../../src/lvm/types.ts';
import { Wiper, type WiperStatus } from '../../../src/lvm/wiper.ts';
import { zeroRange } from '../../../src/lvm/zero.ts';
import { type Bench, fails, MIB, nonZeroMib, type Scenario, timed, VG } from './bench.ts';

const DISK_MIB = 128;
const UNLIMITED = new RateLimiter(0);

/** A VG of small disks (device-mapper over the real ones), all of it 0xaa. */
async function patternVg(bench: Bench, disks = 1, diskMib = DISK_MIB): Promise<void> {
  const paths: string[] = [];
  for (let index = 0; index < disks; index += 1) {
    const table = `0 ${(diskMib * MIB) / 512} linear ${bench.disk(index)} 2048`;
    await bench.sh(
      `dmsetup create pv-${index} --table '${table}'; head -c ${diskMib}M /dev/zero | tr '\\0' '\\252' | dd of=/dev/mapper/pv-${index} bs=1M iflag=fullblock oflag=direct status=none`,
    );
    paths.push(`/dev/mapper/pv-${index}`);
  }
  await bench.vgcreate('--metadatasize 1m', paths);
}

const isOurs = (lv: LogicalVolume): boolean => /^(?:volume|_wipe)-/.test(lv.name);
const isDeleted = (lv: LogicalVolume): boolean => lv.name.startsWith('_wipe-') && lv.tags.includes('wipe');

async function zero(bench: Bench): Promise<void> {
  await patternVg(bench);
  const lvm = bench.lvm();
  await lvm.createLinear({ name: 'volume-1', sizeBytes: 96 * MIB, tags: [] });
  const path = `/dev/${VG}/volume-1`;
  assert.equal((await nonZeroMib(bench, path)).length, 96);
  // Awkward edges: exactly these bytes.
  await zeroRange(bench.commands, path, 3 * MIB + 1, 2 * MIB + 5000);
  const around = await bench.files.readBytes(path, 3 * MIB - 8, 2 * MIB + 8192);
  const zeros = [...around.entries()].filter(([, byte]) => byte === 0).map(([index]) => index);
  assert.equal(zeros.length, 2 * MIB + 5000);
  assert.equal(zeros[0], 9);
  assert.equal(zeros.at(-1), 2 * MIB + 5000 + 8);
  const seen: number[] = [];
  bench.commands.take();
  await timed('96 MiB', () => zeroRange(bench.commands, path, 0, 96 * MIB, { onProgress: (done) => seen.push(done) }));
  assert.equal(seen[0], 64 * MIB);
  assert.equal(seen.at(-1), 96 * MIB);
  assert.deepEqual(await nonZeroMib(bench, path), []);

  await bench.sh(
    `head -c 96M /dev/zero | tr '\\0' '\\252' | dd of=${path} bs=1M iflag=fullblock oflag=direct status=none`,
  );
  const limited = new RateLimiter(16 * MIB);
  const stop = new AbortController();
  let done = 0;
  const startedAt = performance.now();
  await assert.rejects(
    zeroRange(bench.commands, path, 0, 96 * MIB, {
      limiter: limited,
      signal: stop.signal,
      onProgress: (doneBytes) => {
        done = doneBytes;
        if (doneBytes >= 80 * MIB) stop.abort(new Error('stopped'));
      },
    }),
    /stopped/,
  );
  const seconds = (performance.now() - startedAt) / 1000;
  console.log(`  ${done / MIB} MiB at a limit of 16 MiB/s in ${seconds.toFixed(1)} s`);
  assert.equal(done, 80 * MIB);
  // One second's worth is there at the beginning, and the last chunk is let through in advance.
  assert.ok(seconds > 2.9);
  assert.deepEqual(
    await nonZeroMib(bench, path),
    Array.from({ length: 16 }, (_, index) => 80 + index),
  );

  // Held by a gate: only when said so.
  await bench.sh(`dmsetup create gate-1 --uuid LVMISCSICSI-gate-1 --table "0 16384 linear ${path} 0"`);
  await fails('in-use', zeroRange(bench.commands, path, 0, MIB));
  await zeroRange(bench.commands, path, 80 * MIB, 16 * MIB, { shared: true });
  assert.deepEqual(await nonZeroMib(bench, path), []);
  await bench.sh('dmsetup remove gate-1');
  // A left-over of a killed driver holds the device's lock: it is waited for.
  let ended = false;
  const left = bench.sh(`flock ${path} sleep 5`).then(() => {
    ended = true;
  });
  await bench.sh(`for i in $(seq 50); do flock -n ${path} true || exit 0; sleep 0.1; done; exit 1`);
  assert.equal(ended, false);
  await zeroRange(bench.commands, path, 0, MIB);
  assert.equal(ended, true);
  await left;
}

async function wipe(bench: Bench): Promise<void> {
  await patternVg(bench);
  const lvm = bench.lvm();
  for (const [name, mib] of [
    ['_wipe-1', 32],
    ['_wipe-2', 16],
    ['volume-1', 8],
  ] as const)
    await lvm.createLinear({ name, sizeBytes: mib * MIB, tags: name === 'volume-1' ? [] : ['wipe'] });
  await lvm.deactivate(['_wipe-2']);
  // Said to be zero up to here: believed, so this part must come out untouched.
  await lvm.changeTags('_wipe-1', { add: [`lic:wiped=${8 * MIB}`] });
  const wiped: string[] = [];
  const wiper = new Wiper({
    lvm,
    commands: bench.commands,
    limiter: UNLIMITED,
    isDeleted,
    onWiped: (lvs) => wiped.push(...lvs.map((lv) => lv.name)),
  });
  wiper.start();
  wiper.wake();
  const status = await settled(wiper, (now) => now.removedVolumes === 2);
  await wiper.stop();
  console.log(`  status: ${JSON.stringify(status)}`);
  assert.equal(status.wipedBytes, 40 * MIB);
  assert.equal(status.waitingBytes, 0);
  assert.deepEqual(wiped.toSorted(), ['_wipe-1', '_wipe-2']);
  assert.deepEqual(
    (await lvm.read({ fresh: true })).lvs.map((lv) => lv.name),
    ['volume-1'],
  );
  // The extents lie in the order of creation.
  await bench.sh(`lvremove -qq -f -y ${VG}/volume-1`);
  await lvm.createLinear({ name: 'all', sizeBytes: 64 * MIB, tags: [] });
  assert.deepEqual(await nonZeroMib(bench, `/dev/${VG}/all`), [
    ...Array.from({ length: 8 }, (_, index) => index),
    ...Array.from({ length: 16 }, (_, index) => 48 + index),
  ]);
}

/** Stopped in the midst of a large LV, and held open by somebody: it waits, goes on, and ends. */
async function wipeInterrupted(bench: Bench): Promise<void> {
  await bench.vgcreate();
  const lvm = bench.lvm();
  await lvm.createLinear({ name: '_wipe-1', sizeBytes: 768 * MIB, tags: ['wipe'] });
  const path = `/dev/${VG}/_wipe-1`;
  const limiter = new RateLimiter(128 * MIB);
  const first = new Wiper({ lvm, commands: bench.commands, limiter, isDeleted });
  first.start();
  await settled(first, (now) => now.wipedBytes >= 384 * MIB);
  await first.stop();
  const { tags } = (await lvm.read()).lvs[0] ?? assert.fail('the LV has gone');
  console.log(`  after the stop: ${tags.join(' ')}`);
  const done = Number(/lic:wiped=(\d+)/.exec(tags.join(' '))?.[1]);
  assert.ok(done >= 384 * MIB && done < 768 * MIB);

  await bench.sh(`dmsetup create gate-1 --uuid LVMISCSICSI-gate-1 --table "0 16384 linear ${path} 0"`);
  const second = new Wiper({ lvm, commands: bench.commands, limiter: UNLIMITED, isDeleted });
  second.start();
  const failed = await settled(second, (now) => now.lastError !== undefined);
  console.log(`  held open: ${failed.lastError?.split('\n')[0]}`);
  assert.equal(failed.waitingBytes, 768 * MIB - done);
  await bench.sh('dmsetup remove gate-1');
  const end = await settled(second, (now) => now.removedVolumes === 1);
  await second.stop();
  assert.equal(end.wipedBytes, 768 * MIB - done);
  assert.equal(end.lastError, undefined);
}

async function settled(wiper: Wiper, isReached: (status: WiperStatus) => boolean): Promise<WiperStatus> {
  for (const deadline = performance.now() + 300_000; performance.now() < deadline; ) {
    const status = wiper.status();
    if (isReached(status)) return status;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return assert.fail(`the wiper does not get there: ${JSON.stringify(wiper.status())}`);
}

async function scrubbing(bench: Bench): Promise<void> {
  await patternVg(bench, 2, 64);
  const reports: VgReport[] = [];
  const lvm = bench.lvm({ onReport: (report) => reports.push(report) });
  await lvm.createLinear({ name: 'volume-1', sizeBytes: 8 * MIB, tags: [] });
  // Left by a scrub that was killed: its contents are unknown.
  await lvm.createLinear({ name: '_scrub-left', sizeBytes: 40 * MIB, tags: ['lic:scrub'] });
  await lvm.deactivate(['_scrub-left']);
  const trust = new BlankTrust(lvm, isOurs);
  assert.equal(trust.isBlank(await lvm.read()), false);
  const progress: string[] = [];
  const options = { lvm, commands: bench.commands, isOurs };
  const result = await timed('scrub', () =>
    scrub({ ...options, onProgress: ({ doneBytes, totalBytes }) => progress.push(`${doneBytes}/${totalBytes}`) }),
  );
  const scrubbed = await lvm.read();
  assert.equal(result.alreadyDone, false);
  assert.equal(result.scrubbedBytes, scrubbed.vg.freeBytes);
  assert.equal(progress.at(-1), `${result.scrubbedBytes}/${result.scrubbedBytes}`);
  assert.deepEqual(
    scrubbed.lvs.map((lv) => lv.name),
    ['volume-1'],
  );
  assert.equal(trust.isBlank(scrubbed), true);
  assert.equal((await scrub(options)).alreadyDone, true);
  await lvm.createLinear({ name: 'volume-2', sizeBytes: scrubbed.vg.freeBytes, tags: [] });
  assert.deepEqual(await nonZeroMib(bench, `/dev/${VG}/volume-2`), []);
  assert.equal((await nonZeroMib(bench, `/dev/${VG}/volume-1`)).length, 8);

  // Removed by hand, with data on it: seen by a driver that watches.
  for (const report of reports.splice(0)) trust.observe(report);
  trust.observe(await lvm.read({ fresh: true }));
  await bench.sh(`lvremove -qq -f -y ${VG}/volume-1`);
  const after = await lvm.read({ fresh: true });
  assert.equal(trust.isBlank(after), true, 'nobody has looked yet');
  trust.observe(after);
  assert.equal(trust.isBlank(after), false);
  await until(async () => scrubTags(await lvm.read({ fresh: true })).length === 0);

  // A foreign LV: no scrub, no trust.
  await lvm.remove(['volume-2']);
  await scrub(options);
  await bench.sh(`lvcreate -qq -y -an -Zn -Wn -L 4m -n somebody ${VG}`);
  const foreign = await lvm.read({ fresh: true });
  assert.equal(scrubTags(foreign).length, 1);
  assert.equal(new BlankTrust(lvm, isOurs).isBlank(foreign), false);
  await fails('invalid', scrub({ ...options, again: true }));
  await bench.sh(`lvremove -qq -y ${VG}/somebody`);

  // vgextend: the tag is for another space now.
  await scrub({ ...options, again: true });
  assert.equal(new BlankTrust(lvm, isOurs).isBlank(await lvm.read()), true);
  await bench.sh(`vgreduce -qq ${VG} /dev/mapper/pv-1`);
  assert.equal(new BlankTrust(lvm, isOurs).isBlank(await lvm.read({ fresh: true })), false);
  assert.equal((await scrub(options)).alreadyDone, false);
  await bench.sh(`vgextend -qq ${VG} /dev/mapper/pv-1`);
  assert.equal(new BlankTrust(lvm, isOurs).isBlank(await lvm.read({ fresh: true })), false);

  // Extents that cannot be allocated cannot be scrubbed.
  await bench.sh(`pvchange -qq -xn /dev/mapper/pv-1`);
  await fails('no-space', scrub(options));
  assert.equal(scrubTags(await lvm.read()).length, 0);
  await bench.sh(`pvchange -qq -xy /dev/mapper/pv-1`);
  await scrub(options);
  assert.equal(new BlankTrust(lvm, isOurs).isBlank(await lvm.read()), true);
}

/** An LV moved by an administrator leaves its data in extents that are free now: a driver that watches sees it. */
async function moved(bench: Bench): Promise<void> {
  await patternVg(bench, 2, 64);
  const lvm = bench.lvm();
  // Two segments: what lies between them goes.
  for (const [name, mib] of [
    ['volume-1', 8],
    ['volume-2', 8],
  ] as const)
    await lvm.createLinear({ name, sizeBytes: mib * MIB, tags: [] });
  await lvm.extend('volume-1', 24 * MIB);
  await scrub({ lvm, commands: bench.commands, isOurs });
  const extentsOf = async (name: string) =>
    (await lvm.read({ fresh: true })).lvs.find((lv) => lv.name === name)?.extents ?? assert.fail(`no LV ${name}`);
  const before = await extentsOf('volume-1');
  const ranges = await bench.sh(`lvs --noheadings -o seg_pe_ranges ${VG}/volume-1 | xargs`);
  console.log(`  seg_pe_ranges: ${ranges}`);
  assert.deepEqual(before, [
    { place: '/dev/mapper/pv-0', first: 0, last: 1 },
    { place: '/dev/mapper/pv-0', first: 4, last: 7 },
  ]);

  const watching = new BlankTrust(lvm, isOurs);
  const scrubbed = await lvm.read({ fresh: true });
  watching.observe(scrubbed);
  assert.equal(watching.isBlank(scrubbed), true);
  await bench.sh(`pvmove -qq -i 1 -n volume-1 /dev/mapper/pv-0 /dev/mapper/pv-1`);
  const after = await lvm.read({ fresh: true });
  const there = await extentsOf('volume-1');
  assert.ok(there.every(({ place }) => place === '/dev/mapper/pv-1'));
  assert.equal(
    there.reduce((sum, { first, last }) => sum + last - first + 1, 0),
    6,
  );
  watching.observe(after);
  assert.equal(watching.isBlank(after), false);
  await until(async () => scrubTags(await lvm.read({ fresh: true })).length === 0);

  await scrub({ lvm, commands: bench.commands, isOurs });
  assert.equal(watching.isBlank(await lvm.read({ fresh: true })), true);
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + 30_000; performance.now() < deadline; ) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail('the condition was not met within 30 s');
}

export const blankScenarios: Readonly<Record<string, Scenario>> = {
  zero,
  wipe,
  wipeInterrupted,
  scrubbing,
  moved,
};
