/** CHAP over the life of a key, and credentials of a user that nobody can derive again (over a fake host). */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { controllerService } from '../../../src/csi/controller.ts';
import { DriverError } from '../../../src/errors.ts';
import type { AclAuth } from '../../../src/iscsi/target/types.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { ChapKeys } from '../../../src/volumes/chap.ts';
import type { LvmBackend } from '../../../src/volumes/lvm-backend.ts';
import type { VolumeCapability } from '../../../src/volumes/model.ts';
import { volumeIdForName } from '../../../src/volumes/names.ts';
import { logOf } from './captured-log.ts';
import { FakeHost, GIB } from './fake-host.ts';

const BLOCK: VolumeCapability = { access: { kind: 'block' }, mode: 'SINGLE_NODE_WRITER' };
const NODE = 'node-1/iqn.1993-08.org.debian:01:one';
const SECRETS = { 'node.session.auth.username': 'tenant', 'node.session.auth.password': 'a-password-of-17' };
const id = (name: string): string => volumeIdForName('test', name);

const publish = (backend: LvmBackend, name: string, secrets: Record<string, string> = {}) =>
  backend.publishVolume({ volumeId: id(name), nodeId: NODE, capability: BLOCK, readonly: false, secrets });

async function create(backend: LvmBackend, name: string): Promise<void> {
  const capacity = { requiredBytes: GIB, limitBytes: 0 };
  await backend.createVolume({ name, capacity, capabilities: [BLOCK], parameters: {}, source: undefined });
}

describe('rotation of the CHAP key', () => {
  const files = new BlockingFiles();
  const folder = mkdtempSync(join(tmpdir(), 'rotation-'));
  const keys = { old: Buffer.alloc(32, 1).toString('base64'), new: Buffer.alloc(32, 2).toString('base64') };
  let host: FakeHost;
  after(async () => {
    await files.close();
    rmSync(folder, { recursive: true });
  });

  async function load(current: keyof typeof keys, ...ids: (keyof typeof keys)[]): Promise<ChapKeys> {
    const file = join(folder, 'chap.key');
    const content = { format: 1, current, keys: Object.fromEntries(ids.map((one) => [one, keys[one]])) };
    await files.writeDurably(file, JSON.stringify(content), { mode: 0o600 });
    return await ChapKeys.load(files, file, false);
  }

  const authOf = (name: string): AclAuth | undefined => host.targets.get(id(name))?.acls[0]?.auth;

  beforeEach(async () => {
    host = new FakeHost();
    host.config = { ...host.config, chap: 'on' };
    host.chapKeys = await load('old', 'old');
    const backend = await host.boot();
    await create(backend, 'a');
    await create(backend, 'b');
  });

  it('an attachment keeps the credentials of the key that its tag names; a new one gets the current key’s', async () => {
    const before = await publish(await host.boot(), 'a');
    expect(before.chap).not.to.equal(undefined);
    host.chapKeys = await load('new', 'old', 'new');
    host.powerCycle();
    const backend = await host.boot();
    expect(authOf('a')).to.deep.equal({ kind: 'chap', ...before.chap, mutual: undefined });
    expect(await publish(backend, 'a')).to.deep.equal(before);

    const other = await publish(backend, 'b');
    expect(other.chap?.password).to.equal(host.chapKeys.derive('new', id('b'), 'node-1', other.nonce)?.chap.password);
    await backend.unpublishVolume(id('a'), NODE);
    const again = await publish(backend, 'a');
    expect(again.chap?.password).to.equal(host.chapKeys.derive('new', id('a'), 'node-1', again.nonce)?.chap.password);
  });

  it('a key that is gone: access is left as it is and reported, a publish is refused, and no new access is made', async () => {
    await publish(await host.boot(), 'a');
    const before = authOf('a');
    host.chapKeys = await load('new', 'new');
    let backend = await host.boot();
    const lines = await logOf(async () => await backend.reconcile());
    expect(authOf('a'), 'a live session may log in again').to.deep.equal(before);
    const report = lines.find(({ msg }) => String(msg).includes('not in the key file'));
    expect(report).to.include({ volumeId: id('a'), node: 'node-1', keyId: 'old' });

    const refusal = await publish(backend, 'a').catch((error: unknown) => error);
    expect(refusal).to.be.instanceOf(DriverError).with.property('code', 'FAILED_PRECONDITION');
    expect((refusal as Error).message)
      .to.contain('key "old" is not in')
      .and.contain('restore the key file');
    expect(authOf('a')).to.deep.equal(before);

    host.powerCycle();
    backend = await host.boot();
    expect(host.targets.get(id('a'))?.acls, 'never an ACL without credentials').to.deep.equal([]);
    host.chapKeys = await load('new', 'old', 'new');
    await host.boot();
    expect(authOf('a'), 'the key file was restored').to.deep.equal(before);
  });
});

describe("a user's own CHAP credentials", () => {
  it('are gone after a reboot of the storage host: the attachment is left out until it is published again', async () => {
    const host = new FakeHost();
    let backend = await host.boot();
    await create(backend, 'own');
    await create(backend, 'plain');
    const listed = async (): Promise<Record<string, readonly string[]>> => {
      const service = controllerService({ backend, topology: { segments: {} }, volumeIdForName: id });
      const { entries } = await service.ListVolumes({ max_entries: 0, starting_token: '' });
      for (const { volume, status } of entries) {
        const one = await service.ControllerGetVolume({ volume_id: volume.volume_id });
        expect(one.status).to.deep.equal(status);
      }
      return Object.fromEntries(entries.map(({ volume, status }) => [volume.volume_id, status.published_node_ids]));
    };
    const all = { [id('own')]: [NODE], [id('plain')]: [NODE] };
    const first = await publish(backend, 'own', SECRETS);
    await publish(backend, 'plain');
    expect(first).to.include({ authentication: 'user', chap: undefined });
    expect(await listed()).to.deep.equal(all);
    backend = await host.boot();
    expect(await listed(), 'the controller alone was restarted').to.deep.equal(all);

    host.powerCycle();
    backend = await host.boot();
    expect(host.targets.get(id('own'))?.acls).to.deep.equal([]);
    expect(await listed()).to.deep.equal({ ...all, [id('own')]: [] });
    expect(await publish(backend, 'own', SECRETS), 'the same attachment, with its nonce').to.deep.equal(first);
    expect(host.targets.get(id('own'))?.acls[0]?.auth).to.deep.equal({
      kind: 'chap',
      user: SECRETS['node.session.auth.username'],
      password: SECRETS['node.session.auth.password'],
      mutual: undefined,
    });
    expect(await listed()).to.deep.equal(all);
    expect([...host.lvs.values()].flatMap((lv) => [...lv.tags]).join()).not.to.contain('a-password-of-17');
  });
});
