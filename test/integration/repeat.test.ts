import { expect } from 'chai';
import { type CsiClient, codeOf, type Message } from './support/csi-client.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, nodeId, TestVolume } from './support/volume-life.ts';

/** What two readings of one moment may differ in. */
type Steady = (answer: Message) => unknown;

/** A CO repeats calls, and sends them twice at once: an equal request joins the one in progress, so each is answered as one would be. */
async function twiceAtOnce(
  client: CsiClient,
  service: 'Identity' | 'Controller' | 'Node',
  method: string,
  request: Message,
  steady: Steady = (answer) => answer,
): Promise<Message> {
  const [first, second] = await Promise.all([
    client.call(service, method, request),
    client.call(service, method, request),
  ]);
  const again = await client.call(service, method, request);
  expect(steady(first), `${method} twice at once`).to.deep.equal(steady(second));
  expect(steady(again), `${method} repeated`).to.deep.equal(steady(first));
  return first;
}

/** Statistics without what moves between two readings. */
const withoutUse: Steady = (answer) => (answer['usage'] as Message[]).map(({ unit, total }) => ({ unit, total }));

describe('the same call twice, and twice at once', () => {
  const suite = useDeployment({ nodes: 1, watchSteps: true });

  for (const kind of ['ext4', 'block'] as const) {
    it(`every call of a ${kind} volume's life`, async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const controller = await deployment.controller.client();
      const plugin = await node.client();
      const volume = new TestVolume(deployment, { name: `repeat-${kind}`, kind });

      const created = await twiceAtOnce(controller, 'Controller', 'CreateVolume', volume.createRequest());
      volume.id = (created as { volume: { volume_id: string } }).volume.volume_id;
      const { stdout: count } = await deployment.lab.storage.exec('lvs --noheadings -o lv_name cinder-volumes | wc -l');
      expect(Number(count), 'one LV').to.equal(1);

      const published = await twiceAtOnce(
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
      const stats = { volume_id: volume.id, volume_path: volume.targetPath() };
      await twiceAtOnce(plugin, 'Node', 'NodeGetVolumeStats', stats, withoutUse);

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
      for (const client of [controller, plugin]) {
        for (const method of ['GetPluginInfo', 'GetPluginCapabilities', 'Probe'])
          await twiceAtOnce(client, 'Identity', method, {});
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
