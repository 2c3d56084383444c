/**
 * What is on a device, read-only and exact. "blkid found nothing" is never taken for "empty": other drivers have
 * reformatted data over that (democratic-csi#215, hetzner csi-driver#1346, trident#418). blkid's exit code 2 stands for
 * nothing found, and for a device that could not be read, alike: so the device is then read here as well.
 */
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { FileSystemError } from './errors.ts';

export type DeviceContent =
  | {
      readonly kind: 'filesystem';
      readonly type: string;
      readonly uuid: string | undefined;
      readonly label: string | undefined;
    }
  | { readonly kind: 'luks' }
  | { readonly kind: 'lvm-pv' }
  | { readonly kind: 'raid'; readonly type: string }
  | { readonly kind: 'partition-table'; readonly type: string }
  /** Known to blkid, none of the above: swap, a bcache member, a journal of its own… */
  | { readonly kind: 'other'; readonly type: string }
  /** More than one signature that do not go together. */
  | { readonly kind: 'ambiguous'; readonly types: readonly string[] }
  /** No signature, and the first and last MiB are zeros. */
  | { readonly kind: 'blank' }
  /** No signature that blkid knows, but there is data. */
  | { readonly kind: 'unknown-data' };

const MIB = 1024 * 1024;
const PROBE_TIMEOUT_MS = 30_000;
const NOTHING_FOUND = 2;
const AMBIVALENT = 8;

/**
 * `devicePath` as commands see it, `sizeBytes` of the device, `fileRoot` the prefix under which this process sees it.
 * @throws FileSystemError 'io' when the device cannot be read, 'tool-missing'
 */
export async function probeDevice(
  { commands, files }: { readonly commands: Commands; readonly files: Files },
  device: { readonly devicePath: string; readonly fileRoot: string; readonly sizeBytes: number },
): Promise<DeviceContent> {
  const { devicePath } = device;
  let result: { exitCode: number; stdout: string };
  try {
    result = await commands.run({
      file: 'blkid',
      args: ['-p', '-o', 'export', devicePath],
      kind: 'read',
      timeoutMs: PROBE_TIMEOUT_MS,
      acceptedExitCodes: [0, NOTHING_FOUND, AMBIVALENT],
    });
  } catch (error) {
    throw probeFailure(devicePath, error);
  }
  if (result.exitCode === 0) return classify(parseExport(result.stdout));
  if (result.exitCode === AMBIVALENT) {
    return { kind: 'ambiguous', types: await listSignatures(commands, devicePath) };
  }
  try {
    return { kind: (await hasData(files, device)) ? 'unknown-data' : 'blank' };
  } catch (error) {
    throw new FileSystemError('io', `${devicePath} cannot be read`, { cause: error });
  }
}

/** In words, for messages: what was found. */
export function describeContent(content: DeviceContent): string {
  switch (content.kind) {
    case 'filesystem': {
      const name = content.label === undefined ? '' : ` labelled "${content.label}"`;
      return `a file system of type ${content.type}${name}${content.uuid === undefined ? '' : ` (UUID ${content.uuid})`}`;
    }
    case 'luks':
      return 'a LUKS header (encrypted data)';
    case 'lvm-pv':
      return 'an LVM physical volume';
    case 'raid':
      return `a RAID member (${content.type})`;
    case 'partition-table':
      return `a partition table (${content.type})`;
    case 'other':
      return content.type;
    case 'ambiguous':
      return `several signatures at once (${content.types.join(', ') || 'blkid does not name them'})`;
    case 'blank':
      return 'nothing: no signature, and its first and last MiB are zeros';
    case 'unknown-data':
      return 'data without any known signature';
  }
}

/** KEY=VALUE lines; blkid escapes what a shell would take amiss with a backslash. */
export function parseExport(text: string): Map<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=');
    if (equals > 0) values.set(line.slice(0, equals), line.slice(equals + 1).replace(/\\(.)/g, '$1'));
  }
  return values;
}

function classify(values: ReadonlyMap<string, string>): DeviceContent {
  const type = values.get('TYPE');
  const table = values.get('PTTYPE');
  if (type === undefined) {
    return table === undefined
      ? { kind: 'other', type: 'a signature without a type' }
      : { kind: 'partition-table', type: table };
  }
  if (table !== undefined) return { kind: 'ambiguous', types: [type, `partition table ${table}`] };
  if (type === 'crypto_LUKS') return { kind: 'luks' };
  if (type === 'LVM2_member' || type === 'LVM1_member') return { kind: 'lvm-pv' };
  const usage = values.get('USAGE');
  if (usage === 'raid' || type.endsWith('_raid_member')) return { kind: 'raid', type };
  if (usage === 'filesystem') return { kind: 'filesystem', type, uuid: values.get('UUID'), label: values.get('LABEL') };
  return { kind: 'other', type };
}

/** Every signature on its own, only to name them in a message. */
async function listSignatures(commands: Commands, devicePath: string): Promise<string[]> {
  const { stdout } = await commands
    .run({
      file: 'wipefs',
      args: ['--no-act', '--noheadings', '--output', 'TYPE', devicePath],
      kind: 'read',
      timeoutMs: PROBE_TIMEOUT_MS,
    })
    // The refusal must not depend on this list.
    .catch(() => ({ stdout: '' }));
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

async function hasData(
  files: Files,
  device: { readonly devicePath: string; readonly fileRoot: string; readonly sizeBytes: number },
): Promise<boolean> {
  const path = `${device.fileRoot}${device.devicePath}`;
  for (const offset of new Set([0, Math.max(0, device.sizeBytes - MIB)])) {
    const wanted = Math.min(MIB, device.sizeBytes - offset);
    const bytes = await files.readBytes(path, offset, wanted, { timeoutMs: PROBE_TIMEOUT_MS });
    if (bytes.length < wanted) throw new Error(`${path} ends at byte ${offset + bytes.length} of ${device.sizeBytes}`);
    if (bytes.some((byte) => byte !== 0)) return true;
  }
  return false;
}

function probeFailure(devicePath: string, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  if (error.missing) {
    return new FileSystemError('tool-missing', 'blkid is not installed (package util-linux)', { cause: error });
  }
  return new FileSystemError('io', `${devicePath} cannot be probed: ${error.shortMessage}`, { cause: error });
}
