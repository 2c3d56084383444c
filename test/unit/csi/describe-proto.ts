/** A proto file as a flat list of facts, so that two can be compared and a difference can be read. */
import protobuf from 'protobufjs';

/** Key: kind and full name. Value: everything that matters on the wire or to a tool that reads options. */
export function describeProto(root: protobuf.Root): Map<string, string> {
  const facts = new Map<string, string>();
  const csi = root.lookup('csi.v1');
  if (!(csi instanceof protobuf.Namespace)) throw new Error('package csi.v1 not found');
  facts.set('file', text({ options: root.options ?? {}, package: csi.fullName }));
  describeNamespace(csi, facts);
  return facts;
}

function describeNamespace(namespace: protobuf.NamespaceBase, facts: Map<string, string>): void {
  for (const item of namespace.nestedArray) {
    if (item instanceof protobuf.Type) describeMessage(item, facts);
    else if (item instanceof protobuf.Enum) describeEnum(item, facts);
    else if (item instanceof protobuf.Service) describeService(item, facts);
    else if (item instanceof protobuf.Field) facts.set(`extension ${item.fullName}`, describeField(item));
    else throw new Error(`${item.fullName} is of an unknown kind`);
  }
}

function describeMessage(type: protobuf.Type, facts: Map<string, string>): void {
  facts.set(`message ${type.fullName}`, text({ options: type.options ?? {}, reserved: type.reserved ?? [] }));
  for (const field of type.fieldsArray) facts.set(`field ${field.fullName}`, describeField(field));
  describeNamespace(type, facts);
}

function describeField(field: protobuf.Field): string {
  field.resolve();
  return text({
    number: field.id,
    type: field.resolvedType?.fullName ?? field.type,
    map: field instanceof protobuf.MapField ? field.keyType : false,
    repeated: field.repeated,
    required: field.required,
    optional: field.options?.['proto3_optional'] === true,
    oneof: field.partOf?.name ?? false,
    extends: field.extend ?? false,
    options: field.options ?? {},
  });
}

function describeEnum(type: protobuf.Enum, facts: Map<string, string>): void {
  facts.set(`enum ${type.fullName}`, text({ options: type.options ?? {} }));
  for (const [name, number] of Object.entries(type.values)) {
    facts.set(`value ${type.fullName}.${name}`, text({ number, options: type.valuesOptions?.[name] ?? {} }));
  }
}

function describeService(service: protobuf.Service, facts: Map<string, string>): void {
  facts.set(`service ${service.fullName}`, text({ options: service.options ?? {} }));
  for (const method of service.methodsArray) {
    method.resolve();
    facts.set(
      `method ${method.fullName}`,
      text({
        request: method.resolvedRequestType?.fullName,
        requestStream: method.requestStream === true,
        response: method.resolvedResponseType?.fullName,
        responseStream: method.responseStream === true,
        options: method.options ?? {},
      }),
    );
  }
}

function text(value: object): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    item !== null && typeof item === 'object' && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}

/** One line for each fact that is missing, surplus or different. */
export function differences(ours: ReadonlyMap<string, string>, official: ReadonlyMap<string, string>): string[] {
  const keys = [...new Set([...ours.keys(), ...official.keys()])].sort();
  return keys
    .filter((key) => ours.get(key) !== official.get(key))
    .map((key) => `${key}: ours ${ours.get(key) ?? '(absent)'}, official ${official.get(key) ?? '(absent)'}`);
}
