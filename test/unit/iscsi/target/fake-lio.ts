/**
 * A fake of LIO's configfs tree for the order of calls and for what a crash leaves: folders, attributes that come with
 * them, and the refusals that the adapter relies on. What the kernel really does is in test/integration/target.test.ts.
 */
import type { FileStat, Files } from '../../../../src/system/files.ts';

type Node = { kind: 'folder'; made: boolean } | { kind: 'attribute'; text: string } | { kind: 'link'; target: string };

const ROOT = '/config';
const FOLDER: FileStat = { kind: 'directory', sizeBytes: 0, rdev: undefined, dev: '0:1', inode: 1, mode: 0o755 };

/** Attributes that the kernel makes with a folder, by the folder's shape. */
const ATTRIBUTES: readonly [RegExp, Readonly<Record<string, string>>][] = [
  [/\/core\/iblock_\d+$/, { hba_info: '', hba_mode: '' }],
  [
    /\/core\/iblock_\d+\/[^/]+$/,
    {
      control: '',
      info: 'Status: DEACTIVATED\n',
      enable: '0\n',
      'wwn/vpd_unit_serial': 'T10 VPD Unit Serial Number: \n',
      'attrib/emulate_3pc': '1\n',
      'attrib/emulate_pr': '1\n',
      'attrib/emulate_tpu': '0\n',
      'attrib/emulate_tpws': '0\n',
    },
  ],
  [
    /\/tpgt_1$/,
    {
      enable: '0\n',
      dynamic_sessions: '',
      'attrib/authentication': '1\n',
      'attrib/generate_node_acls': '0\n',
      'attrib/cache_dynamic_acls': '0\n',
      'attrib/demo_mode_write_protect': '1\n',
      'attrib/demo_mode_discovery': '1\n',
      'attrib/prod_mode_write_protect': '0\n',
      'param/MaxConnections': '1\n',
    },
  ],
  [
    /\/acls\/[^/]+$/,
    {
      info: 'No active iSCSI Session for Initiator Endpoint: x\n',
      cmdsn_depth: '64\n',
      'auth/userid': '\n',
      'auth/password': '\n',
      'auth/userid_mutual': '\n',
      'auth/password_mutual': '\n',
    },
  ],
  [/\/acls\/[^/]+\/lun_0$/, { write_protect: '0\n' }],
];

export class FakeLio {
  readonly root = ROOT;
  readonly nodes = new Map<string, Node>();
  /** Changes, e.g. "mkdir core/iblock_0", "write …/enable 1". */
  readonly changes: string[] = [];
  /** Initiators with a session. */
  readonly sessions = new Set<string>();
  readonly device: FileStat = { ...FOLDER, kind: 'block', rdev: '253:7' };
  /** Throw to make a change fail; called before it is made. */
  intercept: (change: string) => void | Promise<void> = () => undefined;

  constructor() {
    for (const path of ['core', 'iscsi']) this.nodes.set(`${ROOT}/target/${path}`, { kind: 'folder', made: false });
  }

  text(path: string): string | undefined {
    const node = this.nodes.get(`${ROOT}/target/${path}`);
    return node?.kind === 'attribute' ? node.text : undefined;
  }

