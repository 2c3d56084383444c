/**
 * Kinds of option values: text as it comes from a flag, the environment or the file, to a typed value. Each schema's
 * message says what is allowed; who reports it adds the option, where it came from and what was found.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { z } from 'zod';

/** One kind of value: what is allowed in words (for help, docs and errors) and the schema that says the same. */
export interface ValueKind<T> {
  readonly allowed: string;
  readonly schema: z.ZodType<T, string>;
}

/** A kind from a function that answers undefined for what is not allowed. */
export function kind<T>(allowed: string, parse: (text: string) => T | undefined): ValueKind<T> {
  const schema = z.string().transform((text, context): T => {
    const value = parse(text);
    if (value !== undefined) return value;
    context.addIssue({ code: 'custom', message: allowed });
    return z.NEVER;
  });
  return { allowed, schema };
}

export function oneOf<const T extends string>(...values: readonly T[]): ValueKind<T> {
  return kind(`one of ${values.join(', ')}`, (text) => values.find((value) => value === text));
}

export function pattern(allowed: string, shape: RegExp, maxBytes: number): ValueKind<string> {
  return kind(allowed, (text) => (shape.test(text) && Buffer.byteLength(text) <= maxBytes ? text : undefined));
}

export const absolutePath: ValueKind<string> = kind('an absolute path', (text) =>
  text.startsWith('/') && !text.includes('\0') ? text : undefined,
);

export function integer(minimum: number, maximum: number, meaning = ''): ValueKind<number> {
  return kind(`a whole number from ${minimum} to ${maximum}${meaning}`, (text) => {
    const value = Number(text);
    return /^[0-9]{1,15}$/.test(text) && value >= minimum && value <= maximum ? value : undefined;
  });
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  K: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** Bytes of "1Gi", "512Mi", "10G", "1.5Ti", "4096"; undefined when it is no size or no whole number of bytes. */
export function parseSize(text: string): number | undefined {
  const match = /^([0-9]+(?:\.[0-9]+)?)([A-Za-z]{0,2})$/.exec(text);
  const factor = SIZE_UNITS[match?.[2] ?? ''];
  if (match?.[1] === undefined || factor === undefined) return undefined;
  const bytes = Number(match[1]) * factor;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

export function size(minimumBytes: number, minimumText: string): ValueKind<number> {
  return kind(
    `bytes, plain or with k, M, G, T, P or Ki, Mi, Gi, Ti, Pi (1Gi, 512Mi, 10G), at least ${minimumText}`,
    (text) => {
      const bytes = parseSize(text);
      return bytes !== undefined && bytes >= minimumBytes ? bytes : undefined;
    },
  );
}

/** Bytes per second: a size with or without "/s"; 0 means no limit. */
export const rate: ValueKind<number> = kind('bytes per second (200Mi/s, 1G/s), or 0 for no limit', (text) =>
  parseSize(text.replace(/\/s$/, '')),
);

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Milliseconds of "500ms", "30s", "2m", "1.5h"; undefined without a unit. */
export function parseDuration(text: string): number | undefined {
  const match = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)$/.exec(text);
  const factor = DURATION_UNITS[match?.[2] ?? ''];
  if (match?.[1] === undefined || factor === undefined) return undefined;
  const milliseconds = Number(match[1]) * factor;
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined;
}

/** The bounds are written as durations; the value is in milliseconds. At most 24 days: Node's timers end there. */
export function duration(minimum: string, maximum: string): ValueKind<number> {
  return kind(`a duration with its unit (500ms, 30s, 2m, 1h), from ${minimum} to ${maximum}`, (text) => {
    const value = parseDuration(text);
    const inRange =
      value !== undefined && value >= (parseDuration(minimum) ?? 0) && value <= (parseDuration(maximum) ?? 0);
    return inRange ? value : undefined;
  });
}

/** As duration, in whole seconds (open-iscsi counts in them). */
export function seconds(minimum: string, maximum: string): ValueKind<number> {
  const { allowed } = duration(minimum, maximum);
  const { schema } = duration(minimum, maximum);
  return kind(`${allowed}, whole seconds`, (text) => {
    const parsed = schema.safeParse(text);
    return parsed.success && parsed.data % 1000 === 0 ? parsed.data / 1000 : undefined;
  });
}

/** "host:port" to listen on. */
export const listenAddress: ValueKind<string> = kind(
  'address:port to listen on (127.0.0.1:9809, 0.0.0.0:9809, [::]:9809)',
  (text) => {
    const parsed = splitAddress(text);
    return parsed?.port === undefined ? undefined : `${parsed.host}:${parsed.port}`;
  },
);

const ISCSI_PORT = 3260;

/** "192.0.2.10" or "192.0.2.10:3260,[2001:db8::10]:3260": addresses, not names: LIO listens on addresses. */
export const portals: ValueKind<readonly string[]> = kind(
  'IP addresses with or without port (default 3260), separated by commas: 192.0.2.10 or 192.0.2.10:3260,[2001:db8::10]:3260; ' +
    'not 0.0.0.0 or [::], since nodes connect to what stands here',
  (text) => {
    const result: string[] = [];
    for (const item of text.split(',')) {
      const parsed = isIPv6(item.trim()) ? { host: `[${item.trim()}]`, port: undefined } : splitAddress(item.trim());
      if (parsed === undefined || !isConnectable(parsed.host)) return undefined;
      const portal = `${parsed.host}:${parsed.port ?? ISCSI_PORT}`;
      if (result.includes(portal)) return undefined;
      result.push(portal);
    }
    return result;
  },
);

/** Host with brackets when it is IPv6; a port that is absent is undefined, one that is out of range makes the whole undefined. */
function splitAddress(text: string): { host: string; port: number | undefined } | undefined {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:\s,[\]]+)(?::([0-9]{1,5}))?$/.exec(text);
  if (match?.[1] === undefined) return undefined;
  const port = match[2] === undefined ? undefined : Number(match[2]);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  return { host: match[1], port };
}

function isConnectable(host: string): boolean {
  const address = host.replace(/^\[(.*)\]$/, '$1');
  const isAddress = host.startsWith('[') ? isIPv6(address) : isIPv4(address);
  return isAddress && address !== '0.0.0.0' && !/^[0:]+$/.test(address);
}
