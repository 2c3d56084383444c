/** What a host lacks is said where an administrator looks; and a host that has no disk for a volume group yet. */
import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import {
  bench,
  DRIVER_NAMESPACE,
  driverReady,
  HELM_INSTALL,
  helmRelease,
  installDriver,
  RELEASE,
  useCluster,
} from './support/bench.ts';
import { claim, DATA, pod } from './support/manifests.ts';

describe('a host that lacks something', () => {
  useCluster();

  afterEach('the driver is ready', async function () {
    this.timeout(1_500_000);
    await driverReady();
  });

  for (const { component, on, program, packageName } of [
    { component: 'node', on: 'a worker', program: 'iscsiadm', packageName: 'open-iscsi' },
    { component: 'controller', on: 'the storage host', program: 'lvm', packageName: 'lvm2' },
  ]) {
    it(`${on} without ${packageName}: an event of its pod and the log name the package, and the plugin is not restarted`, async () => {
      const { driver, storage, workers } = bench();
      const machine = component === 'node' ? workers[1] : storage;
      const before = await pluginOf(component, machine);
      await machine.exec(`mv /usr/sbin/${program} /usr/sbin/${program}.away`);
      try {
        await driver.deletePods([before]);
        const name = await driver.waitFor('another pod', async () => (await pluginOf(component, machine)) || false);
        await driver.event('Pod', name, new RegExp(`install the package ${packageName}`));
        const log = await driver.core.readNamespacedPodLog({ name, namespace: DRIVER_NAMESPACE, container: 'driver' });
        expect(log).to.contain(`install the package ${packageName}`);
        const { status } = await driver.pod(name);
        expect(status?.containerStatuses?.find((each) => each.name === 'driver')?.restartCount).to.equal(0);
      } finally {
        await machine.exec(`mv /usr/sbin/${program}.away /usr/sbin/${program}`);
      }
    });
  }
});

describe('the development mode', () => {
  useCluster();
  const group = 'development';
  const file = '/var/tmp/development.img';

  after('the driver as it was', async function () {
    this.timeout(1_500_000);
    const { storage } = bench();
    await helmRelease('uninstall', RELEASE, '--namespace', DRIVER_NAMESPACE, '--wait');
    await storage.exec(`vgremove --yes ${group} && losetup -d $(losetup -n -O NAME -j ${file}) && rm ${file}
      rm -f /etc/udev/rules.d/*-lvm-iscsi-csi-${group}.rules`);
    await installDriver();
  });

  it('a claim and its pod, on a host where no disk was prepared', async () => {
    const { kube } = bench();
    await helmRelease(
      ...HELM_INSTALL,
      ...['--set', 'developmentMode.enabled=true', '--set', 'developmentMode.size=2Gi'],
      ...['--set', `developmentMode.file=${file}`, '--set', `controller.options.volumeGroup=${group}`],
    );
    await driverReady();
    await kube.apply(claim('data', { size: '64Mi' }), pod('user', 'data'));
    await kube.podReady('user');
    expect(await kube.exec('user', `echo tried > ${DATA}/file && cat ${DATA}/file`)).to.equal('tried');
    const { stdout } = await bench().storage.exec(`lvs --noheadings -o lv_name ${group}`);
    expect(stdout.trim()).to.match(/^volume-\S+$/);
  });
});

/** The driver's pod on that machine that is not on its way out. */
async function pluginOf(component: string, machine: Machine): Promise<string> {
  const { items } = await bench().driver.core.listNamespacedPod({
    namespace: DRIVER_NAMESPACE,
    labelSelector: `app.kubernetes.io/component=${component}`,
    fieldSelector: `spec.nodeName=${machine.name}`,
  });
  return items.find(({ metadata }) => metadata?.deletionTimestamp === undefined)?.metadata?.name ?? '';
}
