import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { DriverError } from '../../../src/errors.ts';
import type { LogicalVolume } from '../../../src/lvm/types.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { contentFor } from '../../../src/volumes/capabilities.ts';
import { ChapKeys, userCredentials } from '../../../src/volumes/chap.ts';
import type { Attachment } from '../../../src/volumes/model.ts';
import { isVolumeId, targetIqn, volumeIdForName } from '../../../src/volumes/names.ts';
import { formatNodeId, MAX_NODE_ID_BYTES, parseNodeId } from '../../../src/volumes/node-id.ts';
import { parseParameters } from '../../../src/volumes/parameters.ts';
import {
  decodePublishContext,
  encodePublishContext,
  type PublishContext,
} from '../../../src/volumes/publish-context.ts';
import { newSizeBytes } from '../../../src/volumes/sizes.ts';
import { attachmentTag, identityTags, MADE_TAG, readLv, WIPE_TAG } from '../../../src/volumes/tags.ts';
import { sampleLv } from '../lvm/sample-lv.ts';

const LV_TAG = /^[A-Za-z0-9_+.\-/=!:#&]+$/;
const ID = 'volume-01234567-89ab-5def-8123-456789abcdef';
const NASTY = [
  'x'.repeat(128),
  'größe/名前 💾',
  `quo"te's $(reboot) \`id\``,
  'new\nline\ttab',
  '&26 %2F @host ,~',
  '#a#b=c:d',
];

const lv = (tags: readonly string[], name = ID): LogicalVolume => sampleLv({ name, tags });

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof DriverError) return error.code;
    throw error;
  }
  return 'OK';
}

describe('names', () => {
  it('derives the same id from the same name, another from another name or cluster', () => {
    const id = volumeIdForName('c', 'pvc-1');
    expect(isVolumeId(id)).to.equal(true);
    expect(volumeIdForName('c', 'pvc-1')).to.equal(id);
    expect(volumeIdForName('c', 'pvc-2')).to.not.equal(id);
    expect(volumeIdForName('d', 'pvc-1')).to.not.equal(id);
    // Fixed for ever: a change here would lose every volume that exists.
    expect(volumeIdForName('default', 'pvc-1')).to.equal('volume-1d475fdb-7844-5ad3-bbcb-86bc07c9008d');
    expect(targetIqn('iqn.2010-10.org.openstack', id)).to.equal(`iqn.2010-10.org.openstack:${id}`);
  });

  it('takes only node ids of its own shape', () => {
    const identity = { nodeName: 'worker-1.example', initiatorIqn: 'iqn.1993-08.org.debian:01:abc' };
    expect(parseNodeId(formatNodeId(identity))).to.deep.equal(identity);
    for (const bad of [
      '',
      'node',
      'node/',
      '/iqn.1993-08.org.debian:01:abc',
      'no de/iqn.1993-08.org.debian:01:abc',
      'node/iqn.x',
      'n#de/iqn.1993-08.org.debian:01:abc',
      `${'n'.repeat(MAX_NODE_ID_BYTES)}/iqn.1993-08.org.debian:01:a`,
    ]) {
      expect(parseNodeId(bad), bad).to.equal(undefined);
    }
    expect(codeOf(() => formatNodeId({ ...identity, nodeName: 'n'.repeat(200) }))).to.equal('INVALID_ARGUMENT');
  });
});