  files(): Files {
    const fake: Partial<Files> = {
      stat: async (path) => (path.startsWith('/dev/') ? this.device : this.nodes.has(path) ? FOLDER : undefined),
      readText: async (path) => {
        const node = this.nodes.get(path);
        if (node?.kind !== 'attribute') throw failure('ENOENT', path);
        const initiator = /\/acls\/([^/]+)\/info$/.exec(path)?.[1];
        return initiator !== undefined && this.sessions.has(initiator) ? `InitiatorName: ${initiator}\n` : node.text;
      },
      readdir: async (path) => {
        if (this.nodes.get(path)?.kind !== 'folder') throw failure('ENOENT', path);
        return this.#children(path).map((child) => child.slice(path.length + 1));
      },
      readlink: async (path) => {
        const node = this.nodes.get(path);
        if (node === undefined) throw failure('ENOENT', path);
        if (node.kind !== 'link') throw failure('EINVAL', path);
        return node.target;
      },
      mkdir: async (path) => this.#change('mkdir', path, () => this.#makeFolder(path)),
      rmdir: async (path) => this.#change('rmdir', path, () => this.#removeFolder(path)),
      symlink: async (target, path) =>
        this.#change('link', path, () => void this.nodes.set(path, { kind: 'link', target })),
      unlink: async (path) =>
        this.#change('unlink', path, () => {
          if (!this.nodes.delete(path)) throw failure('ENOENT', path);
        }),
      writeAttribute: async (path, text) => this.#change(`write ${text}`, path, () => this.#write(path, text)),
    };
    return fake as Files;
  }

  async #change(what: string, path: string, action: () => void): Promise<void> {
    const [verb = '', ...text] = what.split(' ');
    const change = [verb, path.replace(`${ROOT}/target/`, ''), ...text].join(' ');
    await this.intercept(change);
    action();
    this.changes.push(change);
  }

  #children(path: string): string[] {
    return [...this.nodes.keys()].filter(
      (one) => one.startsWith(`${path}/`) && !one.slice(path.length + 1).includes('/'),
    );
  }

  #makeFolder(path: string): void {
    if (this.nodes.has(path)) throw failure('EEXIST', path);
    if (!this.nodes.has(path.slice(0, path.lastIndexOf('/')))) throw failure('ENOENT', path);
    this.nodes.set(path, { kind: 'folder', made: true });
    if (path.endsWith('/tpgt_1'))
      for (const name of ['acls', 'lun', 'np']) this.nodes.set(`${path}/${name}`, { kind: 'folder', made: false });
    for (const [shape, attributes] of ATTRIBUTES) {
      if (!shape.test(path)) continue;
      for (const [name, text] of Object.entries(attributes))
        this.nodes.set(`${path}/${name}`, { kind: 'attribute', text });
    }
  }

  #removeFolder(path: string): void {
    if (!this.nodes.has(path)) throw failure('ENOENT', path);
    const below = [...this.nodes].filter(([one]) => one.startsWith(`${path}/`));
    if (below.some(([, node]) => node.kind === 'link' || (node.kind === 'folder' && node.made)))
      throw failure('ENOTEMPTY', path);
    for (const [one] of [[path], ...below]) this.nodes.delete(one as string);
  }

  #write(path: string, text: string): void {
    const node = this.nodes.get(path);
    if (node?.kind !== 'attribute') throw failure('ENOENT', path);
    const folder = path.slice(0, path.lastIndexOf('/'));
    const isBackstore = /\/core\/iblock_\d+\/[^/]+$/.test(folder);
    if (/emulate_tp/.test(path) && this.nodes.get(`${folder.slice(0, -'/attrib'.length)}/enable`)) {
      const enable = this.nodes.get(`${folder.slice(0, -'/attrib'.length)}/enable`);
      if (enable?.kind === 'attribute' && enable.text !== '1\n') throw new Error('kernel panic');
    }
    if (path.endsWith('/vpd_unit_serial')) node.text = `T10 VPD Unit Serial Number: ${text}\n`;
    else if (path.includes('/auth/')) node.text = `${text}\n`;
    else node.text = `${text}\n`;
    if (isBackstore && path.endsWith('/enable')) {
      const control = this.nodes.get(`${folder}/control`);
      const device = control?.kind === 'attribute' ? control.text.trim().replace('udev_path=', '') : '';
      const info = `Status: ACTIVATED\n        iBlock device: dm-7  UDEV PATH: ${device}  readonly: 0\n        Major: 253 Minor: 7  CLAIMED: IBLOCK\n`;
      this.nodes.set(`${folder}/info`, { kind: 'attribute', text: info });
    }
    const initiator = /\/acls\/([^/]+)\/cmdsn_depth$/.exec(path)?.[1];
    if (initiator !== undefined) this.sessions.delete(initiator);
    if (path.endsWith('/tpgt_1/enable') && text === '0') this.sessions.clear();
  }
}

function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code, path });
}
