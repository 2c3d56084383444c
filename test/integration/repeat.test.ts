import { expect } from 'chai';
import { type CsiClient, codeOf, type Message } from './support/csi-client.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, nodeId, TestVolume } from './support/volume-life.ts';

/** A CO repeats calls, and sends them twice at once; both must give what one gives. ABORTED is allowed for the second of two at once. */
async function twiceAtOnce(
  client: CsiClient,
  service: 'Controller' | 'Node',
  method: string,
  request: Message,
): Promise<Message[]> {
  const results = await Promise.allSettled([
    client.call(service, method, request),
    client.call(service, method, request),
  ]);
  const answers = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  for (const result of results) {
    if (result.status === 'rejected')
      expect((result.reason as { code: string }).code, `${method} twice at once`).to.equal('ABORTED');
  }
  expect(answers.length, `${method}: at least one of two at once succeeds`).to.be.greaterThan(0);
  const again = await client.call(service, method, request);
  for (const answer of answers) expect(answer, `${method} repeated`).to.deep.equal(again);
  return answers;
}

describe('the same call twice, and twice at once', () => {
  const suite = useDeployment({ nodes: 1 });

  for (const kind of ['ext4', 'block'] as const) {
    it(`every call of a ${kind} volume's life`, async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const controller = await deployment.controller.client();
      const plugin = await node.client();
      const volume = new TestVolume(deployment, { name: `repeat-${kind}`, kind });

      const [created] = await twiceAtOnce(controller, 'Controller', 'CreateVolume', volume.createRequest());
      volume.id = (created as { volume: { volume_id: string } }).volume.volume_id;
      const { stdout: count } = await deployment.lab.storage.exec('lvs --noheadings -o lv_name cinder-volumes | wc -l');
      expect(Number(count), 'one LV').to.equal(1);

      const [published] = await twiceAtOnce(
        controller,
        'Controller',
        'ControllerPublishVolume',
        await volume.attachRequest(node),
      );
      volume.contexts.set(
        node.machine.name,
        (published as { publish_context: Record<string, string> }).publish_context,
      );

      await node.machine.exec(`mkdir -p '${volume.stagingPath}'`);
      await twiceAtOnce(plugin, 'Node', 'NodeStageVolume', volume.stageRequest(node));
      const { stdout: sessions } = await node.machine.exec('ls /sys/class/iscsi_session | wc -l');
      expect(Number(sessions), 'one session').to.equal(1);

      await node.machine.exec(`mkdir -p "$(dirname '${volume.targetPath()}')"`);
      await twiceAtOnce(plugin, 'Node', 'NodePublishVolume', volume.publishRequest());
      const { stdout: mounts } = await node.machine.exec(`grep -c ' ${volume.targetPath()} ' /proc/self/mountinfo`);
      expect(Number(mounts), 'one mount at the target path').to.equal(1);
      await twiceAtOnce(plugin, 'Node', 'NodeGetVolumeStats', {
        volume_id: volume.id,
        volume_path: volume.targetPath(),
      }).catch((error: unknown) => {
        // Used bytes may move between two readings; everything else may not fail.
        if (!(error instanceof Error) || error.name !== 'AssertionError') throw error;
      });

      await twiceAtOnce(controller, 'Controller', 'ControllerExpandVolume', {
        volume_id: volume.id,
        capacity_range: { required_bytes: String(128 * MIB) },
        volume_capability: volume.capability,
      });
      await twiceAtOnce(plugin, 'Node', 'NodeExpandVolume', {
        volume_id: volume.id,
        volume_path: volume.targetPath(),
        staging_target_path: volume.stagingPath,
        capacity_range: { required_bytes: String(128 * MIB) },
        volume_capability: volume.capability,
      });

      for (const [service, method, request] of [
        [
          'Controller',
          'ValidateVolumeCapabilities',
          { volume_id: volume.id, volume_capabilities: [volume.capability] },
        ],
        ['Controller', 'ListVolumes', {}],
        ['Controller', 'GetCapacity', {}],
        ['Controller', 'ControllerGetCapabilities', {}],
        ['Controller', 'ControllerGetVolume', { volume_id: volume.id }],
      ] as const) {
        await twiceAtOnce(controller, service, method, request);
      }
      await twiceAtOnce(plugin, 'Node', 'NodeGetInfo', {});
      await twiceAtOnce(plugin, 'Node', 'NodeGetCapabilities', {});

      await twiceAtOnce(plugin, 'Node', 'NodeUnpublishVolume', {
        volume_id: volume.id,
        target_path: volume.targetPath(),
      });
      await twiceAtOnce(plugin, 'Node', 'NodeUnstageVolume', {
        volume_id: volume.id,
        staging_target_path: volume.stagingPath,
      });
      await twiceAtOnce(controller, 'Controller', 'ControllerUnpublishVolume', {
        volume_id: volume.id,
        node_id: nodeId(node),
      });
      await twiceAtOnce(controller, 'Controller', 'DeleteVolume', { volume_id: volume.id });
    });
  }

  it('a different operation on a volume that is being worked on is ABORTED, and says what is going on', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const controller = await deployment.controller.client();
    const volume = await new TestVolume(deployment, { name: 'repeat-busy' }).create();
    await deployment.controller.pauseAt('before:lv-tags');
    const publishing = volume.attach(node);
    await deployment.controller.waitPaused();
    expect(await codeOf(controller.call('Controller', 'DeleteVolume', { volume_id: volume.id }))).to.equal('ABORTED');
    expect(await codeOf(controller.call('Controller', 'CreateVolume', volume.createRequest()))).to.equal('ABORTED');
    await deployment.controller.resume();
    await publishing;
    await volume.detach(node);
    await volume.delete();
  });

  it('a client that gives up does not stop the work, and its retry joins it', async () => {
    const { deployment } = suite;
    const controller = await deployment.controller.client();
    const volume = new TestVolume(deployment, { name: 'repeat-impatient' });
    await deployment.controller.pauseAt('after:lv-create');
    expect(await codeOf(controller.call('Controller', 'CreateVolume', volume.createRequest(), 2000))).to.equal(
      'DEADLINE_EXCEEDED',
    );
    await deployment.controller.waitPaused();
    const retry = volume.create();
    await deployment.controller.resume();
    await retry;
    await volume.delete();
  });
});
