import { expect } from 'chai';
import { DriverError } from '../../../src/errors.ts';
import { codeOf, failureOf, type Message, mountCapability } from '../../integration/support/csi-client.ts';
import { FAKE_NODE_ID } from '../../sanity/fake/fake-node.ts';
import { until } from './harness.ts';
import { claimedTypes, controller, create, harness, node, onNode, publish, useServices } from './services-harness.ts';

describe('the CSI Node service', () => {
  useServices();

  it('claims what it can do, and who it is', async () => {
    expect(claimedTypes(await onNode('NodeGetCapabilities'))).to.have.members([
      'STAGE_UNSTAGE_VOLUME',
      'GET_VOLUME_STATS',
      'EXPAND_VOLUME',
      'SINGLE_NODE_MULTI_WRITER',
    ]);
    expect(await onNode('NodeGetInfo')).to.deep.equal({
      node_id: FAKE_NODE_ID,
      max_volumes_per_node: '0',
      accessible_topology: { segments: { 'topology.x.example/access': 'iscsi' } },
    });
  });

  const volume_capability = mountCapability();
  const paths = { volume_id: 'v', staging_target_path: '/stage', target_path: '/target' };
  const refusals: readonly [string, string, Message, string][] = [
    ['no id', 'NodeStageVolume', { ...paths, volume_id: '', volume_capability }, 'INVALID_ARGUMENT'],
    ['no staging path', 'NodeStageVolume', { volume_id: 'v', volume_capability }, 'INVALID_ARGUMENT'],
    ['no capability', 'NodeStageVolume', { ...paths, publish_context: { a: 'b' } }, 'INVALID_ARGUMENT'],
    ['no publish context', 'NodeStageVolume', { ...paths, volume_capability }, 'INVALID_ARGUMENT'],
    ['no id', 'NodeUnstageVolume', { staging_target_path: '/s' }, 'INVALID_ARGUMENT'],
    ['no staging path', 'NodeUnstageVolume', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    ['no id', 'NodePublishVolume', { ...paths, volume_id: '', volume_capability }, 'INVALID_ARGUMENT'],
    ['no target', 'NodePublishVolume', { ...paths, target_path: '', volume_capability }, 'INVALID_ARGUMENT'],
    ['no capability', 'NodePublishVolume', paths, 'INVALID_ARGUMENT'],
    [
      'no staging path',
      'NodePublishVolume',
      { ...paths, staging_target_path: '', volume_capability },
      'FAILED_PRECONDITION',
    ],
    ['a relative target', 'NodePublishVolume', { ...paths, target_path: 'a', volume_capability }, 'INVALID_ARGUMENT'],
    ['an unknown volume', 'NodePublishVolume', { ...paths, volume_capability }, 'NOT_FOUND'],
    ['no id', 'NodeUnpublishVolume', { target_path: '/t' }, 'INVALID_ARGUMENT'],
    ['no target', 'NodeUnpublishVolume', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    ['no id', 'NodeGetVolumeStats', { volume_path: 'some/path' }, 'INVALID_ARGUMENT'],
    ['no path', 'NodeGetVolumeStats', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    ['a relative path', 'NodeGetVolumeStats', { volume_id: 'v', volume_path: 'some/path' }, 'NOT_FOUND'],
    ['no id', 'NodeExpandVolume', { volume_path: '/p' }, 'INVALID_ARGUMENT'],
    ['no path', 'NodeExpandVolume', { volume_id: 'v' }, 'INVALID_ARGUMENT'],
    ['a relative path', 'NodeExpandVolume', { volume_id: 'v', volume_path: 'some/path' }, 'NOT_FOUND'],
  ];
  for (const [what, method, request, code] of refusals) {
    it(`${method} refuses ${what} with ${code}`, async () => {
      expect(await codeOf(onNode(method, request))).to.equal(code);
    });
  }

  it('leads a volume through its life', async () => {
    const volume_id = await create('n');
    const publish_context = await publish(volume_id);
    const staging_target_path = `${harness.folder}/stage`;
    const target_path = `${harness.folder}/target`;
    const staged = { volume_id, staging_target_path, volume_capability };
    await onNode('NodeStageVolume', { ...staged, publish_context });
    expect(node.staged.get(volume_id)?.request.publishContext.chap?.password).to.equal('fake-chap-password');
    await onNode('NodePublishVolume', { ...staged, target_path, publish_context });
    const stats = await onNode<{ usage: Message[] }>('NodeGetVolumeStats', { volume_id, volume_path: target_path });
    expect(stats.usage).to.deep.equal([
      { available: '5', total: '9', used: '3', unit: 'BYTES' },
      { available: '4', total: '7', used: '3', unit: 'INODES' },
    ]);
    const grown = { volume_id, volume_path: target_path, capacity_range: { required_bytes: 4096 } };
    expect(await onNode('NodeExpandVolume', grown)).to.deep.equal({ capacity_bytes: '4096' });
    await onNode('NodeUnpublishVolume', { volume_id, target_path });
    await onNode('NodeUnstageVolume', { volume_id, staging_target_path });
    await controller('ControllerUnpublishVolume', { volume_id, node_id: FAKE_NODE_ID });
    await controller('DeleteVolume', { volume_id });
    expect(harness.text()).to.not.include('fake-chap-password');
  });

  it("takes a user's own CHAP credentials from the node stage secret", async () => {
    const volume_id = await create('n');
    const { chapUser, chapPassword, ...rest } = await publish(volume_id);
    expect([chapUser, chapPassword]).to.not.include(undefined);
    const publish_context = { ...rest, authentication: 'user' };
    const request = { ...paths, volume_id, publish_context, volume_capability };
    const error = await failureOf(onNode('NodeStageVolume', request));
    expect(error.code).to.equal('INVALID_ARGUMENT');
    expect(error.message).to.include('node-stage-secret-name');
    const secrets = { 'node.session.auth.username': 'me', 'node.session.auth.password': 'canary-password' };
    await onNode('NodeStageVolume', { ...request, secrets });
    expect(node.staged.get(volume_id)?.request.publishContext.chap).to.deep.equal({
      user: 'me',
      password: 'canary-password',
    });
    expect(harness.text()).to.not.include('canary-password');
  });

  it('works on one volume once at a time', async () => {
    const release = Promise.withResolvers<void>();
    node.before = async (method) => {
      if (method === 'unstage') await release.promise;
    };
    const unstaging = onNode('NodeUnstageVolume', { volume_id: 'v', staging_target_path: '/s' });
    await until(() => harness.server.activeCalls() === 1);
    expect(await codeOf(onNode('NodeUnpublishVolume', { volume_id: 'v', target_path: '/t' }))).to.equal('ABORTED');
    expect(await codeOf(onNode('NodeUnpublishVolume', { volume_id: 'w', target_path: '/t' }))).to.equal('OK');
    expect(await codeOf(onNode('NodeGetVolumeStats', { volume_id: 'v', volume_path: '/t' }))).to.equal('NOT_FOUND');
    release.resolve();
    await unstaging;
  });

  it('passes the codes of the node plugin on', async () => {
    node.before = async () => {
      throw new DriverError('FAILED_PRECONDITION', 'a LUKS header was found');
    };
    const error = await failureOf(onNode('NodeUnstageVolume', { volume_id: 'v', staging_target_path: '/s' }));
    expect(error.code).to.equal('FAILED_PRECONDITION');
    expect(error.message).to.include('a LUKS header was found');
  });
});
