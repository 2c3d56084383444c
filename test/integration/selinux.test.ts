/**
 * What kubelet does to a volume whose CSIDriver has seLinuxMount: it mounts with a pod's label, and never walks through
 * the files to relabel them. The machine has a policy loaded and is permissive: labels of mounts are the same when it is
 * enforcing, and who may open what is the kernel's affair.
 */
import { expect } from 'chai';
import { nodeOf, useDeployment } from './support/suite.ts';
import { TestVolume } from './support/volume-life.ts';

/** Debian's policy has no type for the files of containers (container_file_t); the categories are what tells pods apart. */
const TYPE = 'tmp_t';
const labelOf = (categories: string): string => `system_u:object_r:${TYPE}:s0:${categories}`;
/** As kubelet writes it (pkg/volume/util/selinux.go): quoted, for the comma of its categories. */
const flagOf = (label: string): string => `context="${label}"`;

describe('a node with SELinux', () => {
  const suite = useDeployment({
    nodes: 1,
    image: {
      extraPackages: ['selinux-policy-default'],
      extraFiles: { '/etc/selinux/config': { content: 'SELINUX=permissive\nSELINUXTYPE=default\n' } },
    },
    node: { kernelArguments: ['security=selinux', 'selinux=1'] },
  });

  for (const kind of ['ext4', 'xfs'] as const) {
    it(`${kind}: every file has the label of the mount, another with another pod's, its own without`, async function () {
      this.timeout(300_000);
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const { machine } = node;
      expect((await machine.exec('cat /sys/fs/selinux/enforce')).stdout, 'permissive').to.equal('0');
      expect((await machine.exec('cat /proc/self/attr/current')).stdout, 'a policy is loaded').to.match(
        /^\w+:\w+:\w+:s0/,
      );
      const sizeBytes = (kind === 'xfs' ? 320 : 64) * 2 ** 20;
      const plain = await new TestVolume(deployment, { name: `selinux-${kind}`, kind, sizeBytes }).create();
      /** The same volume for a pod with that label, in the flags of stage and publish, as kubelet gives them. */
      const labelled = (label: string): TestVolume => {
        const flags = { ...plain.spec, mountFlags: [flagOf(label)] };
        const volume = new TestVolume(deployment, flags);
        volume.id = plain.id;
        volume.sizeBytes = plain.sizeBytes;
        return volume;
      };
      const labels = async (volume: TestVolume): Promise<string[]> => {
        const path = volume.targetPath();
        return (await machine.exec(`stat -c %C '${path}' '${path}/file' '${volume.stagingPath}'`)).stdout.split('\n');
      };
      const up = async (volume: TestVolume): Promise<void> => {
        await volume.attach(node);
        await volume.stage(node);
        await volume.stage(node);
        await volume.publish(node);
        await volume.publish(node);
      };
      const down = async (volume: TestVolume): Promise<void> => {
        await volume.unpublish(node);
        await volume.unstage(node);
        await volume.detach(node);
      };

      const [first, second] = [labelOf('c1,c2'), labelOf('c3,c4')];
      const one = labelled(first);
      await up(one);
      await machine.exec(`echo kept > '${one.targetPath()}/file'`);
      expect(await labels(one)).to.deep.equal([first, first, first]);
      await down(one);

      const other = labelled(second);
      await up(other);
      expect(await labels(other)).to.deep.equal([second, second, second]);
      expect(await machine.readFile(`${other.targetPath()}/file`)).to.equal('kept\n');
      await down(other);

      // Nothing of it is on the disk.
      await up(plain);
      for (const label of await labels(plain)) expect(label).not.to.contain(TYPE);
      await down(plain);
      await plain.delete();
    });
  }
});
