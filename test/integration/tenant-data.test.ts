import { expect } from 'chai';
import type { Deployment } from './support/deployment.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { TestVolume } from './support/volume-life.ts';

const LABEL = 'of-a-tenant';
const VG_INSIDE = 'inside';

/** What a tenant who means harm, or who restores the image of a disk, has in a raw volume. */
interface Tenants {
  /** a PV with a volume group and an LV */
  readonly pv: TestVolume;
  /** a file system with the UUID of the storage host's root */
  readonly root: TestVolume;
}

async function rootUuid(deployment: Deployment): Promise<string> {
  const { stdout } = await deployment.lab.storage.exec('blkid -p -s UUID -o value /dev/vda');
  expect(stdout).to.match(/^[0-9a-f-]{36}$/);
  return stdout;
}

async function writeTenants(deployment: Deployment, name: string): Promise<Tenants> {
  const node = nodeOf(deployment, 0);
  // Nodes are not what is looked at here: docs/security.md says how to keep their LVM out.
  await node.machine.writeFile('/etc/lvm/lvmlocal.conf', 'global { event_activation = 0 }\n');
  const pv = await new TestVolume(deployment, { name: `${name}-pv`, kind: 'block' }).up(node);
  const root = await new TestVolume(deployment, { name: `${name}-root`, kind: 'block' }).up(node);
  await node.machine.exec(`
    set -e
    disk=$(readlink -f /dev/block/$(mountpoint -x '${pv.targetPath()}'))
    only="devices { filter = [ \\"a|^$disk$|\\", \\"r|.*|\\" ] }"
    vgcreate -qq -y --config "$only" ${VG_INSIDE} $disk
    lvcreate -qq -y --config "$only" -an -Zn -Wn -l 1 -n lv ${VG_INSIDE}
    mkfs.ext4 -q -F -U ${await rootUuid(deployment)} -L ${LABEL} '${root.targetPath()}'
    sync
    udevadm settle`);
  return { pv, root };
}

/** One line for each trace of the tenants' data on the storage host, and for each link of ours that is missing. */
async function traces(deployment: Deployment, { pv, root }: Tenants, gates: boolean): Promise<string[]> {
  const ours = [pv, root].flatMap((volume) => [volume.lvPath, ...(gates ? [volume.gatePath] : [])]);
  const { stdout } = await deployment.lab.storage.exec(`
    udevadm settle
    for link in /dev/disk/by-uuid/* /dev/disk/by-label/* /dev/disk/by-part*/*; do
      [ -L "$link" ] || continue
      name=$(cat /sys/class/block/$(basename $(readlink -f "$link"))/dm/name 2>/dev/null) || continue
      echo "$link leads to $name"
    done
    dmsetup ls | grep '^${VG_INSIDE}-'
    systemctl list-units --all --plain --no-legend 'lvm-activate-${VG_INSIDE}*'
    for path in ${ours.join(' ')}; do [ -b $path ] || echo "$path is missing"; done
    readlink -f /dev/disk/by-uuid/${await rootUuid(deployment)}`);
  return stdout.split('\n');
}

const NONE = ['/dev/vda'];

// As in a pod: the rules get to the host through its root as a pod sees it. Never scrubbed: a scrub would have brought them.
describe("what tenants write is not for the storage host's udev and LVM", () => {
  const suite = useDeployment({ nodes: 1, pod: true, scrub: false });

  it('a volume group, and the UUID of the root: no link, no activation, attached again, at every event; unpublish works', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const tenants = await writeTenants(deployment, 'tenant');
    const volumes = [tenants.pv, tenants.root];
    expect(await traces(deployment, tenants, true), 'just written').to.deep.equal(NONE);
    for (const volume of volumes) await volume.takeFrom(node);
    for (const volume of volumes) await volume.bringTo(node);
    expect(await traces(deployment, tenants, true), 'attached again').to.deep.equal(NONE);
    for (const action of ['change', 'add']) {
      await storage.exec(`udevadm trigger --action=${action} --subsystem-match=block`);
      expect(await traces(deployment, tenants, true), `at ${action}`).to.deep.equal(NONE);
    }
    // That it would have been otherwise: a device that the rules do not know, over the same data.
    const { stdout: found } = await storage.exec(`
      set -e
      dmsetup create control --table "0 $(blockdev --getsz ${tenants.root.lvPath}) linear ${tenants.root.lvPath} 0"
      udevadm settle
      readlink -f /dev/disk/by-label/${LABEL} | sed 's|/dev|/sys/block|; s|$|/dm/name|' | xargs cat
      dmsetup remove --retry control`);
    expect(found).to.equal('control');
    for (const volume of volumes) await volume.down(node);
  });

  it('a reboot of the storage host: the same, before the controller has started and after', async function () {
    this.timeout(900_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const { storage } = deployment.lab;
    const tenants = await writeTenants(deployment, 'tenant-boot');
    await storage.reboot();
    // Whoever activates them: the host by itself, or an administrator.
    await storage.exec('vgchange -qq -ay cinder-volumes');
    expect(await traces(deployment, tenants, false), 'before the controller starts').to.deep.equal(NONE);
    await deployment.controller.start();
    expect(await traces(deployment, tenants, true), 'after it has started').to.deep.equal(NONE);
    for (const volume of [tenants.pv, tenants.root]) {
      await node.machine.exec(`dd if=${volume.targetPath()} of=/dev/null bs=4k count=1 iflag=direct status=none`, {
        timeoutMs: 300_000,
      });
      await volume.down(node);
    }
  });

  it('rules that somebody has removed or changed are there again after a start, and only then written', async () => {
    const { deployment } = suite;
    const { storage } = deployment.lab;
    const files = ['12', '57'].map((number) => `/etc/udev/rules.d/${number}-lvm-iscsi-csi-cinder-volumes.rules`);
    const state = async () => (await storage.exec(`cksum ${files.join(' ')}; stat -c %i ${files.join(' ')}`)).stdout;
    const before = await state();
    await deployment.controller.stop();
    await deployment.controller.start();
    expect(await state(), 'not written').to.equal(before);
    await deployment.controller.stop();
    await storage.exec(`rm ${files[0]}; echo '# by hand' >> ${files[1]}`);
    await deployment.controller.start();
    expect(
      (await storage.exec(`cat ${files.join(' ')} | grep -c by.hand; cmp ${files.join(' ')} && echo equal`)).stdout,
    ).to.equal('0\nequal');
  });
});
