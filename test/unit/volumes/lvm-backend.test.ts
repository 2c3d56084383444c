import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { DriverError } from '../../../src/errors.ts';
import { GateError } from '../../../src/gate/errors.ts';
import { TargetTimeoutError } from '../../../src/iscsi/target/errors.ts';
import { LvmError } from '../../../src/lvm/types.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import type { CreateVolumeRequest } from '../../../src/volumes/backend.ts';
import { ChapKeys } from '../../../src/volumes/chap.ts';
import { LvmBackend } from '../../../src/volumes/lvm-backend.ts';
import type { VolumeCapability } from '../../../src/volumes/model.ts';
import { isWipeName, volumeIdForName } from '../../../src/volumes/names.ts';
import { logOf } from './captured-log.ts';
import { Crash, EXTENT, FakeHost, type FakeTarget, GIB } from './fake-host.ts';

const EXT4: VolumeCapability = {
  access: { kind: 'mount', fsType: 'ext4', mountFlags: [] },
  mode: 'SINGLE_NODE_WRITER',
};
const BLOCK: VolumeCapability = { access: { kind: 'block' }, mode: 'SINGLE_NODE_WRITER' };
const RWX: VolumeCapability = { access: { kind: 'block' }, mode: 'MULTI_NODE_MULTI_WRITER' };
const NODE_1 = 'node-1/iqn.1993-08.org.debian:01:one';
const NODE_2 = 'node-2/iqn.1993-08.org.debian:01:two';

function request(name: string, changes: Partial<CreateVolumeRequest> = {}): CreateVolumeRequest {
  return {
    name,
    capacity: { requiredBytes: GIB, limitBytes: 0 },
    capabilities: [EXT4],
    parameters: {},
    source: undefined,
    ...changes,
  };
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof DriverError) return error.code;
    throw error;
  }
  return 'OK';
}

function publish(backend: LvmBackend, volumeId: string, nodeId: string, capability = EXT4, readonly = false) {
  return backend.publishVolume({ volumeId, nodeId, capability, readonly, secrets: {} });
}

