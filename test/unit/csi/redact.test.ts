/** No secret reaches the log: for every message of the schema that has a field with the option csi_secret. */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import protobuf from 'protobufjs';
import { csiRoot } from '../../../src/csi/proto.ts';
import { isSecretField, redact, STRIPPED } from '../../../src/csi/redact.ts';

const CANARY = 'canary-7f3a';

function messages(namespace: protobuf.NamespaceBase): protobuf.Type[] {
  return namespace.nestedArray.flatMap((item) =>
    item instanceof protobuf.Type
      ? [item, ...messages(item)]
      : item instanceof protobuf.Namespace
        ? messages(item)
        : [],
  );
}

const all = messages(csiRoot.lookup('csi.v1') as protobuf.Namespace);
const withSecrets = all.filter((type) => type.fieldsArray.some(isSecretField));

/** As many fields as the text of the schema marks: the reflection must not overlook one. */
function markedInText(): number {
  const text = readFileSync(new URL('../../../proto/csi.proto', import.meta.url), 'utf8');
  return text.match(/\(csi_secret\) = true/g)?.length ?? 0;
}

describe('redaction', () => {
  it('finds every field that the schema marks as a secret', () => {
    const found = withSecrets.flatMap((type) => type.fieldsArray.filter(isSecretField));
    expect(found).to.have.length(markedInText());
    expect(found.length).to.be.greaterThan(15);
  });

  for (const type of withSecrets) {
    it(`strips the secrets of ${type.name}`, () => {
      const secret = type.fieldsArray.filter(isSecretField);
      const message = Object.fromEntries(secret.map((field) => [field.name, { [`key-${CANARY}`]: `value-${CANARY}` }]));
      const shown = redact(type, message);
      expect(JSON.stringify(shown)).to.not.include(CANARY);
      for (const field of secret) expect(shown[field.name]).to.equal(STRIPPED);
    });
  }

  for (const type of all.filter((each) => each.fields['publish_context'] !== undefined)) {
    it(`shows only the keys of publish_context of ${type.name}`, () => {
      const shown = JSON.stringify(redact(type, { publish_context: { chapPassword: CANARY, targetIqn: CANARY } }));
      expect(shown).to.not.include(CANARY);
      expect(shown).to.include('chapPassword').and.to.include('targetIqn');
    });
  }

  it('reads the option itself and not the name of the field', () => {
    const { root } = protobuf.parse(
      'syntax = "proto3"; message M { string pin = 1 [(csi_secret) = true]; string secrets = 2; repeated N n = 3; } message N { string pin = 1 [(csi_secret) = true]; }',
    );
    root.resolveAll();
    const shown = redact(root.lookupType('M'), { pin: CANARY, secrets: 'shown', n: [{ pin: CANARY }] });
    expect(shown).to.deep.equal({ pin: STRIPPED, secrets: 'shown', n: [{ pin: STRIPPED }] });
  });

  it('never copies what the schema does not know', () => {
    const type = csiRoot.lookupType('csi.v1.DeleteVolumeRequest');
    expect(redact(type, { volume_id: 'v', surprise: CANARY })).to.deep.equal({ volume_id: 'v' });
  });

  it('keeps of mount flags what stands before "="', () => {
    const type = csiRoot.lookupType('csi.v1.VolumeCapability');
    const shown = redact(type, { mount: { mount_flags: ['noatime', `password=${CANARY}\nx=${CANARY}`] } });
    expect(shown).to.deep.equal({ mount: { mount_flags: ['noatime', `password=${STRIPPED}`] } });
  });

  it('bounds what a hostile request can write', () => {
    const type = csiRoot.lookupType('csi.v1.CreateVolumeRequest');
    const shown = redact(type, {
      name: 'n'.repeat(1_000_000),
      parameters: Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`k${index}`, 'v'.repeat(1000)])),
      volume_capabilities: Array.from({ length: 5000 }, () => ({ block: {} })),
    });
    expect(JSON.stringify(shown).length).to.be.lessThan(50_000);
  });
});
