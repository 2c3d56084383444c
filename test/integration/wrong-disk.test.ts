import { expect } from 'chai';
import { failureOf } from './support/csi-client.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

/** What somebody put on the LV instead of the driver's file system, and the word that the refusal must say. */
const FOREIGN: { name: string; fill: (lv: string) => string; words: RegExp }[] = [
  { name: 'another file system', fill: (lv) => `mkfs.xfs -q -f ${lv}`, words: /xfs/ },
  {
    name: 'a LUKS header',
    fill: (lv) => `wipefs -qa ${lv}; echo secret | cryptsetup luksFormat -q --type luks1 --iter-time 100 ${lv} -`,
    words: /luks/i,
  },
  {
    name: 'raw data',
    fill: (lv) => `blkdiscard -z ${lv}; dd if=/dev/urandom of=${lv} bs=1M count=4 oflag=direct status=none`,
    words: /data|unknown/i,
  },
  { name: 'nothing at all', fill: (lv) => `blkdiscard -z ${lv}`, words: /blank|nothing|no file system|zero/i },
  {
    name: 'an LVM physical volume',
    fill: (lv) => `wipefs -qa ${lv}; pvcreate -qq -ff -y --config 'devices{scan_lvs=1}' ${lv}`,
    words: /LVM2_member|lvm/i,
  },
];

describe('never reformat, never the wrong disk', () => {
  const suite = useDeployment({ nodes: 2 });

  for (const { name, fill, words } of FOREIGN) {
    it(`${name} on the volume: refused at stage, with what was found, bytes unchanged`, async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const { storage } = deployment.lab;
      const volume = await new TestVolume(deployment, { name: `foreign ${name}`, sizeBytes: 320 * MIB }).create();
      await storage.exec(fill(volume.lvPath));
      const before = (await storage.exec(`cksum < ${volume.lvPath}`)).stdout;
      await volume.attach(node);
      const failure = await failureOf(volume.stage(node));
      expect(failure.code).to.equal('FAILED_PRECONDITION');
      expect(failure.message).to.match(words);
      expect((await storage.exec(`echo 1 > /proc/sys/vm/drop_caches; cksum < ${volume.lvPath}`)).stdout).to.equal(
        before,
      );
      await volume.unstage(node);
      await volume.detach(node);
      await volume.delete();
    });
  }

  for (const { how, serialOf } of [
    { how: 'by one with its own serial', serialOf: (_: string, other: string) => other },
    // NAA and the like hold the first 25 digits only: whoever compares those sees no difference.
    { how: 'by one whose serial differs in the last digits', serialOf: (own: string) => `${own.slice(0, 25)}fffffff` },
  ])
    it(`the LV behind an IQN is swapped ${how} while the session is down: refused, nothing mounted, nothing written`, async () => {
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const { storage } = deployment.lab;
      const [a, b] = [new TestVolume(deployment, { name: 'swap-a' }), new TestVolume(deployment, { name: 'swap-b' })];
      for (const volume of [a, b]) await volume.create();
      await a.attach(node);
      await a.stage(node);
      await a.unstage(node);
      // Session down. An administrator swaps what is behind the IQN: B's LV under A's target.
      const serial = async ({ lvPath }: TestVolume): Promise<string> =>
        (await storage.exec(`lvs --noheadings -o lv_tags ${lvPath} | tr ',' '\\n' | sed -n 's/.*lic:serial=//p'`))
          .stdout;
      const [own, other] = [await serial(a), await serial(b)];
      expect(own).to.match(/^[0-9a-f]{32}$/);
      const before = (await storage.exec(`cksum < ${b.lvPath}`)).stdout;
      await storage.exec(`
set -e
cd /sys/kernel/config/target
t=iscsi/${a.targetIqn}/tpgt_1
bs=$(readlink -f $t/lun/lun_0/* | grep core/iblock | head -1); [ -n "$bs" ] || bs=$(echo /sys/kernel/config/target/core/iblock_*/${a.id})
echo 0 > $t/enable
for m in $t/acls/*/lun_*/*; do [ -L $m ] && rm $m; done
for l in $t/lun/lun_0/*; do [ -L $l ] && rm $l && n=$(basename $l); done
rmdir $bs; mkdir -p $bs
echo udev_path=${b.lvPath} > $bs/control; echo ${serialOf(own, other)} > $bs/wwn/vpd_unit_serial; echo 1 > $bs/enable
ln -s $bs $t/lun/lun_0/$n
for l in $t/acls/*/lun_0; do ln -s /sys/kernel/config/target/$t/lun/lun_0 $l/x; done
echo 1 > $t/enable`);
      const failure = await failureOf(a.stage(node));
      expect(failure.code).to.equal('FAILED_PRECONDITION');
      expect(failure.message).to.match(/serial/);
      await node.machine.exec(`! findmnt '${a.stagingPath}'`);
      expect((await storage.exec(`echo 1 > /proc/sys/vm/drop_caches; cksum < ${b.lvPath}`)).stdout).to.equal(before);
      await a.unstage(node);
      await a.detach(node);
      for (const volume of [a, b]) await volume.delete();
    });

  it('raw block: detached without an unstage, written elsewhere, back: neither session nor cache of the first life is used', async () => {
    const { deployment } = suite;
    const [node1, node2] = [nodeOf(deployment, 0), nodeOf(deployment, 1)];
    const volume = await new TestVolume(deployment, { name: 'come-back', kind: 'block', sizeBytes: 16 * MIB }).up(
      node1,
    );
    const at = volume.targetPath();
    const session = async (): Promise<string> =>
      (await node1.machine.exec(`grep -l -x -F '${volume.targetIqn}' /sys/class/iscsi_session/*/targetname`)).stdout;
    await node1.machine.exec(`head -c 16M /dev/zero | tr '\\0' A > ${at}; sync; cat ${at} > /dev/null`);
    const first = await session();
    // Node 1 never hears of it: its session and its cache stay.
    await volume.detach(node1);
    await volume.bringTo(node2);
    await node2.machine.exec(
      `head -c 16M /dev/zero | tr '\\0' B | dd of=${at} bs=1M oflag=direct iflag=fullblock conv=fsync status=none`,
    );
    await volume.takeFrom(node2);
    await volume.attach(node1);
    await volume.unpublish(node1);
    await volume.stage(node1);
    await volume.publish(node1);
    expect(await session()).to.not.equal(first);
    const { stdout } = await node1.machine.exec(`set -o pipefail; tr -cd B < ${at} | wc -c`);
    expect(Number(stdout)).to.equal(16 * MIB);
    await volume.down(node1);
  });
});