describe('tags', () => {
  const attachment: Attachment = {
    nodeName: 'worker-1',
    nodeId: 'worker-1/iqn.1993-08.org.debian:01:abc',
    initiatorIqn: 'iqn.1993-08.org.debian:01:abc',
    nonce: 'ab'.repeat(16),
    access: 'mount',
    mode: 'SINGLE_NODE_WRITER',
    readonly: false,
    auth: { kind: 'derived', keyId: 'k1', mutual: true },
  };

  const AUTHENTICATIONS: readonly Attachment['auth'][] = [
    { kind: 'none' },
    { kind: 'user' },
    ...[true, false, undefined].map((mutual) => ({ kind: 'derived', keyId: 'k1', mutual }) as const),
  ];

  it('keeps node_id byte for byte and compares the initiator in lower case, as the target does', () => {
    const nodeId = 'worker-1/iqn.1993-08.org.Debian:01:ABC';
    const tags = identityTags({ clusterId: 'c', name: 'n', serial: 'cd'.repeat(16), content: { kind: 'raw' } });
    const tag = attachmentTag({ ...attachment, nodeId });
    const meaning = readLv(lv([...tags, tag]), 'c');
    if (meaning.kind !== 'volume') throw new Error(JSON.stringify(meaning));
    const [read] = meaning.volume.attachments;
    expect(read).to.include({ nodeId, initiatorIqn: 'iqn.1993-08.org.debian:01:abc' });
    expect(attachmentTag(read as Attachment)).to.equal(tag);
    expect(parseNodeId(nodeId)?.initiatorIqn).to.equal('iqn.1993-08.org.debian:01:abc');
  });

  it('reads attachments from before the mode was kept in the tag, and writes them back as they are', () => {
    const old = `lic:att=worker-1#iqn.1993-08.org.debian:01:abc#${'ab'.repeat(16)}#mount#snw#rw#key:k1`;
    const tags = identityTags({ clusterId: 'c', name: 'n', serial: 'cd'.repeat(16), content: { kind: 'raw' } });
    const meaning = readLv(lv([...tags, old]), 'c');
    if (meaning.kind !== 'volume') throw new Error(JSON.stringify(meaning));
    const [read] = meaning.volume.attachments;
    expect(read).to.deep.equal({ ...attachment, auth: { kind: 'derived', keyId: 'k1', mutual: undefined } });
    expect(attachmentTag(read as Attachment)).to.equal(old);
  });

  it('carries any name, content and attachment there and back, in characters that LVM allows', () => {
    for (const name of NASTY) {
      for (const auth of AUTHENTICATIONS) {
        const wanted = { ...attachment, auth };
        const tags = [
          ...identityTags({
            clusterId: name.slice(0, 64),
            name,
            serial: 'cd'.repeat(16),
            content: { kind: 'filesystem', fsType: 'xfs' },
          }),
          attachmentTag(wanted),
          MADE_TAG,
        ];
        for (const tag of tags) expect(tag).to.match(LV_TAG).and.have.length.at.most(1024);
        const meaning = readLv(lv(tags), name.slice(0, 64));
        if (meaning.kind !== 'volume') throw new Error(JSON.stringify(meaning));
        expect(meaning.volume.name).to.equal(name);
        expect(meaning.volume.attachments).to.deep.equal([wanted]);
        expect(meaning.made).to.equal(true);
      }
    }
  });

  it('shows an expansion that is not finished only as far as it is blank', () => {
    const tags = [
      ...identityTags({ clusterId: 'c', name: 'n', serial: 'cd'.repeat(16), content: { kind: 'raw' } }),
      MADE_TAG,
    ];
    const read = (...more: string[]) => readLv(lv([...tags, ...more]), 'c');
    for (const [growing, sizeBytes] of [
      [[], 4096],
      [['1024'], 1024],
      [['2048', '1024'], 1024],
      [['8192'], 4096],
    ] as const) {
      const meaning = read(...growing.map((bytes) => `lic:growing=${bytes}`));
      if (meaning.kind !== 'volume') throw new Error(JSON.stringify(meaning));
      expect(meaning.volume.sizeBytes).to.equal(sizeBytes);
    }
    // From there on all would be zeroed.
    for (const bytes of ['', '0', '-1', '1e3', 'x', '9'.repeat(20)])
      expect(read(`lic:growing=${bytes}`).kind, bytes).to.equal('refused');
  });

  it('refuses with words what is not its own: no tags, newer format, other cluster, broken tags', () => {
    const tags = identityTags({ clusterId: 'c', name: 'n', serial: 'cd'.repeat(16), content: { kind: 'raw' } });
    const cases: [readonly string[], string, RegExp][] = [
      [[], 'c', /no tag of this driver/],
      [tags.map((tag) => tag.replace('lic:v=1', 'lic:v=2')), 'c', /format 2.*upgrade/],
      [tags, 'other', /belongs to cluster "c"/],
      [tags.filter((tag) => !tag.startsWith('lic:serial')), 'c', /missing or malformed/],
      [[...tags, 'lic:att=broken'], 'c', /malformed attachment/],
    ];
    for (const [given, cluster, words] of cases) {
      const meaning = readLv(lv(given), cluster);
      expect(meaning.kind).to.equal('refused');
      expect(meaning.kind === 'refused' ? meaning.reason : '').to.match(words);
    }
    expect(readLv(lv([...tags, WIPE_TAG]), 'c').kind).to.equal('wipe');
    expect(readLv(lv([], 'root'), 'c').kind).to.equal('other');
  });
});

