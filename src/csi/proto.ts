/**
 * The wire's schema, loaded once: proto/csi.proto as protobufjs reflection (which keeps options such as `csi_secret`)
 * and as gRPC service definitions (proto-loader, which drops them).
 */
import { readFileSync } from 'node:fs';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import protobuf from 'protobufjs';

/** The text of proto/csi.proto, put in by the bundler; when run from source the file beside it is read. */
declare const EMBEDDED_CSI_PROTO: string | undefined;

/** Names as in the specification, so that wire types, logs and messages all say `volume_id`. */
const CONVERSION = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true } as const;

export const SERVICE_NAMES = ['Identity', 'Controller', 'GroupController', 'SnapshotMetadata', 'Node'] as const;
export type ServiceName = (typeof SERVICE_NAMES)[number];

function protoText(): string {
  if (typeof EMBEDDED_CSI_PROTO === 'string') return EMBEDDED_CSI_PROTO;
  return readFileSync(new URL('../../proto/csi.proto', import.meta.url), 'utf8');
}

/** Parses a proto file whose imports are all of google/protobuf/; throws with protobufjs's words when it can't. */
export function parseProto(text: string): protobuf.Root {
  const { root, imports = [] } = protobuf.parse(text, new protobuf.Root(), { keepCase: true });
  for (const name of imports) {
    const nested = protobuf.common.get(name)?.nested;
    if (nested === undefined) throw new Error(`proto import ${name} is not known`);
    root.addJSON(nested);
  }
  root.resolveAll();
  return root;
}

function load(): { root: protobuf.Root; definitions: ReturnType<typeof fromJSON> } {
  // Without the long package protobufjs decodes int64 as a double and rounds it before anybody could notice.
  if ((protobuf.util.Long as unknown) === null)
    throw new Error('protobufjs has no 64-bit integers: package "long" is missing');
  const root = parseProto(protoText());
  return { root, definitions: fromJSON(root.toJSON(), CONVERSION) };
}

const schema = load();

export const csiRoot: protobuf.Root = schema.root;

export function serviceDefinition(name: ServiceName): ServiceDefinition {
  const definition = schema.definitions[`csi.v1.${name}`];
  if (definition === undefined || 'format' in definition) throw new Error(`csi.v1.${name} is no service`);
  return definition as ServiceDefinition;
}

/** Message types of one method, for reflection. */
export function methodTypes(service: ServiceName, method: string): { request: protobuf.Type; response: protobuf.Type } {
  const reflected = csiRoot.lookupService(`csi.v1.${service}`).methods[method];
  const request = reflected?.resolvedRequestType;
  const response = reflected?.resolvedResponseType;
  if (request == null || response == null) throw new Error(`csi.v1.${service} has no method ${method}`);
  return { request, response };
}
