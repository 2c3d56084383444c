import { expect } from 'chai';
import { type CsiClient, codeOf, type Message } from './support/csi-client.ts';
import type { DriverUnit } from './support/driver-unit.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, nodeId, TestVolume } from './support/volume-life.ts';

/** What two readings of one moment may differ in. */
type Steady = (answer: Message) => unknown;

const SIZE_BYTES = 64 * MIB;
const EXPANDED_BYTES = 128 * MIB;

/** Shell: how often an equal call has come while the first was in progress, since the unit was installed. */
const countJoins = (unit: DriverUnit): string =>
  `journalctl -u ${unit.unit} --no-pager -o cat | grep -c 'joined an equal call in progress'`;

async function joinsOf(unit: DriverUnit): Promise<number> {
  return Number((await unit.machine.exec(`${countJoins(unit)} || true`)).stdout);
}

/** Lets the paused process go on as soon as more calls have joined than `before`. */
async function resumeWhenJoined(unit: DriverUnit, before: number): Promise<void> {
  await unit.machine.waitFor(`[ "$(${countJoins(unit)})" -gt ${before} ]`, 60_000);
  await unit.resume();
}

/** A step that must be passed. */
interface At {
  readonly unit: DriverUnit;
  readonly step: string;
  /** How often by the two together and the third after them. Default 1: the third finds the work done. */
  readonly times?: number;
}

/** Both in progress at once: the first waits before that step until the second has come. */
async function inProgressAtOnce(at: At, call: () => Promise<Message>): Promise<[Message, Message]> {
  const { unit, step } = at;
  const before = await joinsOf(unit);
  await unit.pauseAt(`before:${step}`);
  const first = call();
  const tooEarly = first.then(() => {
    throw new Error(`the call has ended without the step ${step}`);
  });
  await Promise.race([unit.waitPaused(), tooEarly]);
  const [one, other] = await Promise.all([first, call(), resumeWhenJoined(unit, before)]);
  return [one, other];
}

/** A CO repeats calls, and sends them twice at once: an equal request joins the one in progress, so each is answered as one would be. */
async function twiceAtOnce(
  client: CsiClient,
  service: 'Identity' | 'Controller' | 'Node',
  method: string,
  request: Message,
  { at, steady = (answer) => answer }: { readonly at?: At; readonly steady?: Steady } = {},
): Promise<Message> {
  const call = () => client.call(service, method, request);
  await at?.unit.takeSteps();
  const [first, second] = at === undefined ? await Promise.all([call(), call()]) : await inProgressAtOnce(at, call);
  const again = await call();
  expect(steady(first), `${method} twice at once`).to.deep.equal(steady(second));
  expect(steady(again), `${method} repeated`).to.deep.equal(steady(first));
  if (at !== undefined) expect(await timesOf(at.unit, at.step), `${method}: ${at.step}`).to.equal(at.times ?? 1);
  return first;
}

/** How often the step was begun since `takeSteps` was called last. */
async function timesOf(unit: DriverUnit, step: string): Promise<number> {
  return (await unit.takeSteps()).filter((point) => point === `before:${step}`).length;
}

async function numberOf(unit: Pick<DriverUnit, 'machine'>, command: string): Promise<number> {
  return Number((await unit.machine.exec(command)).stdout);
}

