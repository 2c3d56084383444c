/**
 * The last line of defence: whatever an adapter wrote into an error, the secrets of the call in progress are taken out
 * of it before it is logged or answered.
 */
import type protobuf from 'protobufjs';
import { isSecretField, STRIPPED, type WireObject } from './redact.ts';

/** Shorter ones would be found in ordinary words. */
const MIN_SECRET_CHARACTERS = 4;
const MAX_CAUSE_DEPTH = 5;

/** Values of the fields with the option `csi_secret`, and the passwords in publish_context. */
export function secretsOf(type: protobuf.Type, message: WireObject): string[] {
  const secrets: string[] = [];
  for (const field of type.fieldsArray) {
    const value = message[field.name];
    if (value === undefined || value === null) continue;
    if (isSecretField(field)) secrets.push(...texts(value));
    else if (field.name === 'publish_context') {
      for (const [key, item] of Object.entries(value)) if (/password|secret/i.test(key)) secrets.push(String(item));
    }
  }
  const usable = secrets
    .filter((secret) => secret.length >= MIN_SECRET_CHARACTERS)
    // As it looks inside JSON, too.
    .flatMap((secret) => [...new Set([secret, JSON.stringify(secret).slice(1, -1)])]);
  // The longest first: one may be part of another.
  return usable.sort((a, b) => b.length - a.length);
}

function texts(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(texts) : [];
}

export function scrub(text: string, secrets: readonly string[]): string {
  return secrets.reduce((rest, secret) => rest.replaceAll(secret, STRIPPED), text);
}

/** Name, message, stack and causes; other properties (a command's output, for one) are in the message or nowhere. */
export function errorForLog(error: unknown, secrets: readonly string[], depth = 0): Record<string, unknown> {
  if (!(error instanceof Error)) return { type: typeof error, message: scrub(String(error), secrets) };
  const result: Record<string, unknown> = {
    type: error.name,
    message: scrub(error.message, secrets),
    stack: scrub(error.stack ?? '', secrets),
  };
  if ('code' in error && typeof error.code === 'string') result['code'] = error.code;
  if (error.cause !== undefined && depth < MAX_CAUSE_DEPTH) {
    result['cause'] = errorForLog(error.cause, secrets, depth + 1);
  }
  if (error instanceof AggregateError) {
    result['errors'] = error.errors.slice(0, 8).map((item: unknown) => errorForLog(item, secrets, depth + 1));
  }
  return result;
}