describe('publish_context', () => {
  const context: PublishContext = {
    targetIqn: `iqn.2010-10.org.openstack:${ID}`,
    witnessIqn: undefined,
    portals: ['192.0.2.1:3260', '[2001:db8::1]:3260'],
    lun: 0,
    serial: 'ab'.repeat(16),
    nonce: 'cd'.repeat(16),
    content: { kind: 'filesystem', fsType: 'ext4' },
    sizeBytes: 4096,
    authentication: 'derived',
    chap: { user: 'u', password: 'p' },
    mutualChap: { user: 'm', password: 'q' },
  };

  it('goes there and back', () => {
    expect(decodePublishContext(encodePublishContext(context))).to.deep.equal(context);
    const bare: PublishContext = {
      ...context,
      authentication: 'none',
      chap: undefined,
      mutualChap: undefined,
      content: { kind: 'raw' },
    };
    expect(decodePublishContext(encodePublishContext(bare))).to.deep.equal(bare);
    const witnessed = { ...context, witnessIqn: 'iqn.2010-10.org.openstack:portal-cinder-volumes' };
    expect(decodePublishContext(encodePublishContext(witnessed))).to.deep.equal(witnessed);
    const malformed = { ...encodePublishContext(context), witnessIqn: 'a b' };
    expect(codeOf(() => decodePublishContext(malformed))).to.equal('INVALID_ARGUMENT');
  });

  it('names the key that is missing or malformed, and never shows a value', () => {
    const map = encodePublishContext(context);
    for (const key of Object.keys(map)) {
      const { [key]: _removed, ...rest } = map;
      for (const given of [rest, { ...rest, [key]: ' bad secret-value ' }]) {
        try {
          decodePublishContext(given);
          expect.fail(`${key} is required`);
        } catch (error) {
          expect(error).to.be.instanceOf(DriverError).with.property('code', 'INVALID_ARGUMENT');
          expect((error as Error).message)
            .to.contain(`"${key}"`)
            .and.not.contain('secret-value');
        }
      }
    }
  });
});

describe('sizes, parameters, capabilities', () => {
  const extent = 4 * 1024 ** 2;

  it('gives whole extents between required and limit', () => {
    const raw = { kind: 'raw' } as const;
    const xfs = { kind: 'filesystem', fsType: 'xfs' } as const;
    expect(newSizeBytes({ requiredBytes: extent, limitBytes: 0 }, extent, 1, raw)).to.equal(extent);
    expect(newSizeBytes({ requiredBytes: extent + 1, limitBytes: 0 }, extent, 1, raw)).to.equal(2 * extent);
    expect(newSizeBytes({ requiredBytes: 0, limitBytes: 0 }, extent, 10 * extent, raw)).to.equal(10 * extent);
    expect(newSizeBytes({ requiredBytes: 0, limitBytes: 3 * extent - 1 }, extent, 10 * extent, raw)).to.equal(
      2 * extent,
    );
    expect(newSizeBytes({ requiredBytes: 1, limitBytes: 0 }, extent, 1, xfs)).to.equal(300 * 1024 ** 2);
    expect(codeOf(() => newSizeBytes({ requiredBytes: 1, limitBytes: extent - 1 }, extent, 1, raw))).to.equal(
      'OUT_OF_RANGE',
    );
    expect(codeOf(() => newSizeBytes({ requiredBytes: 1, limitBytes: extent }, extent, 1, xfs))).to.equal(
      'OUT_OF_RANGE',
    );
    expect(codeOf(() => newSizeBytes({ requiredBytes: 5, limitBytes: 4 }, extent, 1, raw))).to.equal('OUT_OF_RANGE');
  });

  it('refuses unknown parameters by name, and values by what is allowed', () => {
    expect(parseParameters({ provisioning: 'thick', 'csi.storage.k8s.io/pvc/name': 'x' }, 'vg')).to.deep.equal({
      provisioning: 'thick',
    });
    expect(() => parseParameters({ provisionning: 'thick' }, 'vg')).to.throw(DriverError, /"provisionning"/);
    expect(() => parseParameters({ volumeGroup: 'other' }, 'vg')).to.throw(DriverError, /"other".*"vg"/);
  });

  it('refuses file systems shared for writing, unknown ones, and mixtures', () => {
    const mount = (fsType: string, mode: 'SINGLE_NODE_WRITER' | 'MULTI_NODE_MULTI_WRITER' = 'SINGLE_NODE_WRITER') =>
      ({ access: { kind: 'mount', fsType, mountFlags: [] }, mode }) as const;
    expect(contentFor([mount('')], 'xfs')).to.deep.equal({ kind: 'filesystem', fsType: 'xfs' });
    expect(() => contentFor([mount('ext4', 'MULTI_NODE_MULTI_WRITER')], 'ext4')).to.throw(
      DriverError,
      /volumeMode Block/,
    );
    expect(() => contentFor([mount('btrfs')], 'ext4')).to.throw(DriverError, /btrfs/);
    expect(() => contentFor([mount('ext4'), mount('xfs')], 'ext4')).to.throw(DriverError, /different contents/);
  });
});

