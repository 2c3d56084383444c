import { expect } from 'chai';
import {
  blockCapability,
  codeOf,
  failureOf,
  type Message,
  mountCapability,
} from '../../integration/support/csi-client.ts';
import { fakeVolumeId } from '../../sanity/fake/fake-backend.ts';
import { FAKE_NODE_ID } from '../../sanity/fake/fake-node.ts';
import { until } from './harness.ts';
import { backend, claimedTypes, controller, create, harness, publish, useServices } from './services-harness.ts';

describe('the CSI Controller service', () => {
  useServices();

  it('claims what it can do', async () => {
    expect(claimedTypes(await controller('ControllerGetCapabilities'))).to.have.members([
      'CREATE_DELETE_VOLUME',
      'PUBLISH_UNPUBLISH_VOLUME',
      'LIST_VOLUMES',
      'LIST_VOLUMES_PUBLISHED_NODES',
      'GET_CAPACITY',
      'EXPAND_VOLUME',
      'GET_VOLUME',
      'SINGLE_NODE_MULTI_WRITER',
      'PUBLISH_READONLY',
    ]);
  });

  it('carries sizes beyond 32 bits both ways', async () => {
    const required = 5_000_000_000_001;
    backend.before = async () => {};
    const capacity_range = { required_bytes: '50000000001', limit_bytes: '0' };
    const response = await controller<{ volume: Message }>('CreateVolume', {
      name: 'n',
      volume_capabilities: [blockCapability()],
      capacity_range,
    });
    expect(response.volume).to.include({ capacity_bytes: '50000000001', volume_id: fakeVolumeId('n') });
    expect(response.volume['volume_context']).to.deep.equal({});
    const tooLarge = { required_bytes: String(required), limit_bytes: '0' };
    const request = { name: 'm', volume_capabilities: [blockCapability()], capacity_range: tooLarge };
    expect(await codeOf(controller('CreateVolume', request))).to.equal('RESOURCE_EXHAUSTED');
  });

  const capability = mountCapability();
  const refusals: readonly [string, string, Message, string][] = [
    ['no name', 'CreateVolume', { volume_capabilities: [capability] }, 'INVALID_ARGUMENT'],
    ['no capabilities', 'CreateVolume', { name: 'n' }, 'INVALID_ARGUMENT'],
    [
      'a limit below the size',
      'CreateVolume',
      { name: 'n', volume_capabilities: [capability], capacity_range: { required_bytes: 2, limit_bytes: 1 } },
      'OUT_OF_RANGE',
    ],
    [
      'a snapshot as source',
      'CreateVolume',
      { name: 'n', volume_capabilities: [capability], volume_content_source: { snapshot: { snapshot_id: 's' } } },
      'INVALID_ARGUMENT',
    ],
    [
      'a source of no kind',
      'CreateVolume',
      { name: 'n', volume_capabilities: [capability], volume_content_source: {} },
      'INVALID_ARGUMENT',
    ],
    [
      'mutable parameters',
      'CreateVolume',
      { name: 'n', volume_capabilities: [capability], mutable_parameters: { iops: '1' } },
      'INVALID_ARGUMENT',
    ],
    ['no id', 'DeleteVolume', {}, 'INVALID_ARGUMENT'],
    ['no id', 'ControllerPublishVolume', { node_id: 'n', volume_capability: capability }, 'INVALID_ARGUMENT'],
    ['no node', 'ControllerPublishVolume', { volume_id: 'v', volume_capability: capability }, 'INVALID_ARGUMENT'],
    ['no capability', 'ControllerPublishVolume', { volume_id: 'v', node_id: 'n' }, 'INVALID_ARGUMENT'],
    [
      'an unknown volume',
      'ControllerPublishVolume',
      { volume_id: 'fake-vol-id-1', node_id: FAKE_NODE_ID, volume_capability: capability },
      'NOT_FOUND',
    ],
    ['no id', 'ControllerUnpublishVolume', {}, 'INVALID_ARGUMENT'],
    ['no id', 'ValidateVolumeCapabilities', { volume_capabilities: [capability] }, 'INVALID_ARGUMENT'],
    ['no capabilities', 'ValidateVolumeCapabilities', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    [
      'an unknown volume',
      'ValidateVolumeCapabilities',
      { volume_id: 'v', volume_capabilities: [capability] },
      'NOT_FOUND',
    ],
    ['a token that is not ours', 'ListVolumes', { starting_token: 'invalid-token' }, 'ABORTED'],
    ['a token that is too long for any', 'ListVolumes', { starting_token: 't'.repeat(5000) }, 'ABORTED'],
    ['a token with a line break', 'ListVolumes', { starting_token: 'after:x\n' }, 'ABORTED'],
    ['a negative page', 'ListVolumes', { max_entries: -1 }, 'INVALID_ARGUMENT'],
    ['no id', 'ControllerExpandVolume', { capacity_range: { required_bytes: 1 } }, 'INVALID_ARGUMENT'],
    ['no size', 'ControllerExpandVolume', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    [
      'an unknown volume',
      'ControllerExpandVolume',
      { volume_id: 'v', capacity_range: { required_bytes: 1 } },
      'NOT_FOUND',
    ],
    ['no id', 'ControllerGetVolume', {}, 'INVALID_ARGUMENT'],
    ['an unknown volume', 'ControllerGetVolume', { volume_id: 'v' }, 'NOT_FOUND'],
    ['anything', 'CreateSnapshot', { name: 's', source_volume_id: 'v' }, 'UNIMPLEMENTED'],
    ['anything', 'DeleteSnapshot', { snapshot_id: 's' }, 'UNIMPLEMENTED'],
    ['anything', 'ListSnapshots', {}, 'UNIMPLEMENTED'],
    ['anything', 'GetSnapshot', { snapshot_id: 's' }, 'UNIMPLEMENTED'],
    ['anything', 'ControllerModifyVolume', { volume_id: 'v' }, 'UNIMPLEMENTED'],
  ];
  for (const [what, method, request, code] of refusals) {
    it(`${method} refuses ${what} with ${code}`, async () => {
      const error = await failureOf(controller(method, request));
      expect(error.code).to.equal(code);
      expect(error.message.length).to.be.greaterThan(20);
    });
  }

  it('asks for a retry when an unexpected error may have left something behind', async () => {
    backend.before = async () => await Promise.reject(new Error('boom'));
    const request = { name: 'n', volume_capabilities: [mountCapability()] };
    expect(await codeOf(controller('CreateVolume', request))).to.equal('UNAVAILABLE');
    const expansion = { volume_id: 'v', capacity_range: { required_bytes: 1 } };
    expect(await codeOf(controller('ControllerExpandVolume', expansion))).to.equal('UNAVAILABLE');
    expect(await codeOf(controller('DeleteVolume', { volume_id: 'v' }))).to.equal('INTERNAL');
  });

  it('publishes with a context that the log does not show', async () => {
    const context = await publish(await create('n'));
    expect(context).to.include({ chapPassword: 'fake-chap-password', lun: '0' });
    expect(harness.text()).to.not.include('fake-chap-password');
  });

  it('confirms capabilities, or says why not', async () => {
    const volume_id = await create('n');
    type Answer = { confirmed: Message | null; message: string };
    const validate = async (more: Message) =>
      await controller<Answer>('ValidateVolumeCapabilities', { volume_id, ...more });
    const good = await validate({ volume_capabilities: [mountCapability()], parameters: { a: 'b' } });
    expect(good.confirmed).to.have.nested.property('volume_capabilities[0].mount.fs_type', 'ext4');
    expect(good.confirmed).to.have.deep.property('parameters', { a: 'b' });
    const cases: readonly [Message, RegExp][] = [
      [{ volume_capabilities: [mountCapability('ext4', 'MULTI_NODE_MULTI_WRITER')] }, /file system/],
      [{ volume_capabilities: [{ block: {}, access_mode: { mode: 'MULTI_NODE_SINGLE_WRITER' } }] }, /not supported/],
      [{ volume_capabilities: [mountCapability()], parameters: { bad: '1' } }, /"bad"/],
      [{ volume_capabilities: [mountCapability()], mutable_parameters: { iops: '1' } }, /iops/],
    ];
    for (const [more, pattern] of cases) {
      const answer = await validate(more);
      expect(answer.confirmed).to.equal(null);
      expect(answer.message).to.match(pattern);
    }
  });

  it('lists in pages, with the nodes that hold each volume', async () => {
    const ids = await Promise.all(['a', 'b', 'c'].map(async (name) => await create(name)));
    await publish(ids[0] ?? '');
    type Entry = { volume: { volume_id: string }; status: { published_node_ids: string[] } };
    const entries: Entry[] = [];
    let token = '';
    do {
      const request = { max_entries: 2, starting_token: token };
      const answer = await controller<{ entries: Entry[]; next_token: string }>('ListVolumes', request);
      entries.push(...answer.entries);
      token = answer.next_token;
    } while (token !== '');
    expect(entries.map(({ volume }) => volume.volume_id)).to.deep.equal([...ids].sort());
    const published = entries.filter(({ status }) => status.published_node_ids.length > 0);
    expect(published.map(({ volume }) => volume.volume_id)).to.deep.equal([ids[0]]);
    expect(published[0]?.status.published_node_ids).to.deep.equal([FAKE_NODE_ID]);
  });

  it('leaves out a node that has to be published again', async () => {
    const id = await create('n');
    await publish(id);
    const volume = backend.volumes.get(id);
    if (volume === undefined) throw new Error('no volume');
    const attachments = volume.attachments.map((each) => ({ ...each, needsRepublish: true }));
    backend.volumes.set(id, { ...volume, attachments });
    const answer = await controller('ControllerGetVolume', { volume_id: id });
    expect(answer).to.have.deep.nested.property('status.published_node_ids', []);
  });

  it('tells capacity, and none for what cannot be made', async () => {
    const all = await controller('GetCapacity');
    expect(all).to.have.deep.property('maximum_volume_size', { value: '107374182400' });
    expect(all).to.have.property('available_capacity', '107374182400');
    const request = { volume_capabilities: [mountCapability('ext4', 'MULTI_NODE_MULTI_WRITER')] };
    expect(await controller('GetCapacity', request)).to.have.property('available_capacity', '0');
  });

  it('makes volumes where its nodes are, and says so', async () => {
    const here = { segments: { 'topology.x.example/access': 'iscsi' } };
    const hereInZone = { segments: { ...here.segments, 'topology.kubernetes.io/zone': 'a' } };
    const elsewhere = { segments: { 'topology.y.example/access': 'iscsi' } };
    for (const requisite of [[], [here], [elsewhere, hereInZone]]) {
      const { volume } = await controller<{ volume: Message }>('CreateVolume', {
        name: 'n',
        volume_capabilities: [mountCapability()],
        accessibility_requirements: { requisite, preferred: requisite },
      });
      expect(volume['accessible_topology']).to.deep.equal([here]);
    }
    const failure = await failureOf(create('m', { accessibility_requirements: { requisite: [elsewhere] } }));
    expect(failure.code).to.equal('RESOURCE_EXHAUSTED');
    expect(failure.message).to.include('topology.y.example/access').and.include('topology.x.example/access');
    const { entries } = await controller<{ entries: { volume: Message }[] }>('ListVolumes');
    expect(entries.map(({ volume }) => volume['accessible_topology'])).to.deep.equal([[here]]);
    for (const [accessible_topology, available] of [
      [here, '107374182400'],
      [elsewhere, '0'],
    ]) {
      expect(await controller('GetCapacity', { accessible_topology })).to.have.property(
        'available_capacity',
        available,
      );
    }
  });

  it('joins an equal call and aborts a different one, also between a name and its id', async () => {
    const release = Promise.withResolvers<void>();
    let creations = 0;
    backend.before = async (method) => {
      if (method !== 'createVolume') return;
      creations += 1;
      await release.promise;
    };
    const calls = [create('n'), create('n')];
    await until(() => harness.server.activeCalls() === 2);
    const other = await failureOf(create('n', { capacity_range: { required_bytes: 7 } }));
    expect(other.code).to.equal('ABORTED');
    expect(other.message).to.include('CreateVolume');
    expect(await codeOf(controller('DeleteVolume', { volume_id: fakeVolumeId('n') }))).to.equal('ABORTED');
    expect(await codeOf(controller('ListVolumes')), 'reads take no lock').to.equal('OK');
    release.resolve();
    expect(new Set(await Promise.all(calls)).size).to.equal(1);
    expect(creations).to.equal(1);
  });
});
