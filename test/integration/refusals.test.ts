import { expect } from 'chai';
import { blockCapability, codeOf, failureOf, mountCapability } from './support/csi-client.ts';
import { nodeOf, useDeployment } from './support/suite.ts';
import { MIB, TestVolume } from './support/volume-life.ts';

const NAMES = [
  'n'.repeat(128),
  'größe-名前-💾',
  `it's "quoted" \`id\``,
  '$(touch /tmp/pwned); reboot',
  'two\nlines\tand tab',
  '-rf --force',
  '../../etc/passwd',
  '%s%n @ ~',
];

describe('what is refused, and what must work', () => {
  const suite = useDeployment({ nodes: 1 });

  it('names of 128 characters, Unicode, quotes, $(…) and newlines: a volume each; nothing is run', async () => {
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    for (const name of NAMES) {
      const volume = new TestVolume(deployment, { name, kind: 'block', sizeBytes: 4 * MIB });
      await volume.up(node);
      expect((await new TestVolume(deployment, volume.spec).create()).id, 'the same name is the same volume').to.equal(
        volume.id,
      );
      await volume.down(node);
    }
    for (const machine of deployment.lab.machines) await machine.exec('! test -e /tmp/pwned');
  });

  it('a node that is not known: NOT_FOUND at publish, OK at unpublish', async () => {
    const { deployment } = suite;
    const controller = await deployment.controller.client();
    const volume = await new TestVolume(deployment, { name: 'unknown-node' }).create();
    const failure = await failureOf(
      controller.call('Controller', 'ControllerPublishVolume', {
        volume_id: volume.id,
        node_id: 'no-such-node',
        volume_capability: volume.capability,
      }),
    );
    expect(failure.code).to.equal('NOT_FOUND');
    expect(failure.message).to.contain('no-such-node');
    await controller.call('Controller', 'ControllerUnpublishVolume', { volume_id: volume.id, node_id: 'no-such-node' });
    await volume.delete();
  });

  it('a full volume group: RESOURCE_EXHAUSTED that says what is free; GetCapacity agrees; what fits still works', async () => {
    const { deployment } = suite;
    const controller = await deployment.controller.client();
    const capacity = await controller.call<{ available_capacity: string; maximum_volume_size: { value: string } }>(
      'Controller',
      'GetCapacity',
      { volume_capabilities: [blockCapability()] },
    );
    const available = Number(capacity.available_capacity);
    expect(Number(capacity.maximum_volume_size.value)).to.equal(available);
    const tooLarge = new TestVolume(deployment, { name: 'too-large', kind: 'block', sizeBytes: available + 4 * MIB });
    const failure = await failureOf(tooLarge.create());
    expect(failure.code).to.equal('RESOURCE_EXHAUSTED');
    expect(failure.message).to.match(/free/).and.to.contain('vgextend');
    const all = await new TestVolume(deployment, { name: 'all-of-it', kind: 'block', sizeBytes: available }).create();
    const one = new TestVolume(deployment, { name: 'one-more', kind: 'block', sizeBytes: 4 * MIB });
    expect(await codeOf(one.create())).to.equal('RESOURCE_EXHAUSTED');
    await all.delete();
  });

  it('file systems and modes that cannot be: each with its reason', async () => {
    const { deployment } = suite;
    const controller = await deployment.controller.client();
    const create = (capability: object, extra: object = {}) =>
      controller.call('Controller', 'CreateVolume', { name: 'refused', volume_capabilities: [capability], ...extra });
    for (const [call, code, words] of [
      [create(mountCapability('ext4', 'MULTI_NODE_MULTI_WRITER')), 'INVALID_ARGUMENT', /volumeMode Block/],
      [create(mountCapability('btrfs')), 'INVALID_ARGUMENT', /btrfs.*ext4/],
      [
        create(mountCapability('ext4'), { parameters: { provisionning: 'thick' } }),
        'INVALID_ARGUMENT',
        /"provisionning"/,
      ],
      [
        create(mountCapability('ext4'), { parameters: { volumeGroup: 'other' } }),
        'INVALID_ARGUMENT',
        /"other".*cinder-volumes/,
      ],
      [
        create(mountCapability('xfs'), { capacity_range: { required_bytes: '1', limit_bytes: String(8 * MIB) } }),
        'OUT_OF_RANGE',
        /300 MiB/,
      ],
    ] as const) {
      const failure = await failureOf(call);
      expect(failure.code).to.equal(code);
      expect(failure.message).to.match(words);
      expect(Buffer.byteLength(failure.message)).to.be.at.most(1000);
    }
  });
});

describe('a volume group whose metadata area is nearly full', () => {
  const suite = useDeployment({ nodes: 1, vgcreate: '--metadatasize 64k' });

  it('takes no new volume, with the remedy; those that are there are attached and deleted; room made is used again', async function () {
    this.timeout(1_200_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const before = await new TestVolume(deployment, { name: 'before', kind: 'block', sizeBytes: 4 * MIB }).create();
    // An LV of others, whose tags fill the area, as a thousand volumes would.
    const { stdout } = await deployment.lab.storage.exec(
      `lvcreate -qq -y -an -Wn -Zn -n filler -L 4M cinder-volumes
       n=0; free() { vgs --noheadings --units b --nosuffix -o vg_mda_free cinder-volumes; }
       tag=$(head -c 1000 /dev/zero | tr '\\0' t)
       while [ $(free) -gt 8000 ]; do n=$((n + 1)); lvchange -qq --addtag a$n.$tag --addtag b$n.$tag cinder-volumes/filler; done
       while [ $(free) -gt 4000 ]; do n=$((n + 1)); lvchange -qq --addtag c$n.$tag cinder-volumes/filler; done
       free`,
      { timeoutMs: 600_000 },
    );
    expect(Number(stdout)).to.be.within(2000, 4000);
    const volume = new TestVolume(deployment, { name: `full-${'x'.repeat(110)}`, kind: 'block', sizeBytes: 4 * MIB });
    const failure = await failureOf(volume.create());
    expect(failure.code).to.equal('RESOURCE_EXHAUSTED');
    expect(failure.message).to.contain('metadata').and.to.contain('--metadatasize');
    await before.bringTo(node);
    await before.down(node);
    await deployment.lab.storage.exec('lvremove -qq -y cinder-volumes/filler');
    await volume.create();
    await volume.delete();
  });
});