describe('CHAP', () => {
  const files = new BlockingFiles();
  const folder = mkdtempSync(path.join(tmpdir(), 'chap-'));
  after(async () => {
    await files.close();
    rmSync(folder, { recursive: true });
  });

  it('makes a key once, 0600, and derives the same secrets from it in every life', async () => {
    const file = path.join(folder, 'sub/chap.key');
    const first = await ChapKeys.load(files, file, true);
    const second = await ChapKeys.load(files, file, true);
    expect((await files.stat(file))?.mode).to.satisfy((mode: number) => (mode & 0o777) === 0o600);
    const pair = first.derive(first.currentKeyId, ID, 'n', 'ab');
    expect(second.derive(first.currentKeyId, ID, 'n', 'ab')).to.deep.equal(pair);
    expect(pair?.chap.password)
      .to.match(/^[0-9a-f]{32}$/)
      .and.not.equal(pair?.mutual?.password);
    // Length-delimited: fields can't run into each other.
    expect(first.derive(first.currentKeyId, ID, 'na', 'b')).to.not.deep.equal(pair);
    expect(first.derive('unknown', ID, 'n', 'ab')).to.equal(undefined);
    expect(first.derive(first.currentKeyId, ID, 'n', 'ab', false)).to.deep.equal({ ...pair, mutual: undefined });
    // CHAP off: the keys that are there, and never new ones.
    const off = await ChapKeys.loadIfPresent(files, file);
    expect(off?.derive(first.currentKeyId, ID, 'n', 'ab', true)).to.deep.equal(pair);
    expect(await ChapKeys.loadIfPresent(files, path.join(folder, 'none.key'))).to.equal(undefined);
    expect(await files.stat(path.join(folder, 'none.key'))).to.equal(undefined);
  });

  it('never replaces a key file that it cannot use, and does not quote it', async () => {
    const file = path.join(folder, 'bad.key');
    await files.writeDurably(file, '{"secret": "hush"', { mode: 0o600 });
    const refusal = await ChapKeys.load(files, file, false).catch((error: unknown) => error);
    expect(refusal).to.be.instanceOf(DriverError).with.property('code', 'FAILED_PRECONDITION');
    expect((refusal as Error).message).to.not.contain('hush');
    expect(await files.readText(file)).to.equal('{"secret": "hush"');
    const open = path.join(folder, 'open.key');
    await files.writeDurably(open, '{}', { mode: 0o644 });
    expect(await ChapKeys.load(files, open, false).catch((error: Error) => error.message)).to.match(/mode 0644/);
  });

  it("takes a user's own credentials, and says what is wrong with them without showing them", () => {
    expect(userCredentials({ other: 'x' })).to.equal(undefined);
    const good = { 'node.session.auth.username': 'u', 'node.session.auth.password': 'p'.repeat(12) };
    expect(userCredentials(good)).to.deep.equal({ chap: { user: 'u', password: 'p'.repeat(12) }, mutual: undefined });
    for (const [bad, words] of [
      [{ 'node.session.auth.username': 'u' }, /password" is missing/],
      [{ ...good, 'node.session.auth.password': 'hush hush hush' }, /not usable/],
      [{ ...good, 'node.session.auth.password': 'hush' }, /too short/],
      [{ ...good, 'node.session.auth.username_in': 'v', 'node.session.auth.password_in': 'p'.repeat(12) }, /equal/],
    ] as const) {
      expect(() => userCredentials(bad)).to.throw(DriverError, words);
      expect(() => userCredentials(bad)).to.not.throw(/hush|pppp/);
    }
  });
});
