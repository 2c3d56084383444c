/**
 * CHAP credentials of an attachment: derived, never stored. HMAC-SHA256 over length-delimited fields with a key that the
 * controller made once (0600 file on its host). Each attachment's tag names the key's id and the mode, so that both can be
 * changed for new attachments: those that are there keep theirs, and their node its records.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { DriverError } from '../errors.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import type { ChapCredentials } from './publish-context.ts';

/** Credentials for both directions; `mutual` only when configured. */
export interface ChapPair {
  readonly chap: ChapCredentials;
  readonly mutual: ChapCredentials | undefined;
}

const KeyFile = z.strictObject({
  format: z.literal(1),
  current: z.string().regex(/^[A-Za-z0-9-]{1,32}$/),
  keys: z.record(z.string(), z.base64()),
});
type KeyFile = z.infer<typeof KeyFile>;

/** Bytes of each derived secret: RFC 7143 section 12.1.3 wants at least 12 (96 bits) without IPsec. */
const SECRET_BYTES = 16;

export class ChapKeys {
  readonly currentKeyId: string;
  readonly #keys: ReadonlyMap<string, Buffer>;
  readonly #mutual: boolean;

  private constructor(file: KeyFile, mutual: boolean) {
    this.currentKeyId = file.current;
    this.#keys = new Map(Object.entries(file.keys).map(([id, key]) => [id, Buffer.from(key, 'base64')]));
    this.#mutual = mutual;
  }

  /**
   * As load, but makes no key: for a controller with CHAP off, which may have attachments of the time when it was on.
   * @returns undefined when there is no file.
   */
  static async loadIfPresent(files: Files, path: string): Promise<ChapKeys | undefined> {
    return (await files.stat(path)) === undefined ? undefined : await ChapKeys.load(files, path, false);
  }

  /**
   * Reads the key file, making it first when there is none.
   * @param mutual Of attachments whose tag does not tell their mode.
   * @param path As seen by this process (host root prefixed).
   * @throws DriverError FAILED_PRECONDITION when the file is there but unusable: it is never replaced.
   */
  static async load(files: Files, path: string, mutual: boolean): Promise<ChapKeys> {
    const stat = await files.stat(path);
    if (stat === undefined) {
      const folder = path.slice(0, path.lastIndexOf('/'));
      const id = randomBytes(4).toString('hex');
      const content: KeyFile = { format: 1, current: id, keys: { [id]: randomBytes(32).toString('base64') } };
      await step('chap-key-write', async () => {
        await files.mkdir(folder, { recursive: true, mode: 0o700 });
        await files.writeDurably(path, `${JSON.stringify(content)}\n`, { mode: 0o600 });
      });
      return new ChapKeys(content, mutual);
    }
    if ((stat.mode & 0o077) !== 0) {
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `CHAP key file ${path} can be read by others than its owner`,
        found: `mode 0${(stat.mode & 0o777).toString(8)}`,
        action: 'chmod 0600 it, and consider the key known: add a new one and make it current',
      });
    }
    let parsed: KeyFile;
    try {
      parsed = KeyFile.parse(JSON.parse(await files.readText(path)));
      if (parsed.keys[parsed.current] === undefined) throw new Error('"current" names no key');
      if (Object.values(parsed.keys).some((key) => Buffer.from(key, 'base64').length < 16))
        throw new Error('a key has fewer than 16 bytes');
    } catch (cause) {
      // The cause may quote the file's content, so it goes no further than here.
      throw new DriverError('FAILED_PRECONDITION', {
        problem: `CHAP key file ${path} is not usable`,
        found:
          cause instanceof z.ZodError
            ? cause.issues.map((issue) => `${issue.path.join('.')}: ${issue.code}`).join(', ')
            : 'no valid JSON, or keys that do not fit',
        action: 'restore it from a backup; a new key would lock out every attachment made with the old one',
      });
    }
    return new ChapKeys(parsed, mutual);
  }

  /** undefined when the key is not known (any more). */
  derive(
    keyId: string,
    volumeId: string,
    nodeName: string,
    nonce: string,
    mutual: boolean = this.#mutual,
  ): ChapPair | undefined {
    const key = this.#keys.get(keyId);
    if (key === undefined) return undefined;
    const secret = (label: string) => {
      const mac = createHmac('sha256', key);
      for (const field of [label, keyId, volumeId, nodeName, nonce]) {
        const bytes = Buffer.from(field, 'utf8');
        const length = Buffer.alloc(4);
        length.writeUInt32BE(bytes.length);
        mac.update(length).update(bytes);
      }
      return mac.digest().subarray(0, SECRET_BYTES).toString('hex');
    };
    return {
      // The user carries the nonce: a session's own sysfs attribute then tells which attachment it belongs to.
      chap: { user: chapUser(nonce), password: secret('initiator') },
      mutual: mutual ? { user: `target-${nonce}`, password: secret('target') } : undefined,
    };
  }
}

export function chapUser(nonce: string): string {
  return `lic-${nonce}`;
}

/**
 * CHAP credentials that a user gave through a StorageClass's secret, under the keys that Kubernetes' in-tree iSCSI
 * volumes use; undefined when the secret has none of them.
 * @throws DriverError INVALID_ARGUMENT naming the key, never its value.
 */
export function userCredentials(secrets: Readonly<Record<string, string>>): ChapPair | undefined {
  const keys = [
    'node.session.auth.username',
    'node.session.auth.password',
    'node.session.auth.username_in',
    'node.session.auth.password_in',
  ] as const;
  if (keys.every((key) => secrets[key] === undefined)) return undefined;
  const pair = (userKey: string, passwordKey: string): ChapCredentials => {
    for (const key of [userKey, passwordKey]) {
      const value = secrets[key];
      // Neither LIO's configfs nor open-iscsi's record file can carry white space or more than 255 bytes.
      if (value === undefined || !/^[!-~]{1,255}$/.test(value) || value === 'NULL') {
        throw new DriverError('INVALID_ARGUMENT', {
          problem: `secret key "${key}" is ${value === undefined ? 'missing' : 'not usable for CHAP'}`,
          action: 'give 1 to 255 printable ASCII characters without spaces',
        });
      }
    }
    if ((secrets[passwordKey] ?? '').length < 12) {
      throw new DriverError('INVALID_ARGUMENT', {
        problem: `secret key "${passwordKey}" is too short for CHAP`,
        action: 'give at least 12 characters (RFC 7143, section 12.1.3)',
      });
    }
    return { user: secrets[userKey] ?? '', password: secrets[passwordKey] ?? '' };
  };
  const chap = pair('node.session.auth.username', 'node.session.auth.password');
  const wantsMutual =
    secrets['node.session.auth.username_in'] !== undefined || secrets['node.session.auth.password_in'] !== undefined;
  const mutual = wantsMutual ? pair('node.session.auth.username_in', 'node.session.auth.password_in') : undefined;
  if (mutual !== undefined && mutual.password === chap.password) {
    throw new DriverError('INVALID_ARGUMENT', {
      problem: 'secret keys "node.session.auth.password" and "node.session.auth.password_in" are equal',
      action: 'use two different passwords (RFC 7143, section 12.1.3)',
    });
  }
  return { chap, mutual };
}
