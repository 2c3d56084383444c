/**
 * The kernel's mount table, from mountinfo (proc_pid_mountinfo(5)): the only source of truth about mounts. A path that
 * "looks mounted" (other st_dev, files in it) proves nothing, and statting it can block when its device is gone.
 */
import type { Files } from '../system/files.ts';

export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** Device of the mounted file system, "8:0"; of a bind-mounted device node that of the devtmpfs that holds it. */
  readonly majorMinor: string;
  /** What part of the file system is mounted: "/" or, of a bind mount, a folder or file in it. */
  readonly root: string;
  readonly mountPoint: string;
  /** Of this mount alone: ro, nosuid, noatime… */
  readonly options: readonly string[];
  readonly fsType: string;
  readonly source: string;
  /** Of the file system (superblock), shared by all its mounts. */
  readonly superOptions: readonly string[];
}

/** The mark that the kernel puts behind the root of a bind mount whose file was unlinked, as devtmpfs nodes are. */
const DELETED = '//deleted';

export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    if (line === '') continue;
    entries.push(parseLine(line));
  }
  return entries;
}

function parseLine(line: string): MountEntry {
  const fields = line.split(' ');
  // Any number of optional fields (shared:1, master:2 …), closed by a lone "-".
  const separator = fields.indexOf('-', 6);
  const [id, parentId, majorMinor, root, mountPoint, options] = fields;
  const [fsType, source, superOptions] = separator < 0 ? [] : fields.slice(separator + 1);
  if (
    id === undefined ||
    parentId === undefined ||
    majorMinor === undefined ||
    root === undefined ||
    mountPoint === undefined ||
    options === undefined ||
    fsType === undefined ||
    source === undefined
  ) {
    throw new Error(`mountinfo line is not understood: ${JSON.stringify(line)}`);
  }
  return {
    id: Number(id),
    parentId: Number(parentId),
    majorMinor,
    root: unescapeOctal(root),
    mountPoint: unescapeOctal(mountPoint),
    options: options.split(','),
    fsType: unescapeOctal(fsType),
    source: unescapeOctal(source),
    superOptions: (superOptions ?? '').split(','),
  };
}

/** Space, tab, newline and backslash (and "#" of a source) are written as \ooo; the bytes make UTF-8 text as they are. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** The topmost mount at exactly that path: the one that a look at the path sees and that umount takes away. */
export function mountAt(mounts: readonly MountEntry[], mountPoint: string): MountEntry | undefined {
  const here = mounts.filter((mount) => mount.mountPoint === mountPoint);
  // Stacked mounts: each is the child of the one that it covers. Ids are reused, so their order says nothing.
  return here.find((mount) => !here.some((other) => other.parentId === mount.id)) ?? here.at(-1);
}

/** A block device that was bind-mounted as a file: the name of the device node in devtmpfs; undefined for other mounts. */
export function boundDeviceName(mount: MountEntry): string | undefined {
  if (mount.fsType !== 'devtmpfs' || mount.root === '/') return undefined;
  const root = mount.root.endsWith(DELETED) ? mount.root.slice(0, -DELETED.length) : mount.root;
  return root.slice(1);
}

/** A bind mount whose file or folder has been unlinked: for a device node, the device that it stood for is gone. */
export function isDeleted(mount: MountEntry): boolean {
  return mount.root.endsWith(DELETED);
}

export function isReadOnly(mount: MountEntry): boolean {
  return mount.options.includes('ro') || mount.superOptions.includes('ro');
}

/**
 * Mounts of a block device's file system, and bind mounts of its device node. `name` as in /sys/block. A bind of a node
 * that was unlinked is not among them: it stands for an earlier device of that name.
 */
export function mountsOfDevice(
  mounts: readonly MountEntry[],
  device: { readonly name: string; readonly majorMinor: string },
): MountEntry[] {
  return mounts.filter(
    (mount) => mount.majorMinor === device.majorMinor || (boundDeviceName(mount) === device.name && !isDeleted(mount)),
  );
}

export async function readMountTable(files: Files, mountInfoPath: string): Promise<MountEntry[]> {
  return parseMountInfo(await files.readText(mountInfoPath));
}
