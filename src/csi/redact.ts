/**
 * A message as it may be logged. Walks the type by reflection and never copies what it does not know:
 * - fields with the option `csi_secret` (1059) are replaced whole;
 * - publish_context keeps its keys: its values include our CHAP secrets, although no option says so;
 * - mount_flags keep what stands before "=": the specification says that they may be sensitive;
 * - long texts and long lists are cut, so that a hostile request cannot flood the log.
 */
import protobuf from 'protobufjs';

export type WireObject = Readonly<Record<string, unknown>>;

export const STRIPPED = '***stripped***';
const MAX_TEXT_CHARACTERS = 512;
const MAX_ENTRIES = 64;

export function isSecretField(field: protobuf.Field): boolean {
  return field.options?.['(csi_secret)'] === true || field.options?.['(csi.v1.csi_secret)'] === true;
}

/** Fields that are absent or empty are left out. */
export function redact(type: protobuf.Type, message: WireObject): WireObject {
  const result: Record<string, unknown> = {};
  for (const field of type.fieldsArray) {
    field.resolve();
    const value = message[field.name];
    if (!isEmpty(field, value)) result[field.name] = redactField(field, value);
  }
  return result;
}

function redactField(field: protobuf.Field, value: unknown): unknown {
  if (isSecretField(field)) return STRIPPED;
  if (field.name === 'publish_context') return `${STRIPPED}, keys: ${cut(Object.keys(value as object).join(', '))}`;
  if (field.map) return redactMap(value as WireObject);
  if (!field.repeated) return redactValue(field, value);
  const items = value as readonly unknown[];
  const shown = items.slice(0, MAX_ENTRIES).map((item) => redactValue(field, item));
  return items.length > MAX_ENTRIES ? [...shown, `… ${items.length - MAX_ENTRIES} more`] : shown;
}

function redactMap(map: WireObject): WireObject {
  const entries = Object.entries(map);
  const shown = entries.slice(0, MAX_ENTRIES).map(([key, value]) => [cut(key), cut(String(value))]);
  if (entries.length > MAX_ENTRIES) shown.push(['…', `${entries.length - MAX_ENTRIES} more`]);
  return Object.fromEntries(shown);
}

function redactValue(field: protobuf.Field, value: unknown): unknown {
  if (field.resolvedType instanceof protobuf.Type) return redact(field.resolvedType, value as WireObject);
  if (field.name === 'mount_flags') return cut(String(value).replace(/=.*$/s, `=${STRIPPED}`));
  return typeof value === 'string' ? cut(value) : value;
}

function cut(text: string): string {
  return text.length > MAX_TEXT_CHARACTERS
    ? `${text.slice(0, MAX_TEXT_CHARACTERS)}… (${text.length} characters)`
    : text;
}

function isEmpty(field: protobuf.Field, value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === false) return true;
  if (field.map) return Object.keys(value).length === 0;
  // An empty message stays: `block: {}` says something.
  return Array.isArray(value) && value.length === 0;
}
