/** Our transcription of the CSI specification against the official file, fetched as the Go module that it is published in. */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { parseProto } from '../../../src/csi/proto.ts';
import { describeProto, differences } from './describe-proto.ts';

const MODULE = 'github.com/container-storage-interface/spec@v1.12.0';
const OURS = readFileSync(new URL('../../../proto/csi.proto', import.meta.url), 'utf8');

async function officialText(): Promise<string> {
  const result = await execa('go', ['mod', 'download', '-json', MODULE], {
    cwd: tmpdir(),
    env: { GOFLAGS: '-mod=mod' },
    reject: false,
    timeout: 100_000,
  });
  if (result.exitCode !== 0) {
    throw new Error(
      `the official csi.proto could not be fetched: "go mod download ${MODULE}" failed.\n` +
        `It needs Go (apt-get install golang-go, or https://go.dev) and a Go module proxy on the first run; ` +
        `later runs use Go's module cache.\n${result.code ?? ''} ${result.stdout ?? ''} ${result.stderr ?? ''}`,
    );
  }
  const { Dir: folder } = JSON.parse(result.stdout) as { Dir: string };
  return readFileSync(join(folder, 'csi.proto'), 'utf8');
}

describe('proto/csi.proto', () => {
  let official: Map<string, string>;

  before(async function () {
    this.timeout(120_000);
    official = describeProto(parseProto(await officialText()));
  });

  it('is the official v1.12.0: messages, fields, enums, services, options', () => {
    expect(official.size).to.be.greaterThan(350);
    expect(differences(describeProto(parseProto(OURS)), official)).to.deep.equal([]);
  });

  const mutations: readonly (readonly [string, string, string, string])[] = [
    ['a field number', 'string starting_token = 2;', 'string starting_token = 9;', 'starting_token'],
    ['a field type', 'int32 max_entries = 1;', 'int64 max_entries = 1;', 'max_entries'],
    ['a label', 'repeated VolumeUsage usage = 1;', 'VolumeUsage usage = 1;', 'usage'],
    ['a map', 'map<string, string> publish_context = 1;', 'repeated string publish_context = 1;', 'publish_context'],
    ['a field name', 'bool node_expansion_required = 2;', 'bool expansion_required = 2;', 'expansion_required'],
    ['csi_secret', 'secrets = 5 [(csi_secret) = true]', 'secrets = 5', 'secrets'],
    ['alpha_field', '[(csi_secret) = true, (alpha_field) = true]', '[(csi_secret) = true]', 'secrets'],
    ['alpha_method', 'option (alpha_method) = true;', '', 'GetSnapshot'],
    ['alpha_message', 'option (alpha_message) = true;', '', 'ControllerGetVolumeRequest'],
    ['alpha_service', 'option (alpha_service) = true;', '', 'SnapshotMetadata'],
    ['alpha_enum_value', 'GET_VOLUME = 12 [(alpha_enum_value) = true]', 'GET_VOLUME = 12', 'GET_VOLUME'],
    ['an extension number', 'bool csi_secret = 1059;', 'bool csi_secret = 1058;', 'csi_secret'],
    ['an enum value', 'OFFLINE = 2;', 'OFFLINE = 3;', 'OFFLINE'],
    ['a missing enum value', 'OFFLINE = 2;', '', 'OFFLINE'],
    ['a stream', 'returns (stream GetMetadataDeltaResponse)', 'returns (GetMetadataDeltaResponse)', 'GetMetadataDelta'],
    ['a method', 'rpc Probe(ProbeRequest) returns (ProbeResponse) {}', '', 'Probe'],
    ['an output', 'returns (DeleteSnapshotResponse)', 'returns (DeleteVolumeResponse)', 'DeleteSnapshot'],
    ['a message', 'message NodeGetInfoRequest {}', 'message NodeGetInfoRequest {} message Surplus {}', 'Surplus'],
    ['a oneof', 'oneof access_type {', 'oneof access_kind {', 'block'],
  ];
  for (const [what, from, to, named] of mutations) {
    it(`the comparison notices ${what}`, () => {
      expect(OURS, 'the text to mutate').to.include(from);
      const found = differences(describeProto(parseProto(OURS.replace(from, to))), official);
      expect(found).to.not.be.empty;
      expect(found.join('\n')).to.include(named);
    });
  }
});