describe('volumes over a fake host', () => {
  it('refuses every call before the first comparison, and tears nothing down while the VG is away', async () => {
    const host = new FakeHost();
    const first = await host.boot();
    const { id } = await first.createVolume(request('a'));
    await publish(first, id, NODE_1);
    const starting = new LvmBackend({
      ...host.dependencies(),
      lvm: { ...host.lvm, read: () => Promise.reject(new Error('VG is away')) },
    });
    expect(await codeOf(starting.deleteVolume(id))).to.equal('UNAVAILABLE');
    await starting.reconcile().then(
      () => expect.fail('must not succeed'),
      () => undefined,
    );
    expect(host.targets.size).to.equal(1);
    expect(await codeOf(starting.listVolumes())).to.equal('UNAVAILABLE');
  });

  it('resumes what a crash left suspended before it asks LVM or the target anything', async () => {
    const host = new FakeHost();
    const asked: string[] = [];
    const dependencies = host.dependencies();
    const starting = new LvmBackend({
      ...dependencies,
      lvm: {
        ...host.lvm,
        read: (options) => {
          asked.push('read');
          return host.lvm.read(options);
        },
      },
      gates: {
        ...dependencies.gates,
        resumeAll: async () => {
          asked.push('resume');
          return [];
        },
      },
    });
    await starting.reconcile();
    await starting.reconcile();
    expect(asked[0]).to.equal('resume');
    expect(
      asked.filter((one) => one === 'resume'),
      'once, at the start',
    ).to.have.lengthOf(1);
  });

  it('takes an exported VG for what it is: not there, and not empty', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const { id } = await backend.createVolume(request('a'));
    await publish(backend, id, NODE_1);
    host.exported = true;
    host.calls.length = 0;
    const calls: [string, () => Promise<unknown>][] = [
      ['create', () => backend.createVolume(request('a'))],
      ['delete', () => backend.deleteVolume(id)],
      ['publish', () => publish(backend, id, NODE_1)],
      ['unpublish', () => backend.unpublishVolume(id, NODE_1)],
      ['expand', () => backend.expandVolume(id, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined)],
      ['get', () => backend.getVolume(id)],
      ['list', () => backend.listVolumes()],
      ['capacity', () => backend.capacity({}, [])],
      ['reconcile', () => backend.reconcile()],
    ];
    for (const [name, call] of calls) expect(await codeOf(call()), name).to.equal('UNAVAILABLE');
    expect(host.calls).to.deep.equal([]);
    expect(host.targets.size).to.equal(1);
    expect((await backend.probe()).reasons.join()).to.match(/exported.*vgimport/);
    host.exported = false;
    await backend.reconcile();
    await backend.unpublishVolume(id, NODE_1);
  });

  it('is not kept down by one LV that cannot be activated, and says which it is', async () => {
    const host = new FakeHost();
    const before = await host.boot();
    const ids: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      const { id } = await before.createVolume(request(name));
      await publish(before, id, NODE_1);
      ids.push(id);
    }
    const [bad = '', ...good] = ids.sort();
    // A reboot of the storage host.
    host.targets.clear();
    host.gates.clear();
    for (const lv of host.lvs.values()) lv.active = false;
    host.broken.add(bad);
    const backend = await host.boot();
    expect([...host.targets.keys()].sort()).to.deep.equal(good);
    expect([...host.targets.values()].every((target) => target.portals)).to.equal(true);
    expect(backend.failures.filter((failure) => failure.includes(bad))).to.have.length(backend.failures.length);
    expect(backend.failures).to.have.length(1);
    expect((await backend.probe()).ready).to.equal(true);
    expect(await codeOf(publish(backend, bad, NODE_1))).to.equal('UNAVAILABLE');
    host.broken.clear();
    expect((await backend.reconcile()).failures).to.deep.equal([]);
    expect(host.targets.size).to.equal(3);
  });

  it('does not start beside targets of another IQN prefix, and names one and the remedy', async () => {
    const host = new FakeHost();
    const first = await host.boot();
    const { id } = await first.createVolume(request('a'));
    await publish(first, id, NODE_1);
    const { iqnPrefix } = host.config;
    host.config = { ...host.config, iqnPrefix: 'iqn.2026-01.org.example' };
    host.calls.length = 0;
    const second = new LvmBackend(host.dependencies());
    expect(await codeOf(second.reconcile())).to.equal('FAILED_PRECONDITION');
    expect(host.calls).to.deep.equal([]);
    expect(await codeOf(second.unpublishVolume(id, NODE_1))).to.equal('UNAVAILABLE');
    const { ready, reasons } = await second.probe();
    expect(ready).to.equal(false);
    expect(reasons.join())
      .to.contain(`${iqnPrefix}:${id}`)
      .and.match(/set iqn-prefix back/);
    host.config = { ...host.config, iqnPrefix };
    await (await host.boot()).unpublishVolume(id, NODE_1);
  });

  it('compares the others while an operation on one volume takes its time', async () => {
    const host = new FakeHost();
    const proceed = Promise.withResolvers<void>();
    const extending = Promise.withResolvers<void>();
    const dependencies = host.dependencies();
    let slow = false;
    const extend = async (name: string, sizeBytes: number) => {
      if (slow) {
        extending.resolve();
        await proceed.promise;
      }
      await host.lvm.extend(name, sizeBytes);
    };
    const backend = new LvmBackend({ ...dependencies, lvm: { ...host.lvm, extend } });
    await backend.reconcile();
    const ids: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      const { id } = await backend.createVolume(request(name));
      await publish(backend, id, NODE_1);
      ids.push(id);
    }
    const [busy = '', ...others] = ids.sort();
    slow = true;
    const expansion = backend.expandVolume(busy, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
    await extending.promise;
    for (const target of host.targets.values()) target.portals = false;
    host.calls.length = 0;
    expect((await backend.reconcile()).failures).to.deep.equal([]);
    expect(host.targets.get(busy)?.portals).to.equal(false);
    for (const id of others) expect(host.targets.get(id)?.portals).to.equal(true);
    proceed.resolve();
    await expansion;
    await backend.reconcile();
    expect(host.targets.get(busy)?.portals).to.equal(true);
  });

  describe('an expansion of hours', () => {
    const twoGib = { requiredBytes: 2 * GIB, limitBytes: 0 };
    let host: FakeHost;
    let id: string;
    let proceed: PromiseWithResolvers<void>;
    let begun: PromiseWithResolvers<void>;
    let from: number[];

    beforeEach(async () => {
      host = new FakeHost();
      const first = await host.boot();
      ({ id } = await first.createVolume(request('a')));
      await publish(first, id, NODE_1);
      proceed = Promise.withResolvers();
      begun = Promise.withResolvers();
      from = [];
    });

    /** Zeroing takes until `proceed`. */
    async function start(): Promise<LvmBackend> {
      host.crashAt = undefined;
      const dependencies = host.dependencies();
      const backend = new LvmBackend(
        {
          ...dependencies,
          zeroGrowth: async (range) => {
            from.push(range.fromBytes);
            begun.resolve();
            await Promise.race([
              proceed.promise,
              new Promise((resolve) => range.signal.addEventListener('abort', resolve)),
            ]);
            await dependencies.zeroGrowth(range);
          },
        },
        { growthPatienceMs: 20 },
      );
      await backend.reconcile();
      return backend;
    }

    async function grown(): Promise<void> {
      for (const deadline = performance.now() + 5_000; host.gates.get(id)?.sizeBytes !== 2 * GIB; ) {
        if (performance.now() > deadline) throw new Error('it does not grow');
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    }

    it('holds up neither the call nor any other; until its end the volume has its old size', async () => {
      const backend = await start();
      const error: unknown = await backend.expandVolume(id, twoGib, undefined).catch((caught: unknown) => caught);
      expect(error).to.be.instanceOf(DriverError).with.property('code', 'ABORTED');
      expect((error as Error).message).to.contain('1 GiB are still to be zeroed');
      expect((await backend.getVolume(id))?.sizeBytes).to.equal(GIB);
      await backend.unpublishVolume(id, NODE_1);
      expect((await publish(backend, id, NODE_2)).sizeBytes).to.equal(GIB);
      await backend.reconcile();
      expect(host.gates.get(id)?.sizeBytes).to.equal(GIB);
      const retry = backend.expandVolume(id, twoGib, undefined);
      proceed.resolve();
      expect((await retry).sizeBytes).to.equal(2 * GIB);
      expect(host.gates.get(id)?.sizeBytes).to.equal(2 * GIB);
      expect(host.lvs.get(id)?.dirty).to.deep.equal([]);
      expect(from, 'one worker').to.deep.equal([GIB]);
    });

    it('that a crash cut short does not hold up the start, and goes on where it was', async () => {
      const backend = await host.boot();
      host.armCrash(4, 'after');
      await backend.expandVolume(id, twoGib, undefined).catch(() => undefined);
      expect([...(host.lvs.get(id)?.tags ?? [])]).to.include(`lic:growing=${1.5 * GIB}`);
      host.powerCycle();
      const second = await start();
      await begun.promise;
      expect(from).to.deep.equal([1.5 * GIB]);
      expect((await publish(second, id, NODE_1)).sizeBytes).to.equal(1.5 * GIB);
      proceed.resolve();
      await grown();
      expect((await second.getVolume(id))?.sizeBytes).to.equal(2 * GIB);
    });

    it('is finished for a volume that is attached nowhere as well', async () => {
      const backend = await host.boot();
      await backend.unpublishVolume(id, NODE_1);
      host.armCrash(2, 'after');
      await backend.expandVolume(id, twoGib, undefined).catch(() => undefined);
      const second = await start();
      proceed.resolve();
      expect((await second.expandVolume(id, twoGib, undefined)).sizeBytes).to.equal(2 * GIB);
      expect(host.lvs.get(id)?.dirty).to.deep.equal([]);
    });

    it('ends before its volume is deleted: not a byte lands on what has its name next', async () => {
      const backend = await start();
      await backend.expandVolume(id, twoGib, undefined).catch(() => undefined);
      await backend.unpublishVolume(id, '');
      host.calls.length = 0;
      await backend.deleteVolume(id);
      await backend.reconcile();
      proceed.resolve();
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(host.calls).to.include('lv-rename').and.not.include('zero');
    });

    it('goes on when a deletion is refused: before it is touched, and also by an attachment that came in between', async () => {
      const backend = await start();
      await backend.expandVolume(id, twoGib, undefined).catch(() => undefined);
      expect(await codeOf(backend.deleteVolume(id))).to.equal('FAILED_PRECONDITION');
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(from, 'not stopped').to.deep.equal([GIB]);
      await backend.unpublishVolume(id, '');
      const deletion = codeOf(backend.deleteVolume(id));
      const publication = publish(backend, id, NODE_1);
      expect(await deletion).to.equal('FAILED_PRECONDITION');
      await publication;
      proceed.resolve();
      await grown();
      expect(host.lvs.get(id)?.dirty).to.deep.equal([]);
    });

    it('ends with the controller, and so do the calls that wait for it', async () => {
      const backend = await start();
      const call = codeOf(backend.expandVolume(id, twoGib, undefined));
      await begun.promise;
      await backend.close();
      expect(await call).to.equal('ABORTED');
      expect(await codeOf(backend.expandVolume(id, twoGib, undefined))).to.equal('ABORTED');
      expect(from).to.have.length(1);
    });

    it('that fails is told, and begun again with the next comparison', async () => {
      host.failures.set('zero', new LvmError('write-failed', 'Input/output error'));
      const backend = await start();
      proceed.resolve();
      expect(await codeOf(backend.expandVolume(id, twoGib, undefined))).to.equal('UNAVAILABLE');
      expect(backend.failures).to.have.length(1);
      expect(backend.failures[0]).to.contain(id);
      host.failures.clear();
      await backend.reconcile();
      await grown();
      expect(backend.failures).to.deep.equal([]);
    });
  });

  it('takes nothing away while the VG is partial', async () => {
    const host = new FakeHost();
    const crashing = await host.boot();
    host.armCrash(1, 'after');
    await crashing.createVolume(request('unfinished')).catch(() => undefined);
    for (const lv of host.lvs.values()) lv.createdAt = Date.now() / 1000 - 87_000;
    const stray = 'volume-00000000-0000-4000-8000-000000000000';
    host.gates.set(stray, { sizeBytes: GIB, lv: stray, severed: false });
    host.missingPvs = 1;
    host.crashAt = undefined;
    host.calls.length = 0;
    const backend = new LvmBackend(host.dependencies(), { askedAgainWithinMs: 0 });
    await backend.reconcile();
    await backend.reconcile();
    expect(host.calls).to.deep.equal(['target-hold', 'target-hold']);
    host.missingPvs = 0;
    await backend.reconcile();
    expect(host.gates.size).to.equal(0);
    expect([...host.lvs.keys()].map(isWipeName)).to.deep.equal([true]);
  });

  it('gives the same volume for the same request, and says what differs for another', async () => {
    const backend = await new FakeHost().boot();
    const volume = await backend.createVolume(request('a'));
    expect(await backend.createVolume(request('a'))).to.deep.equal(volume);
    expect(
      await codeOf(backend.createVolume(request('a', { capacity: { requiredBytes: 2 * GIB, limitBytes: 0 } }))),
    ).to.equal('ALREADY_EXISTS');
    expect(await codeOf(backend.createVolume(request('a', { capabilities: [BLOCK] })))).to.equal('ALREADY_EXISTS');
  });

  it('rounds up to extents and refuses a range without one', async () => {
    const backend = await new FakeHost().boot();
    expect(
      (await backend.createVolume(request('a', { capacity: { requiredBytes: GIB + 1, limitBytes: 0 } }))).sizeBytes,
    ).to.equal(GIB + EXTENT);
    expect(
      await codeOf(backend.createVolume(request('b', { capacity: { requiredBytes: GIB + 1, limitBytes: GIB + 2 } }))),
    ).to.equal('OUT_OF_RANGE');
    expect(
      await codeOf(backend.createVolume(request('c', { capacity: { requiredBytes: 2, limitBytes: 1 } }))),
    ).to.equal('OUT_OF_RANGE');
    expect(
      await codeOf(backend.createVolume(request('d', { capacity: { requiredBytes: 65 * GIB, limitBytes: 0 } }))),
    ).to.equal('RESOURCE_EXHAUSTED');
  });

  it('without room says what holds it: a scrub, or what is being wiped', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const words = async (): Promise<string> =>
      await backend.createVolume(request('a', { capacity: { requiredBytes: 65 * GIB, limitBytes: 0 } })).then(
        () => 'created',
        (error: Error) => error.message,
      );
    expect(await words())
      .to.contain('64 GiB free')
      .and.contain('delete volumes')
      .and.not.contain('scrub');
    await host.lvm.createLinear({ name: '_scrub-1', sizeBytes: 64 * GIB, tags: ['lic:scrub'] });
    expect(await words())
      .to.contain('0 B free; 64 GiB are held by a scrub')
      .and.contain('run it again if it was interrupted')
      .and.not.contain('delete volumes');
  });

  it('tells in the log when capacity_bytes is not what was asked', async () => {
    const backend = await new FakeHost().boot();
    const told = async (action: () => Promise<unknown>) =>
      (await logOf(action)).filter(({ msg }) => String(msg).startsWith('capacity_bytes differs'));
    const create = (requiredBytes: number, name = 'a') =>
      told(() => backend.createVolume(request(name, { capacity: { requiredBytes, limitBytes: 0 } })));
    const id = volumeIdForName('test', 'a');
    const line = { volumeId: id, requiredBytes: GIB + 1, sizeBytes: GIB + EXTENT, extentSizeBytes: EXTENT };
    const [made, ...more] = await create(GIB + 1);
    expect(made).to.include(line);
    expect(more).to.deep.equal([]);
    expect((await create(GIB + 1))[0], 'the same volume, asked for again').to.include(line);
    expect(await create(GIB, 'exact')).to.deep.equal([]);
    expect(await create(0, 'no size asked')).to.deep.equal([]);

    const expand = (requiredBytes: number) =>
      told(() => backend.expandVolume(id, { requiredBytes, limitBytes: 0 }, undefined));
    for (const attempt of ['grown', 'grown already'])
      expect((await expand(2 * GIB - 1))[0], attempt).to.include({ requiredBytes: 2 * GIB - 1, sizeBytes: 2 * GIB });
    expect(await expand(2 * GIB)).to.deep.equal([]);
  });

  it('says how much waits for wiping, and how long that takes, when there is no room', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const large = { capacity: { requiredBytes: 40 * GIB, limitBytes: 0 } };
    const { id } = await backend.createVolume(request('a', large));
    const create = () => backend.createVolume(request('b', large));
    const expand = () => backend.expandVolume(id, { requiredBytes: 80 * GIB, limitBytes: 0 }, undefined);
    for (const attempt of [create, expand]) {
      const refusal = async (): Promise<string> => {
        const error = await attempt().catch((caught: unknown) => caught);
        expect(error).to.be.instanceOf(DriverError).with.property('code', 'RESOURCE_EXHAUSTED');
        return (error as Error).message;
      };
      host.wipeBacklog = { bytes: 30 * GIB, etaSeconds: 153.2 };
      expect(await refusal()).to.equal(
        'no room for 40 GiB in volume group "cinder-volumes"; found: 24 GiB free; 30 GiB of deleted volumes are being ' +
          'wiped, which takes about 154 s more; to do: wait for the wiping, ask for less, or add a physical volume with vgextend',
      );
      host.wipeBacklog = { bytes: 30 * GIB, etaSeconds: undefined };
      expect(await refusal()).to.contain('30 GiB of deleted volumes are being wiped; to do: wait');
      host.wipeBacklog = { bytes: 0, etaSeconds: undefined };
      expect(await refusal()).to.contain('24 GiB free; to do: delete volumes');
    }
  });

  it('looks again before it says that there is no room', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    // A wiped volume has just been removed.
    host.cachedFreeBytes = 0;
    const { id } = await backend.createVolume(request('a'));
    await backend.expandVolume(id, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
    expect((await backend.getVolume(id))?.sizeBytes).to.equal(2 * GIB);
  });

  it('keeps room in the metadata area for the volumes that are there', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const volume = await backend.createVolume(request('a'));
    host.metadataFreeBytes = 4096 + 400 - 1;
    expect(await codeOf(backend.createVolume(request('b')))).to.equal('RESOURCE_EXHAUSTED');
    expect(await backend.capacity({}, [])).to.include({ availableBytes: 0, maximumVolumeSizeBytes: 0 });
    expect(await backend.createVolume(request('a'))).to.deep.equal(volume);
    await backend.deleteVolume(volume.id);
    await backend.createVolume(request('b'));
  });

  it('removes what was never finished, once nobody can be asking for it any more', async () => {
    for (const [ageS, upForLong, left] of [
      [86_000, true, 'volume-'],
      [87_000, true, '_wipe-'],
      // 20 TiB take more than a day to be zeroed: after a restart the provisioner must have time to come again.
      [87_000, false, 'volume-'],
      // Its age is not known.
      [undefined, true, 'volume-'],
    ] as const) {
      const host = new FakeHost();
      const crashing = await host.boot();
      host.armCrash(1, 'after');
      await crashing.createVolume(request('a')).catch(() => undefined);
      for (const lv of host.lvs.values()) lv.createdAt = ageS === undefined ? undefined : Date.now() / 1000 - ageS;
      host.crashAt = undefined;
      const options = upForLong ? { askedAgainWithinMs: 0 } : {};
      const backend = new LvmBackend(host.dependencies(), options);
      const lvs = () => [...host.lvs.keys()].map((name) => name.slice(0, left.length));
      await backend.reconcile();
      expect(lvs(), 'at the start').to.deep.equal(['volume-'.slice(0, left.length)]);
      await backend.reconcile();
      expect(lvs(), `of ${ageS} s`).to.deep.equal([left]);
      await backend.createVolume(request('a'));
    }
  });

  it('removes nothing unfinished while a call is at work on it', async () => {
    const host = new FakeHost();
    const proceed = Promise.withResolvers<void>();
    const zeroing = Promise.withResolvers<void>();
    const dependencies = host.dependencies();
    const zeroNew = async (path: string, lengthBytes: number) => {
      zeroing.resolve();
      await proceed.promise;
      await dependencies.zeroNew(path, lengthBytes);
    };
    const backend = new LvmBackend({ ...dependencies, zeroNew }, { askedAgainWithinMs: 0 });
    await backend.reconcile();
    const creation = backend.createVolume(request('a'));
    await zeroing.promise;
    for (const lv of host.lvs.values()) lv.createdAt = 0;
    await backend.reconcile();
    proceed.resolve();
    expect([...host.lvs.keys()]).to.deep.equal([(await creation).id]);
  });

  describe('targets that are called as ours and are not', () => {
    const OTHER_ID = 'volume-00000001-0000-4000-8000-000000000000';
    const cinders = (host: FakeHost, volumeId: string, changes: Partial<FakeTarget> = {}): FakeTarget => ({
      volumeId,
      targetIqn: `${host.config.iqnPrefix}:${volumeId}`,
      serial: '',
      devicePath: `/dev/other-vg/${volumeId}`,
      discard: false,
      acls: [{ initiatorIqn: 'iqn.1993-08.org.debian:01:compute', readonly: false, auth: { kind: 'none' } }],
      enabled: true,
      portals: true,
      ...changes,
    });

    it('are left alone by every comparison, counted, and named once', async () => {
      const host = new FakeHost();
      const target = cinders(host, OTHER_ID);
      host.targets.set(OTHER_ID, target);
      const backend = new LvmBackend(host.dependencies());
      const lines = await logOf(async () => {
        expect(await backend.reconcile()).to.include({ removed: 0, foreign: 1 });
        expect(await backend.reconcile()).to.include({ removed: 0, foreign: 1 });
      });
      expect([...host.targets.values()]).to.deep.equal([target]);
      const told = lines.filter(({ msg }) => String(msg).includes('not its own'));
      expect(told).to.have.length(1);
      expect(told[0]).to.deep.include({
        count: 1,
        targets: [`${target.targetIqn} (backed by ${target.devicePath})`],
      });
      expect(told[0]?.['msg']).to.match(/to do: .*iqn-prefix/);
    });

    it('are left alone when only sessions show that somebody has them; what is empty is a piece of ours', async () => {
      const host = new FakeHost();
      const empty = 'volume-00000002-0000-4000-8000-000000000000';
      host.targets.set(OTHER_ID, cinders(host, OTHER_ID, { devicePath: '', sessions: ['iqn.2000-01.x:y'] }));
      host.targets.set(empty, cinders(host, empty, { devicePath: '' }));
      await host.boot();
      expect([...host.targets.keys()]).to.deep.equal([OTHER_ID]);
    });

    it('keep nobody from opening the portals last after a boot', async () => {
      const host = new FakeHost();
      const first = await host.boot();
      for (const name of ['a', 'b']) {
        const { id } = await first.createVolume(request(name));
        await publish(first, id, NODE_1);
      }
      host.powerCycle();
      host.targets.set(OTHER_ID, cinders(host, OTHER_ID));
      host.calls.length = 0;
      await host.boot();
      expect(host.calls.filter((call) => call === 'target-portals')).to.have.length(2);
      expect(host.calls.lastIndexOf('target-ensure')).to.be.lessThan(host.calls.indexOf('target-portals'));
    });

    it('keep a volume of that name from being attached, with what was found, and nothing is written', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a'));
      const target = cinders(host, id);
      host.targets.set(id, target);
      host.calls.length = 0;
      const error: unknown = await publish(backend, id, NODE_1).catch((caught: unknown) => caught);
      expect(error).to.be.instanceOf(DriverError).with.property('code', 'FAILED_PRECONDITION');
      expect((error as Error).message)
        .to.contain(`${target.targetIqn} is there already, backed by ${target.devicePath}`)
        .and.match(/to do: .*Cinder/);
      expect(host.calls).to.deep.equal([]);
      // Neither OK nor a removal depends on it.
      await backend.unpublishVolume(id, NODE_1);
      await backend.unpublishVolume(id, '');
      await backend.deleteVolume(id);
      await backend.unpublishVolume(id, '');
      expect([...host.targets.values()]).to.deep.equal([target]);
    });

    it('that have come in place of an export are not repaired, silence the witness, and outlive the detachment', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a'));
      await publish(backend, id, NODE_1);
      const target = cinders(host, id, { acls: host.targets.get(id)?.acls ?? [] });
      host.targets.set(id, target);
      const { failures } = await backend.reconcile();
      expect(failures.join()).to.contain(target.devicePath);
      expect(host.witness).to.equal(false);
      // Who holds the LV itself lets nobody make a gate over it.
      host.failures.set('gate-ensure', new GateError('backing', 'gate cannot be made over it'));
      expect((await backend.reconcile()).failures.join()).to.contain(target.devicePath);
      host.failures.clear();
      await backend.unpublishVolume(id, NODE_1);
      expect([...host.targets.values()]).to.deep.equal([target]);
      expect(host.gates.size).to.equal(0);
      expect((await backend.getVolume(id))?.attachments).to.deep.equal([]);
    });

    it('keep their access when one node of several leaves', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a', { capabilities: [RWX] }));
      for (const node of [NODE_1, NODE_2]) await publish(backend, id, node, RWX);
      const target = cinders(host, id, { acls: host.targets.get(id)?.acls ?? [] });
      host.targets.set(id, target);
      await backend.unpublishVolume(id, NODE_1);
      expect(host.targets.get(id)).to.deep.equal(target);
      expect((await backend.getVolume(id))?.attachments).to.have.length(1);
    });
  });

  describe('an unpublish of what the tags do not tell', () => {
    async function exported(capability: VolumeCapability, ...nodes: string[]) {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a', { capabilities: [capability] }));
      for (const node of nodes) await publish(backend, id, node, capability);
      const lv = host.lvs.get(id);
      if (lv === undefined) throw new Error('no LV');
      const forget = (nodeName: string) => {
        for (const tag of lv.tags) if (tag.startsWith(`lic:att=${nodeName}#`)) lv.tags.delete(tag);
      };
      host.calls.length = 0;
      return { host, backend, id, lv, forget };
    }

    it('cuts a node off whose attachment tag is lost, and no other node by mistake', async () => {
      for (const nodeId of [NODE_1, '']) {
        const { host, backend, id, forget } = await exported(EXT4, NODE_1);
        forget('node-1');
        await backend.unpublishVolume(id, NODE_2);
        expect(host.targets.get(id)?.acls).to.have.length(1);
        host.failures.set('target-disable', new TargetTimeoutError('the disk is slow'));
        expect(await codeOf(backend.unpublishVolume(id, nodeId))).to.equal('ABORTED');
        host.failures.clear();
        host.calls.length = 0;
        await backend.unpublishVolume(id, nodeId);
        expect(host.calls).to.deep.equal(['target-disable', 'gate-sever', 'target-remove', 'gate-remove']);
        expect(host.targets.size + host.gates.size).to.equal(0);
      }
    });

    it('of one node of several revokes that one alone', async () => {
      const { host, backend, id, forget } = await exported(RWX, NODE_1, NODE_2);
      forget('node-1');
      await backend.unpublishVolume(id, NODE_1);
      expect(host.calls).to.deep.equal(['target-revoke']);
      expect(host.targets.get(id)?.acls.map(({ initiatorIqn }) => initiatorIqn)).to.deep.equal([
        'iqn.1993-08.org.debian:01:two',
      ]);
    });

    it('removes the whole export of an LV that is there no more', async () => {
      for (const nodeId of [NODE_1, '']) {
        const { host, backend, id, lv } = await exported(EXT4, NODE_1);
        host.lvs.delete(id);
        host.lvs.set('renamed', { ...lv, name: 'renamed' });
        await backend.unpublishVolume(id, nodeId);
        expect(host.targets.size + host.gates.size).to.equal(0);
      }
    });

    it('leaves the export of another volume group alone', async () => {
      const { host, backend, id } = await exported(EXT4, NODE_1);
      host.lvs.delete(id);
      host.otherVgs.add(id);
      await backend.unpublishVolume(id, NODE_1);
      expect(host.targets.size + host.gates.size).to.equal(2);
    });
  });

  it('gives a volume that is shared for writing persistent reservations, and no other', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    for (const [mode, reservations] of [
      ['MULTI_NODE_MULTI_WRITER', true],
      ['MULTI_NODE_READER_ONLY', false],
      ['SINGLE_NODE_WRITER', false],
    ] as const) {
      const capability: VolumeCapability = { access: { kind: 'block' }, mode };
      const { id } = await backend.createVolume(request(mode, { capabilities: [capability] }));
      await publish(backend, id, NODE_1, capability);
      expect(host.targets.get(id)?.reservations, mode).to.equal(reservations);
    }
  });

  it('does not let two nodes have a single-node volume, and names the one that has it', async () => {
    const backend = await new FakeHost().boot();
    const { id } = await backend.createVolume(request('a'));
    const first = await publish(backend, id, NODE_1);
    expect((await publish(backend, id, NODE_1)).nonce).to.equal(first.nonce);
    expect(await codeOf(publish(backend, id, NODE_1, EXT4, true))).to.equal('ALREADY_EXISTS');
    try {
      await publish(backend, id, NODE_2);
      expect.fail('must not be attached twice');
    } catch (error) {
      expect(error).to.be.instanceOf(DriverError).with.property('code', 'FAILED_PRECONDITION');
      expect((error as Error).message).to.contain('node-1');
    }
    expect(await codeOf(backend.deleteVolume(id))).to.equal('FAILED_PRECONDITION');
    await backend.unpublishVolume(id, NODE_1);
    expect((await publish(backend, id, NODE_2)).nonce).to.not.equal(first.nonce);
  });

  it('cuts an old initiator of the same node name off, by name', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const { id } = await backend.createVolume(request('a'));
    await publish(backend, id, NODE_1);
    await publish(backend, id, 'node-1/iqn.1993-08.org.debian:01:reinstalled');
    expect(host.targets.get(id)?.acls.map((acl) => acl.initiatorIqn)).to.deep.equal([
      'iqn.1993-08.org.debian:01:reinstalled',
    ]);
    await backend.unpublishVolume(id, NODE_1);
    expect(host.targets.size + host.gates.size).to.equal(0);
  });

  it('takes initiator names that differ only in case for one', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const [a, b] = [await backend.createVolume(request('a')), await backend.createVolume(request('b'))];
    const shouting = NODE_1.replace(':one', ':ONE');
    const { nonce } = await publish(backend, a.id, shouting);
    expect(host.targets.get(a.id)?.acls[0]?.initiatorIqn).to.equal('iqn.1993-08.org.debian:01:one');
    expect((await backend.getVolume(a.id))?.attachments[0]?.nodeId).to.equal(shouting);
    expect((await publish(backend, a.id, NODE_1)).nonce).to.equal(nonce);
    expect(await codeOf(publish(backend, b.id, NODE_1.replace('node-1', 'clone')))).to.equal('FAILED_PRECONDITION');
    await backend.unpublishVolume(a.id, NODE_1);
    expect((await backend.getVolume(a.id))?.attachments).to.deep.equal([]);
  });

  it('refuses two node names with one initiator, also when both are published at once', async () => {
    const backend = await new FakeHost().boot();
    const a = await backend.createVolume(request('a'));
    const b = await backend.createVolume(request('b'));
    const codes = await Promise.all([
      codeOf(publish(backend, a.id, NODE_1)),
      codeOf(publish(backend, b.id, NODE_1.replace('node-1', 'clone'))),
    ]);
    expect(codes.sort()).to.deep.equal(['FAILED_PRECONDITION', 'OK']);
  });

  it('keeps its own limit of attachments, also for calls at once', async () => {
    const host = new FakeHost();
    host.config = { ...host.config, maxVolumesPerNode: 2 };
    const backend = await host.boot();
    const ids = await Promise.all(
      ['a', 'b', 'c', 'd'].map(async (name) => (await backend.createVolume(request(name))).id),
    );
    const codes = await Promise.all(ids.map((id) => codeOf(publish(backend, id, NODE_1))));
    expect(codes.filter((code) => code === 'OK')).to.have.length(2);
    expect(codes.filter((code) => code === 'RESOURCE_EXHAUSTED')).to.have.length(2);
  });

  it('revokes one node of several and leaves the others', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const { id } = await backend.createVolume(request('a', { capabilities: [RWX] }));
    await publish(backend, id, NODE_1, RWX);
    await publish(backend, id, NODE_2, RWX);
    host.calls.length = 0;
    await backend.unpublishVolume(id, NODE_1);
    expect(host.calls).to.deep.equal(['target-revoke', 'lv-tags']);
    await backend.unpublishVolume(id, '');
    expect(host.targets.size + host.gates.size).to.equal(0);
  });

  describe('the mode of CHAP', () => {
    const files = new BlockingFiles();
    const folder = mkdtempSync(path.join(tmpdir(), 'chap-mode-'));
    after(async () => {
      await files.close();
      rmSync(folder, { recursive: true });
    });

    async function bootWith(host: FakeHost, chap: 'on' | 'mutual' | 'off'): Promise<LvmBackend> {
      host.config = { ...host.config, chap };
      const file = path.join(folder, 'chap.key');
      host.chapKeys =
        chap === 'off'
          ? await ChapKeys.loadIfPresent(files, file)
          : await ChapKeys.load(files, file, chap === 'mutual');
      return await host.boot();
    }

    for (const [before, now] of [
      ['on', 'off'],
      ['mutual', 'on'],
      ['on', 'mutual'],
      ['off', 'on'],
    ] as const) {
      it(`of an attachment stays when the controller's goes from ${before} to ${now}, also after a reboot`, async () => {
        const host = new FakeHost();
        const first = await bootWith(host, before);
        const { id } = await first.createVolume(request('a'));
        const context = await publish(first, id, NODE_1);
        const acls = host.targets.get(id)?.acls;
        const second = await bootWith(host, now);
        expect(host.targets.get(id)?.acls).to.deep.equal(acls);
        host.targets.clear();
        host.gates.clear();
        await second.reconcile();
        expect(host.targets.get(id)?.acls).to.deep.equal(acls);
        expect(await publish(second, id, NODE_1)).to.deep.equal(context);
        await second.unpublishVolume(id, NODE_1);
        expect((await publish(second, id, NODE_1)).authentication).to.equal(now === 'off' ? 'none' : 'derived');
      });
    }

    it('is one for all nodes of a volume; another is refused before anything is written', async () => {
      const host = new FakeHost();
      const first = await bootWith(host, 'off');
      const { id } = await first.createVolume(request('a', { capabilities: [RWX] }));
      await publish(first, id, NODE_1, RWX);
      const second = await bootWith(host, 'on');
      host.calls.length = 0;
      const refusal = await publish(second, id, NODE_2, RWX).catch((error: unknown) => error);
      expect(refusal).to.be.instanceOf(DriverError).with.property('code', 'FAILED_PRECONDITION');
      expect((refusal as Error).message).to.match(/with CHAP.*node-1/);
      expect(host.calls).to.deep.equal([]);
    });
  });

  describe('a fence that does not end in time', () => {
    const late = new TargetTimeoutError('the disk is slow');

    it('is not undone by a comparison, which goes on with it', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a'));
      await publish(backend, id, NODE_1);
      for (const step of ['target-disable', 'target-remove', 'lv-tags']) {
        host.failures.set(step, step === 'lv-tags' ? new LvmError('other', 'refused') : late);
        expect(await codeOf(backend.unpublishVolume(id, NODE_1)), step).to.not.equal('OK');
        host.calls.length = 0;
        const { failures } = await backend.reconcile();
        expect(failures, step).to.have.length(1);
        expect(host.calls, step).to.not.include.members(['target-ensure']).and.not.include.members(['gate-ensure']);
        expect((await backend.getVolume(id))?.attachments, step).to.have.length(1);
        host.failures.clear();
      }
      await backend.reconcile();
      expect(host.targets.size + host.gates.size).to.equal(0);
      expect((await backend.getVolume(id))?.attachments).to.deep.equal([]);
    });

    it('is completed by a publish first: to the same node with a new nonce', async () => {
      for (const node of [NODE_1, NODE_2]) {
        const host = new FakeHost();
        const backend = await host.boot();
        const { id } = await backend.createVolume(request('a'));
        const { nonce } = await publish(backend, id, NODE_1);
        host.failures.set('target-remove', late);
        expect(await codeOf(backend.unpublishVolume(id, NODE_1))).to.equal('ABORTED');
        expect(await codeOf(publish(backend, id, node))).to.equal('ABORTED');
        host.failures.clear();
        expect((await publish(backend, id, node)).nonce).to.not.equal(nonce);
        expect(host.gates.get(id)?.severed).to.equal(false);
        expect((await backend.getVolume(id))?.attachments.map(({ nodeId }) => nodeId)).to.deep.equal([node]);
      }
    });

    it('of one node of several lets nobody in again, and leaves the others', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a', { capabilities: [RWX] }));
      await publish(backend, id, NODE_1, RWX);
      await publish(backend, id, NODE_2, RWX);
      host.failures.set('target-revoke', late);
      expect(await codeOf(backend.unpublishVolume(id, NODE_1))).to.equal('ABORTED');
      host.calls.length = 0;
      await backend.reconcile();
      expect(host.calls).to.deep.equal(['target-revoke', 'target-hold']);
      host.failures.clear();
      await backend.reconcile();
      expect(host.targets.get(id)?.acls).to.have.length(1);
      expect((await backend.getVolume(id))?.attachments.map(({ nodeId }) => nodeId)).to.deep.equal([NODE_2]);
    });

    it('and that a crash cut short is completed before the export is built again', async () => {
      const host = new FakeHost();
      const backend = await host.boot();
      const { id } = await backend.createVolume(request('a'));
      const { nonce } = await publish(backend, id, NODE_1);
      host.failures.set('target-remove', late);
      expect(await codeOf(backend.unpublishVolume(id, NODE_1))).to.equal('ABORTED');
      host.failures.clear();
      expect(host.gates.get(id)?.severed).to.equal(true);
      const next = await host.boot();
      expect(host.gates.get(id)?.severed).to.equal(false);
      expect(host.targets.get(id)?.enabled).to.equal(true);
      expect((await publish(next, id, NODE_1)).nonce).to.equal(nonce);
    });
  });

  it('zeroes what an expansion adds before the gate shows it', async () => {
    const host = new FakeHost();
    const backend = await host.boot();
    const { id } = await backend.createVolume(request('a'));
    await publish(backend, id, NODE_1);
    host.calls.length = 0;
    const result = await backend.expandVolume(id, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
    expect(result).to.deep.equal({ sizeBytes: 2 * GIB, nodeExpansionRequired: true });
    expect(host.calls).to.deep.equal([
      ...['lv-tags', 'lv-extend'],
      ...['zero', 'lv-tags', 'zero', 'lv-tags', 'gate-ensure'],
      // The call, once more.
      'gate-ensure',
    ]);
    expect(host.gates.get(id)?.sizeBytes).to.equal(2 * GIB);
  });

  it('zeroes what came from a disk that was added while the command waited, though all was blank before', async () => {
    for (const scrubbedSince of [false, true]) {
      for (const kind of [EXT4, BLOCK]) {
        const host = new FakeHost();
        host.blank = true;
        const disksChange = () => {
          host.blank = false;
        };
        const scrub = () => {
          host.blank = true;
          host.mark += 'x';
        };
        const backend = await host.boot();
        host.meanwhile.set('lv-create', disksChange).set('lv-extend', disksChange);
        // In the middle of the operation's own steps the VG is scrubbed: what is allocated already is not.
        const read = host.lvm.read;
        if (scrubbedSince)
          host.lvm.read = async (options) => {
            scrub();
            return await read(options);
          };
        const { id } = await backend.createVolume(request('a', { capabilities: [kind] }));
        expect(host.lvs.get(id)?.dirty, 'created').to.deep.equal([]);
        host.blank = true;
        await backend.expandVolume(id, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
        expect(host.lvs.get(id)?.dirty, 'expanded').to.deep.equal([]);
        expect([...(host.lvs.get(id)?.tags ?? [])].filter((tag) => /made|growing/.test(tag))).to.deep.equal([
          'lic:made',
        ]);
      }
    }
  });

  it('of blank extents zeroes nothing, and says that a volume is ready only when that is certain', async () => {
    const host = new FakeHost();
    host.blank = true;
    const backend = await host.boot();
    const { id } = await backend.createVolume(request('a', { capabilities: [BLOCK] }));
    await backend.expandVolume(id, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
    expect(host.calls.filter((call) => call !== 'target-hold')).to.deep.equal([
      'lv-create',
      'lv-tags',
      'lv-tags',
      'lv-extend',
      'lv-tags',
    ]);
  });

  it('answers for nodes and volumes that are not known', async () => {
    const backend = await new FakeHost().boot();
    const { id } = await backend.createVolume(request('a'));
    expect(await codeOf(publish(backend, id, 'some-fake-node-id'))).to.equal('NOT_FOUND');
    expect(await codeOf(publish(backend, 'fake-vol-id', NODE_1))).to.equal('NOT_FOUND');
    expect(await codeOf(backend.unpublishVolume('fake-vol-id', NODE_1))).to.equal('OK');
    expect(await codeOf(backend.unpublishVolume(id, 'some-fake-node-id'))).to.equal('OK');
    expect(await codeOf(backend.deleteVolume('fake-vol-id'))).to.equal('OK');
  });

  // A whole life, with a death of the controller before and after each mutation of each call, a new start, and the
  // retry that a CO makes. The end must be the same as without the death.
  const lifeOf = (kind: VolumeCapability): { name: string; run: (backend: LvmBackend) => Promise<unknown> }[] => [
    { name: 'create', run: (backend) => backend.createVolume(request('a', { capabilities: [kind] })) },
    { name: 'publish', run: async (backend) => publish(backend, await idOf(backend), NODE_1, kind) },
    {
      name: 'expand',
      run: async (backend) =>
        backend.expandVolume(await idOf(backend), { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined),
    },
    { name: 'unpublish', run: async (backend) => backend.unpublishVolume(await idOf(backend), NODE_1) },
    { name: 'delete', run: async (backend) => backend.deleteVolume(await idOf(backend)) },
  ];
  async function idOf(_backend: LvmBackend): Promise<string> {
    const { volumeIdForName } = await import('../../../src/volumes/names.ts');
    return volumeIdForName('test', 'a');
  }

  for (const [blank, kind] of [
    [false, EXT4],
    [true, EXT4],
    [false, BLOCK],
    [true, BLOCK],
  ] as const) {
    const life = lifeOf(kind);
    for (const [index, operation] of life.entries()) {
      it(`survives a death at each step of ${operation.name} (${kind.access.kind}, free extents ${blank ? 'known blank' : 'not trusted'})`, async () => {
        const reference = await play(blank, life, index, undefined);
        let points = 0;
        for (let call = 1; call <= reference.mutations; call += 1) {
          for (const when of ['before', 'after'] as const) {
            const crashed = await play(blank, life, index, { call, when });
            expect(summary(crashed.host), `${operation.name}: died ${when} mutation ${call}`).to.deep.equal(
              summary(reference.host),
            );
            points += 1;
          }
        }
        expect(points).to.be.greaterThan(2);
      });
    }
  }

  async function play(
    blank: boolean,
    life: ReturnType<typeof lifeOf>,
    index: number,
    crash: { call: number; when: 'before' | 'after' } | undefined,
  ) {
    const host = new FakeHost();
    host.blank = blank;
    let backend = await host.boot();
    for (const operation of life.slice(0, index)) await operation.run(backend);
    const operation = life[index];
    if (operation === undefined) throw new Error('no such operation');
    host.armCrash(crash?.call ?? Number.MAX_SAFE_INTEGER, crash?.when ?? 'before');
    let died = false;
    try {
      await operation.run(backend);
    } catch (error) {
      // Errors made of the crash on its way out do not matter: nobody hears a dead process.
      if (crash === undefined) throw error;
      died = true;
      if (!(error instanceof Crash) && !(error instanceof DriverError)) throw error;
    }
    const mutations = host.mutations;
    if (crash !== undefined) expect(died, 'the crash point was reached').to.equal(true);
    backend = await host.boot();
    await operation.run(backend);
    await backend.reconcile();
    return { host, mutations };
  }

  function summary(host: FakeHost) {
    const lvs = [...host.lvs.values()].map((lv) => ({
      kind: isWipeName(lv.name) ? 'wipe' : 'volume',
      sizeBytes: lv.sizeBytes,
      dirty: isWipeName(lv.name) ? [] : lv.dirty,
      fileSystem: lv.fileSystem,
      tags: [...lv.tags].map((tag) => tag.replace(/[0-9a-f]{32}/g, 'HEX')).sort(),
    }));
    return {
      volumes: lvs.filter((lv) => lv.kind === 'volume'),
      wipes: lvs.filter((lv) => lv.kind === 'wipe').length,
      gates: [...host.gates.values()],
      targets: [...host.targets.values()].map((target) => ({
        acls: target.acls,
        enabled: target.enabled,
        portals: target.portals,
      })),
    };
  }
});
