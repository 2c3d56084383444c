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
  kubectl,
  RELEASE,
  useCluster,
} from './support/bench.ts';
import { claim, DATA, pod } from './support/manifests.ts';

interface Lack {
  readonly component: 'node' | 'controller';
  readonly lack: string;
  /** of the pod's event and of the log */
  readonly words: RegExp;
  readonly takeAway: string;
  /** Works too when it was not, or only half, taken away. */
  readonly giveBack: string;
}

const MODULES =
  'iscsi_target_mod target_core_iblock target_core_file target_core_pscsi target_core_user target_core_mod';

const LACKS: readonly Lack[] = [
  {
    component: 'node',
    lack: 'a worker without open-iscsi',
    words: /install the package open-iscsi/,
    takeAway: 'mv /usr/sbin/iscsiadm /usr/sbin/iscsiadm.away',
    giveBack: '[ -e /usr/sbin/iscsiadm ] || mv /usr/sbin/iscsiadm.away /usr/sbin/iscsiadm',
  },
  {
    component: 'node',
    lack: 'a worker on which iscsid does not run',
    words: /iscsid is not running .*systemctl enable --now iscsid/,
    takeAway: 'systemctl stop iscsid.socket iscsid.service && systemctl mask --runtime iscsid.socket iscsid.service',
    giveBack: 'systemctl unmask --runtime iscsid.socket iscsid.service && systemctl start iscsid.socket',
  },
  {
    component: 'controller',
    lack: 'the storage host without lvm2',
    words: /install the package lvm2/,
    takeAway: 'mv /usr/sbin/lvm /usr/sbin/lvm.away',
    giveBack: '[ -e /usr/sbin/lvm ] || mv /usr/sbin/lvm.away /usr/sbin/lvm',
  },
  {
    component: 'controller',
    lack: 'the storage host without the target modules',
    words: /iSCSI target \(LIO\) is not available: .*target_core_mod.*linux-modules-extra/s,
    takeAway: `cd /sys/kernel/config/target/iscsi
      for t in iqn.*:portal-*; do echo 0 >$t/tpgt_1/enable && rmdir $t/tpgt_1/np/* $t/tpgt_1 $t || exit 1; done
      cd / && rmdir /sys/kernel/config/target/iscsi && modprobe --remove --all ${MODULES} || exit 1
      mkdir -p /run/modprobe.d && for m in ${MODULES}; do echo "install $m /bin/false"; done >/run/modprobe.d/lacking.conf`,
    giveBack: 'rm -f /run/modprobe.d/lacking.conf',
  },
];

describe('a host that lacks something', () => {
  useCluster();

  afterEach('the driver is ready', async function () {
    this.timeout(1_500_000);
    await driverReady();
  });

  for (const { component, lack, words, takeAway, giveBack } of LACKS) {
    it(`${lack}: an event of its pod and the log say what to do, and the plugin is not restarted`, async () => {
      const { driver, storage, workers } = bench();
      const machine = component === 'node' ? workers[1] : storage;
      if (component === 'controller') await scaleController(0);
      try {
        await machine.exec(takeAway);
        if (component === 'controller') await scaleController(1);
        else await driver.deletePods([await pluginOf(component, machine)]);
        const name = await driver.waitFor('another pod', async () => (await pluginOf(component, machine)) || false);
        await driver.event('Pod', name, words);
        const log = await driver.core.readNamespacedPodLog({ name, namespace: DRIVER_NAMESPACE, container: 'driver' });
        expect(log).to.match(words);
        const { status } = await driver.pod(name);
        expect(status?.containerStatuses?.find((each) => each.name === 'driver')?.restartCount).to.equal(0);
      } finally {
        await machine.exec(giveBack);
        await scaleController(1);
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

/** Returns when it has so many pods. */
async function scaleController(replicas: 0 | 1): Promise<void> {
  const { driver } = bench();
  const name = `${RELEASE}-controller`;
  await kubectl('--namespace', DRIVER_NAMESPACE, 'scale', `deployment/${name}`, `--replicas=${replicas}`);
  await driver.waitFor(`${replicas} pods of the controller`, async () => {
    const { items } = await driver.core.listNamespacedPod({
      namespace: DRIVER_NAMESPACE,
      labelSelector: 'app.kubernetes.io/component=controller',
    });
    return items.length === replicas;
  });
}

/** The driver's pod on that machine that is not on its way out. */
async function pluginOf(component: string, machine: Machine): Promise<string> {
  const { items } = await bench().driver.core.listNamespacedPod({
    namespace: DRIVER_NAMESPACE,
    labelSelector: `app.kubernetes.io/component=${component}`,
    fieldSelector: `spec.nodeName=${machine.name}`,
  });
  return items.find(({ metadata }) => metadata?.deletionTimestamp === undefined)?.metadata?.name ?? '';
}
