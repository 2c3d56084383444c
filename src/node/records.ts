/**
 * The node state record: what this node knows of one attachment, one 0600 file for each volume under
 * `<stateDir>/node/`. It is written BEFORE the login and removed AFTER the logout, so that at any crash point
 *
 *   no record, no session      nothing was begun, or everything has ended
 *   attaching, no session      died before the login: go on, or forget it
 *   attaching, session         died after the login: the session is this attachment's (all others were ended before)
 *   staged, session `sid`      in order
 *   staged, no such session    the session ended under it: what is mounted is dead
 *   anything else              stale (stale.ts)
 *
 * It holds the attachment's nonce and no other secret: CHAP credentials live in open-iscsi's own record alone.
 */
import { z } from 'zod';
import { DriverError } from '../errors.ts';
import { isCode } from '../filesystem/block-device.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import { ACCESS_MODES, FS_TYPES } from '../volumes/model.ts';

const recordSchema = z
  .object({
    format: z.literal(1),
    volumeId: z.string(),
    /** /proc/sys/kernel/random/boot_id: no session outlives a boot. */
    bootId: z.string(),
    nonce: z.string(),
    targetIqn: z.string(),
    /** Of the storage host (standing.ts); absent in records of earlier versions. */
    witnessIqn: z.string().optional(),
    portals: z.array(z.string()).min(1),
    lun: z.number().int(),
    /** VPD page 0x80. */
    serial: z.string(),
    content: z.union([
      z.object({ kind: z.literal('raw') }),
      z.object({ kind: z.literal('filesystem'), fsType: z.enum(FS_TYPES) }),
    ]),
    access: z.enum(['mount', 'block']),
    /** The access mode allows reading alone. */
    readerOnly: z.boolean(),
    /** Resolved, as the mount table names it. */
    stagingPath: z.string(),
    phase: z.enum(['attaching', 'staged']),
    /** Of a staged volume. */
    device: z
      .object({
        /** Kernel name, "sda". */
        name: z.string(),
        majorMinor: z.string(),
        /** iSCSI session id. */
        sid: z.number().int(),
        sizeBytes: z.number().int(),
        /** Mode, or the target, allows reading alone. */
        readOnly: z.boolean(),
      })
      .optional(),
    /** Where it is published, written before the bind mount is made. Paths resolved. */
    targets: z.array(
      z.object({
        path: z.string(),
        /** As asked for. */
        readOnly: z.boolean(),
        /** Access mode of the publish; absent in records of earlier versions. */
        mode: z.enum(ACCESS_MODES).optional(),
      }),
    ),
    /** When and how writing failed (lost-data.ts). */
    lostData: z.array(z.string()).optional(),
  })
  .readonly();

export type NodeRecord = z.infer<typeof recordSchema>;
export type RecordedDevice = NonNullable<NodeRecord['device']>;
export type StagedRecord = NodeRecord & { readonly device: RecordedDevice };

/** Of these an id is a safe file name; ours are `volume-<uuid>`. */
const SAFE_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$/;
const SUFFIX = '.json';
const LEFTOVER = /^\.[A-Za-z0-9][A-Za-z0-9._-]*\.json\.[0-9a-f-]{36}\.tmp$/;

export function isSafeVolumeId(volumeId: string): boolean {
  return SAFE_ID.test(volumeId);
}

export function isStaged(record: NodeRecord | undefined): record is StagedRecord {
  return record?.phase === 'staged' && record.device !== undefined;
}

export class NodeRecords {
  readonly #files: Files;
  readonly #find: () => Promise<string>;
  #found: Promise<string> | undefined;

  /** `folder`: tells where it is, as this process sees it; asked once. */
  constructor(files: Files, folder: () => Promise<string>) {
    this.#files = files;
    this.#find = folder;
  }

  /**
   * undefined when there is none.
   * @throws DriverError FAILED_PRECONDITION for a record that cannot be understood: never taken for "none"
   */
  async load(volumeId: string): Promise<NodeRecord | undefined> {
    if (!isSafeVolumeId(volumeId)) return undefined;
    let text: string;
    try {
      text = await this.#files.readText(await this.#path(volumeId));
    } catch (error) {
      if (isCode(error, 'ENOENT')) return undefined;
      throw error;
    }
    return parse(volumeId, text, await this.#path(volumeId));
  }

  async save(record: NodeRecord): Promise<void> {
    await step('node-record-write', async () => {
      const text = `${JSON.stringify(record, undefined, 2)}\n`;
      const path = await this.#path(record.volumeId);
      try {
        await this.#files.writeDurably(path, text, { mode: 0o600 });
      } catch (error) {
        if (!isCode(error, 'ENOENT')) throw error;
        await this.#files.mkdir(await this.#folder(), { recursive: true, mode: 0o700 });
        await this.#files.writeDurably(path, text, { mode: 0o600 });
      }
    });
  }

  /** Gone already: no error. */
  async remove(volumeId: string): Promise<void> {
    if (!isSafeVolumeId(volumeId)) return;
    await step('node-record-remove', async () => {
      try {
        await this.#files.unlink(await this.#path(volumeId));
      } catch (error) {
        if (!isCode(error, 'ENOENT')) throw error;
      }
    });
  }

  /** Volume ids of all records; also of those that cannot be understood. */
  async list(): Promise<string[]> {
    try {
      return (await this.#files.readdir(await this.#folder()))
        .filter((name) => name.endsWith(SUFFIX))
        .map((name) => name.slice(0, -SUFFIX.length))
        .filter(isSafeVolumeId);
    } catch (error) {
      if (isCode(error, 'ENOENT')) return [];
      throw error;
    }
  }

  /** Files of a write that a crash cut short (Files.writeDurably); only while no write is in progress. */
  async sweep(): Promise<void> {
    try {
      const folder = await this.#folder();
      for (const name of await this.#files.readdir(folder)) {
        if (LEFTOVER.test(name)) await this.#files.unlink(`${folder}/${name}`);
      }
    } catch (error) {
      if (!isCode(error, 'ENOENT')) throw error;
    }
  }

  async #folder(): Promise<string> {
    this.#found ??= this.#find();
    try {
      return await this.#found;
    } catch (error) {
      this.#found = undefined;
      throw error;
    }
  }

  async #path(volumeId: string): Promise<string> {
    return `${await this.#folder()}/${volumeId}${SUFFIX}`;
  }
}

function parse(volumeId: string, text: string, path: string): NodeRecord {
  let found: string;
  try {
    const result = recordSchema.safeParse(JSON.parse(text));
    if (result.success && result.data.volumeId === volumeId) return result.data;
    found = result.success
      ? `a record of ${result.data.volumeId}`
      : result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join(', ');
  } catch {
    found = 'no JSON';
  }
  throw new DriverError('FAILED_PRECONDITION', {
    problem: `the node state record ${path} is not understood`,
    found,
    action: 'if a newer driver wrote it, run that one; otherwise move the file away and drain this node',
  });
}
