import { expect } from 'chai';
import type { LvmBackend } from '../../../src/volumes/lvm-backend.ts';
import type { VolumeCapability } from '../../../src/volumes/model.ts';
import { FakeHost, GIB } from './fake-host.ts';

const RWX: VolumeCapability = { access: { kind: 'block' }, mode: 'MULTI_NODE_MULTI_WRITER' };
const NODE_1 = 'node-1/iqn.1993-08.org.debian:01:one';
const NODE_2 = 'node-2/iqn.1993-08.org.debian:01:TWO';

/** What it means to a node is in test/unit/node/stage.test.ts. */
describe('witness: says that every attached volume is exported', () => {
  let host: FakeHost;
  let backend: LvmBackend;
  beforeEach(async () => {
    host = new FakeHost();
    backend = await host.boot();
  });

  async function attached(name: string, secrets: Record<string, string> = {}): Promise<string> {
    const { id } = await backend.createVolume({
      name,
      capacity: { requiredBytes: GIB, limitBytes: 0 },
      capabilities: [RWX],
      parameters: {},
      source: undefined,
    });
    for (const nodeId of [NODE_1, NODE_2])
      await backend.publishVolume({ volumeId: id, nodeId, capability: RWX, readonly: false, secrets });
    return id;
  }

  /** Set before the comparison, and after it. */
  async function compared(): Promise<boolean[]> {
    host.witnessed.length = 0;
    await backend.reconcile();
    return [...host.witnessed];
  }

  it('speaks while all is right, and a node is told its name', async () => {
    expect(host.witness).to.equal(true);
    const id = await attached('a');
    const context = await backend.publishVolume({
      volumeId: id,
      nodeId: NODE_1,
      capability: RWX,
      readonly: false,
      secrets: {},
    });
    expect(context.witnessIqn).to.equal('iqn.2010-10.org.openstack:portal-vg-uuid');
    expect(await compared()).to.deep.equal([true]);
    await backend.unpublishVolume(id, NODE_1);
    expect(await compared()).to.deep.equal([true]);
  });

  it('after a boot only when every target is there with its portals', async () => {
    await attached('a');
    host.powerCycle();
    host.failures.set('target-portals', new Error('the portal cannot be opened'));
    backend = await host.boot();
    expect(host.witness).to.equal(false);
    host.failures.clear();
    expect(await compared()).to.deep.equal([false, true]);
  });

  const broken: [string, (id: string) => void][] = [
    ['a target is gone', (id) => void host.targets.delete(id)],
    ['a target is disabled', (id) => change(id, { enabled: false })],
    ['a target has lost its portals', (id) => change(id, { portals: false })],
    ['an initiator has no access', (id) => change(id, { acls: host.targets.get(id)?.acls.slice(1) ?? [] })],
  ];
  const change = (id: string, fields: object): void => {
    const target = host.targets.get(id);
    if (target !== undefined) host.targets.set(id, { ...target, ...fields });
  };
  for (const [what, destroy] of broken) {
    it(`${what}: silent from before the repair until it is done`, async () => {
      const id = await attached('a');
      await attached('b');
      host.failures.set('target-ensure', new Error('cannot be built'));
      destroy(id);
      expect(await compared()).to.deep.equal([false, false]);
      host.failures.clear();
      expect(await compared()).to.deep.equal([false, true]);
    });
  }

  it('silent where the credentials of an attachment are not known, until it is published again', async () => {
    const secrets = { 'node.session.auth.username': 'user', 'node.session.auth.password': 'password-of-16-bytes' };
    const id = await attached('a', secrets);
    expect(await compared()).to.deep.equal([true]);
    host.powerCycle();
    backend = await host.boot();
    expect(host.witness).to.equal(false);
    for (const nodeId of [NODE_1, NODE_2])
      await backend.publishVolume({ volumeId: id, nodeId, capability: RWX, readonly: false, secrets });
    expect(await compared()).to.deep.equal([true]);
  });

  it('silent while the VG cannot be read, is partial, or has an attachment of a newer format', async () => {
    const id = await attached('a');
    host.missingPvs = 1;
    expect(await compared()).to.deep.equal([false, false]);
    host.missingPvs = 0;
    const lv = host.lvs.get(id);
    if (lv === undefined) return expect.fail('no LV');
    const { tags } = lv;
    lv.tags = new Set([...tags].map((tag) => tag.replace('lic:v=1', 'lic:v=2')));
    expect((await compared()).at(-1)).to.equal(false);
    lv.tags = tags;
    expect((await compared()).at(-1)).to.equal(true);
    const { read } = host.lvm;
    Object.assign(host.lvm, { read: () => Promise.reject(new Error('away')) });
    expect(
      await compared().then(
        () => [],
        () => host.witnessed,
      ),
    ).to.deep.equal([false, false]);
    Object.assign(host.lvm, { read });
  });

  it('a fence that has not ended makes no difference: that attachment is to end', async () => {
    const id = await attached('a');
    host.failures.set('target-disable', new Error('hangs'));
    await backend.unpublishVolume(id, '').catch(() => undefined);
    change(id, { enabled: false, acls: [] });
    expect((await compared()).at(-1)).to.equal(true);
  });

  it('an operation in progress leaves it as it is', async () => {
    const id = await attached('a');
    const proceed = Promise.withResolvers<void>();
    const fencing = Promise.withResolvers<void>();
    const { targets } = host.dependencies();
    const { disable } = targets;
    targets.disable = async (iqn, options) => {
      await disable(iqn, options);
      fencing.resolve();
      await proceed.promise;
    };
    const unpublish = backend.unpublishVolume(id, '');
    await fencing.promise;
    expect(await compared()).to.deep.equal([]);
    proceed.resolve();
    await unpublish;
    expect(await compared()).to.deep.equal([true]);
  });
});
