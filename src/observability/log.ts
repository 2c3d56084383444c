/** The process's logger: JSON lines on standard output, for whatever collects container logs. */
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino';
import { CommandError } from '../system/commands.ts';

export interface LoggerOptions {
  readonly level: string;
  /** On every line: role, version. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** Standard output when absent. */
  readonly destination?: DestinationStream;
}

/**
 * The second net under what must not be logged; the first is that nobody hands it to the logger (csi/redact.ts strips
 * by the fields' own csi_secret option). pino's wildcard is one level deep, hence the pairs.
 */
const SECRET_KEYS = [
  'secrets',
  'password',
  'chapPassword',
  'mutualChapPassword',
  'publishContext',
  'publish_context',
  'chap',
  'mutualChap',
];
const REDACTED_PATHS = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]);

/**
 * `controller.chap` of the configuration that is logged at the start is no secret but a mode, and one of these words. Of a
 * path that a wildcard has met pino tells no more than its end.
 */
const CHAP_MODES: readonly unknown[] = ['on', 'mutual', 'off'];

function censor(value: unknown, path: readonly unknown[]): unknown {
  const isMode = path.at(-1) === 'chap' && path.at(-2) === 'controller' && CHAP_MODES.includes(value);
  return isMode ? value : '***redacted***';
}

export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      level: options.level,
      base: { ...options.fields },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: REDACTED_PATHS, censor },
      serializers: { err: serializeError },
    },
    options.destination ?? standardOutput(),
  );
}

/** Synchronous: the lines before a crash are the ones that matter. */
function standardOutput(): DestinationStream {
  const stream = pino.destination({ fd: 1, sync: true });
  // The reader of the pipe is gone: a driver that cannot log still has volumes to serve.
  stream.on('error', () => undefined);
  return stream;
}

const MAX_STDERR_CHARACTERS = 4_000;

/** pino's own serializer would print a command's whole standard output. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof CommandError)) return error instanceof Error ? stdSerializers.err(error) : error;
  const { name, shortMessage, stack, command, exitCode, signal, timedOut, missing, durationMs } = error;
  const stderr = error.stderr.trim().slice(0, MAX_STDERR_CHARACTERS);
  return { type: name, message: shortMessage, command, exitCode, signal, timedOut, missing, durationMs, stderr, stack };
}
