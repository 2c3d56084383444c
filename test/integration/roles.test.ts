/** The program as an administrator meets it: options, credentials of his own, a second instance, an orderly stop, what it tells about itself. */
import { expect } from 'chai';
import { type CsiClient, codeOf, failureOf } from './support/csi-client.ts';
import { DriverUnit, PROGRAM } from './support/driver-unit.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { nodeId, TestVolume } from './support/volume-life.ts';

const METRICS = '127.0.0.1:9809';
const SECRETS = {
  'node.session.auth.username': 'tenant-a',
  'node.session.auth.password': 'a-password-of-the-user-17',
};

describe('the program in its roles', () => {
  const suite = useDeployment({
    nodes: 1,
    watchSteps: true,
    controllerOptions: [`--metrics-endpoint=${METRICS}`, '--max-volumes-per-node=2'],
  });
  const controllerClient = async (): Promise<CsiClient> => await suite.deployment.controller.client();

  it("CHAP with the user's own secret: both sides get it, a wrong one is refused, none of it is logged or in arguments", async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volume = await new TestVolume(deployment, { name: 'own-chap' }).create();
    const response = await (await controllerClient()).call<{ publish_context: Record<string, string> }>(
      'Controller',
      'ControllerPublishVolume',
      { ...(await volume.attachRequest(node)), secrets: SECRETS },
    );
    expect(JSON.stringify(response.publish_context)).not.to.contain(SECRETS['node.session.auth.password']);
    volume.contexts.set(node.machine.name, response.publish_context);
    await node.machine.exec(`mkdir -p '${volume.stagingPath}'`);
    const plugin = await node.client();
    const stage = (secrets: object) =>
      plugin.call('Node', 'NodeStageVolume', { ...volume.stageRequest(node), secrets });

    const missing = await failureOf(stage({}));
    expect(missing.code).to.equal('INVALID_ARGUMENT');
    expect(missing.message).to.contain('csi.storage.k8s.io/node-stage-secret-name');
    const wrong = await failureOf(stage({ ...SECRETS, 'node.session.auth.password': 'another-password-99' }));
    expect(wrong.message).to.match(/CHAP|credentials|authentication/i);
    expect(wrong.message).not.to.contain('another-password-99');
    await stage(SECRETS);
    // A restarted controller does not know the secret: what is there stays as it is.
    await deployment.controller.stop();
    await deployment.controller.start();
    await node.machine.exec(`dd if=/dev/zero of='${volume.stagingPath}/file' bs=64k count=4 conv=fsync status=none`);
    for (const unit of [deployment.controller, node])
      expect(await unit.log()).not.to.contain(SECRETS['node.session.auth.password']);
    await volume.unstage(node);
    await volume.detach(node);
    await volume.delete();
  });

  it("the controller's own limit of attachments to a node", async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volumes = ['a', 'b', 'c'].map((name) => new TestVolume(deployment, { name: `limit-${name}`, kind: 'block' }));
    for (const volume of volumes) await volume.create();
    const [a, b, c] = volumes as [TestVolume, TestVolume, TestVolume];
    await a.attach(node);
    await b.attach(node);
    const failure = await failureOf(c.attach(node));
    expect(failure.code).to.equal('RESOURCE_EXHAUSTED');
    expect(failure.message).to.contain('2').and.to.contain('max-volumes-per-node');
    await a.detach(node);
    await c.attach(node);
    for (const volume of [b, c]) await volume.detach(node);
    for (const volume of volumes) await volume.delete();
  });

  it('a second controller for the same volume group waits, says who has it, and takes over when that one is dead', async () => {
    const { deployment } = suite;
    const { storage } = deployment.lab;
    const second = new DriverUnit(storage, 'controller', 'second');
    await second.install([`--portals=${storage.address}:3260`, '--cluster-id=lab']);
    await storage.exec(`systemctl start ${second.unit}`);
    const client = await second.client();
    await storage.waitFor(`test -S ${second.socket}`, 60_000);
    const { ready } = await client.call<{ ready: { value: boolean } }>('Identity', 'Probe', {});
    expect(ready.value).to.equal(false);
    const failure = await failureOf(new TestVolume({ ...deployment, controller: second }, { name: 'second' }).create());
    expect(failure.code).to.equal('UNAVAILABLE');
    expect(failure.message).to.contain('another controller').and.to.contain('cinder-volumes');
    await deployment.controller.kill();
    await second.waitReady();
    const volume = await new TestVolume({ ...deployment, controller: second }, { name: 'second' }).create();
    await volume.delete();
    await second.stop();
    second.close();
    await deployment.controller.start();
  });

  it('SIGTERM: the call in progress is finished and answered, exports and sessions stay', async () => {
    const { deployment } = suite;
    const { controller } = deployment;
    const node = nodeOf(deployment, 0);
    const live = await new TestVolume(deployment, { name: 'term-live', kind: 'block' }).up(node);
    const session = (await node.machine.exec('ls /sys/class/iscsi_session')).stdout;
    await controller.pauseAt('after:lv-create');
    const volume = new TestVolume(deployment, { name: 'term' });
    const creating = volume.create();
    await controller.waitPaused();
    const stopping = controller.stop();
    await deployment.lab.storage.waitFor(
      `systemctl show -p ActiveState ${controller.unit} | grep -q deactivating`,
      30_000,
    );
    expect(await codeOf(new TestVolume(deployment, { name: 'term-too-late' }).create())).to.equal('UNAVAILABLE');
    await controller.resume();
    await creating;
    await stopping;
    expect(await controller.isRunning()).to.equal(false);
    await node.machine.exec(`dd if=${live.targetPath()} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    expect((await node.machine.exec('ls /sys/class/iscsi_session')).stdout).to.equal(session);
    await controller.start();
    await live.down(node);
    await volume.delete();
  });

  it('tells about itself: /healthz, /readyz with the reason, metrics; Probe when the volume group is away', async () => {
    const { deployment } = suite;
    const { storage } = deployment.lab;
    const node = nodeOf(deployment, 0);
    const get = async (path: string) =>
      (
        await storage.exec(
          `node -e 'fetch("http://${METRICS}${path}").then(async (r) => console.log((await r.text()) + "\\n" + r.status))'`,
        )
      ).stdout;
    expect(await get('/healthz')).to.match(/\n200$/);
    expect(await get('/readyz')).to.match(/\n200$/);
    const volume = await new TestVolume(deployment, { name: 'metrics', kind: 'block' }).create();
    await volume.attach(node);
    const metrics = await get('/metrics');
    const value = (name: string) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(metrics)?.[1]);
    expect(metrics).to.match(/^lvm_iscsi_csi_rpc_duration_seconds_count\{.*CreateVolume.*OK.*\} [1-9]/m);
    expect(metrics).to.match(/^lvm_iscsi_csi_command_duration_seconds_count\{.*lv.*\} [1-9]/m);
    expect(value('lvm_iscsi_csi_volumes')).to.equal(1);
    expect(value('lvm_iscsi_csi_attachments')).to.equal(1);
    expect(value('lvm_iscsi_csi_vg_size_bytes')).to.be.greaterThan(value('lvm_iscsi_csi_vg_free_bytes'));
    await volume.detach(node);
    await volume.delete();

    await storage.waitFor('! lvs --noheadings cinder-volumes | grep -q _wipe', 60_000);
    await storage.exec('vgexport -q cinder-volumes');
    const unready = await get('/readyz');
    expect(unready)
      .to.match(/\n503$/)
      .and.to.match(/exported/);
    expect((await failureOf(volume.create())).code).to.equal('UNAVAILABLE');
    expect(await get('/healthz')).to.match(/\n200$/);
    await storage.exec('vgimport -q cinder-volumes');
    await deployment.controller.waitReady();
  });

  it('an unknown option or value: exit code 2, and a message that names it and what is allowed', async () => {
    const { storage } = suite.deployment.lab;
    const run = async (options: string) =>
      await storage.exec(`/usr/local/bin/node ${PROGRAM} controller ${options}`, { check: false });
    const unknown = await run('--portal=10.0.0.1');
    expect([unknown.exitCode, unknown.stderr]).to.deep.equal([2, unknown.stderr]);
    expect(unknown.stderr).to.contain('--portal').and.to.contain('--portals');
    const bad = await run('--portals=10.0.0.1 --chap=maybe');
    expect(bad.exitCode).to.equal(2);
    expect(bad.stderr).to.contain('chap').and.to.contain('maybe').and.to.contain('mutual');
    const help = await run('--help');
    expect(help.exitCode).to.equal(0);
    expect(help.stdout).to.contain('--max-volumes-per-node').and.to.contain('256');
  });
});

describe('both roles in one program on one host', () => {
  const suite = useDeployment({ nodes: 0, scrub: false });

  it('a volume lives on the storage host itself', async () => {
    const { deployment } = suite;
    const { storage } = deployment.lab;
    await deployment.controller.stop();
    const both = new DriverUnit(storage, 'all');
    await both.install([`--portals=${storage.address}:3260`, '--cluster-id=lab', `--node-name=${storage.name}`]);
    await both.start();
    const volume = await new TestVolume({ ...deployment, controller: both }, { name: 'at-home' }).up(both);
    await storage.exec(`echo here > ${volume.targetPath()}/file && sync -f ${volume.targetPath()}/file`);
    expect(nodeId(both)).to.equal(`${storage.name}/${storage.iqn}`);
    await volume.down(both);
    await both.stop();
    both.close();
    await deployment.controller.start();
  });
});