function mountsAt(node: DriverUnit, path: string): Promise<number> {
  return numberOf(node, `grep -c ' ${path} ' /proc/self/mountinfo || true`);
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
      const volume = new TestVolume(deployment, { name: `repeat-${kind}`, kind, sizeBytes: SIZE_BYTES });
      const onController = (step: string) => ({ at: { unit: deployment.controller, step } });
      const onNode = (step: string, times = 1) => ({ at: { unit: node, step, times } });

      const created = await twiceAtOnce(
        controller,
        'Controller',
        'CreateVolume',
        volume.createRequest(),
        onController('lv-create'),
      );
      volume.id = (created as { volume: { volume_id: string } }).volume.volume_id;
      const { stdout: count } = await deployment.lab.storage.exec('lvs --noheadings -o lv_name cinder-volumes | wc -l');
      expect(Number(count), 'one LV').to.equal(1);

      const published = await twiceAtOnce(
        controller,
        'Controller',
        'ControllerPublishVolume',
        await volume.attachRequest(node),
        onController('lv-tags'),
      );
      volume.contexts.set(
        node.machine.name,
        (published as { publish_context: Record<string, string> }).publish_context,
      );

      await node.machine.exec(`mkdir -p '${volume.stagingPath}'`);
      await twiceAtOnce(plugin, 'Node', 'NodeStageVolume', volume.stageRequest(node), onNode('session-login'));
      const { stdout: sessions } = await node.machine.exec('ls /sys/class/iscsi_session | wc -l');
      expect(Number(sessions), 'one session').to.equal(1);

      await node.machine.exec(`mkdir -p "$(dirname '${volume.targetPath()}')"`);
      const bind = kind === 'block' ? 'publish-bind-device' : 'publish-bind';
      await twiceAtOnce(plugin, 'Node', 'NodePublishVolume', volume.publishRequest(), onNode(bind));
      expect(await mountsAt(node, volume.targetPath()), 'mounts at the target path').to.equal(1);
      const stats = { volume_id: volume.id, volume_path: volume.targetPath() };
      await twiceAtOnce(plugin, 'Node', 'NodeGetVolumeStats', stats, { steady: withoutUse });

      const fileSystemBytes = () => numberOf(node, `df -B1 --output=size '${volume.targetPath()}' | tail -1`);
      const before = kind === 'block' ? 0 : await fileSystemBytes();
      const expansion = {
        volume_id: volume.id,
        capacity_range: { required_bytes: String(EXPANDED_BYTES) },
        volume_capability: volume.capability,
      };
      await twiceAtOnce(controller, 'Controller', 'ControllerExpandVolume', expansion, onController('lv-extend'));
      await twiceAtOnce(
        plugin,
        'Node',
        'NodeExpandVolume',
        { ...expansion, volume_path: volume.targetPath(), staging_target_path: volume.stagingPath },
        // Each looks at the disk, also when there is nothing left to grow.
        onNode('disk-rescan', 2),
      );
      const lvBytes = await numberOf(
        { machine: deployment.lab.storage },
        `lvs --noheadings --nosuffix --units b -o lv_size cinder-volumes/${volume.id}`,
      );
      expect(lvBytes, 'size of the LV').to.equal(EXPANDED_BYTES);
      const device = kind === 'block' ? `'${volume.targetPath()}'` : `"$(findmnt -nro SOURCE '${volume.stagingPath}')"`;
      expect(await numberOf(node, `blockdev --getsize64 ${device}`), "size of the node's disk").to.equal(
        EXPANDED_BYTES,
      );
      if (kind !== 'block') {
        // Both sizes are one block group, so that ext4 keeps no more for itself than before.
        const after = await fileSystemBytes();
        expect(after, 'size of the file system').to.be.within(
          before + EXPANDED_BYTES - SIZE_BYTES - MIB,
          EXPANDED_BYTES,
        );
      }
      expect(await mountsAt(node, volume.stagingPath), 'mounts at the staging path').to.equal(kind === 'block' ? 0 : 1);

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

      await twiceAtOnce(
        plugin,
        'Node',
        'NodeUnpublishVolume',
        { volume_id: volume.id, target_path: volume.targetPath() },
        onNode('target-unmount'),
      );
      await twiceAtOnce(
        plugin,
        'Node',
        'NodeUnstageVolume',
        { volume_id: volume.id, staging_target_path: volume.stagingPath },
        onNode('session-logout'),
      );
      await twiceAtOnce(
        controller,
        'Controller',
        'ControllerUnpublishVolume',
        { volume_id: volume.id, node_id: nodeId(node) },
        onController('lv-tags'),
      );
      await twiceAtOnce(controller, 'Controller', 'DeleteVolume', { volume_id: volume.id }, onController('lv-rename'));
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
    const { controller } = suite.deployment;
    const client = await controller.client();
    const volume = new TestVolume(suite.deployment, { name: 'repeat-impatient' });
    await controller.takeSteps();
    await controller.pauseAt('after:lv-create');
    expect(await codeOf(client.call('Controller', 'CreateVolume', volume.createRequest(), 2000))).to.equal(
      'DEADLINE_EXCEEDED',
    );
    await controller.waitPaused();
    const before = await joinsOf(controller);
    await Promise.all([volume.create(), resumeWhenJoined(controller, before)]);
    expect(await timesOf(controller, 'lv-create'), 'lv-create, by both calls').to.equal(1);
    await volume.delete();
  });
});
