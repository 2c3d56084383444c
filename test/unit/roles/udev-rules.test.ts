import { matchesGlob } from 'node:path';
import { expect } from 'chai';
import { gateName } from '../../../src/gate/naming.ts';
import { keepUdevRules, udevRulesNames, udevRulesText } from '../../../src/roles/udev-rules.ts';
import type { CommandRequest, CommandResult, Commands } from '../../../src/system/commands.ts';
import type { Files } from '../../../src/system/files.ts';
import { newWipeName, volumeIdForName } from '../../../src/volumes/names.ts';

const VG = 'cinder-volumes';
const FOLDER = '/host/etc/udev/rules.d';
const PATHS = [`${FOLDER}/12-lvm-iscsi-csi-cinder-volumes.rules`, `${FOLDER}/57-lvm-iscsi-csi-cinder-volumes.rules`];

/** What the rules assign to a device; undefined when none of them is for it. udev's own reading is in test/integration/tenant-data.test.ts. */
function assigned(text: string, device: { uuid: string; name: string; action?: string }): string[] | undefined {
  const values: Record<string, string> = {
    SUBSYSTEM: 'block',
    ACTION: device.action ?? 'change',
    'ENV{DM_UUID}': device.uuid,
    'ENV{DM_NAME}': device.name,
  };
  for (const line of text.split('\n').filter((one) => one !== '' && !one.startsWith('#'))) {
    const parts = [...line.matchAll(/([A-Z]+(?:\{\w+\})?)(==|!=|:=|=)"([^"]*)"(?:, |$)/g)];
    expect(parts.map(([part]) => part).join(''), 'every part was understood').to.equal(line);
    const matches = parts.every(([, key = '', operator, pattern = '']) => {
      if (operator === '=' || operator === ':=') return true;
      const matched = pattern.split('|').some((one) => matchesGlob(values[key] ?? '', one));
      return matched === (operator === '==');
    });
    if (!matches) continue;
    return parts
      .filter(([, , operator]) => operator === '=' || operator === ':=')
      .map(([, key, , value]) => `${key}=${value}`);
  }
  return undefined;
}

const lv = (lvName: string, vgName = VG) => ({
  uuid: `LVM-${'a'.repeat(64)}`,
  name: `${vgName.replaceAll('-', '--')}-${lvName.replaceAll('-', '--')}`,
});

describe("rules for the storage host's udev", () => {
  const volumeId = volumeIdForName('cluster', 'pvc-1');
  const text = udevRulesText(VG);
  const hands = [
    'ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}=1',
    'ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}=1',
    'ENV{SYSTEMD_READY}=0',
    'OPTIONS=nowatch',
  ];

  it('keep its hands off gates and off LVs with data of tenants, at every event but the last', () => {
    for (const device of [
      gateName(volumeId),
      lv(volumeId),
      lv(newWipeName()),
      lv('_scrub-0b1c2d3e-0000-4000-8000-00000000aaaa'),
    ]) {
      for (const action of ['add', 'change']) expect(assigned(text, { ...device, action })).to.deep.equal(hands);
      expect(assigned(text, { ...device, action: 'remove' })).to.equal(undefined);
    }
  });

  it('leave every other device alone, and the links by which the driver finds LVs', () => {
    for (const device of [
      lv('root'),
      lv('volume-home'),
      lv(volumeId, 'other'),
      // Without the doubled hyphens: VG "cinder" with an LV "volumes-volume-…".
      lv(`volumes-${volumeId}`, 'cinder'),
      { ...lv(volumeId), uuid: 'CRYPT-LUKS2-x' },
      { uuid: 'mpath-360', name: 'mpatha' },
      { uuid: '', name: 'gate-by-hand' },
    ])
      expect(assigned(text, device), device.name).to.equal(undefined);
    expect(text).to.not.match(/DM_UDEV_DISABLE_(DM|SUBSYSTEM)_RULES_FLAG/);
  });

  it("have their place among lvm2's files and among Debian's", () => {
    const [first = '', second = ''] = udevRulesNames(VG);
    expect([first, '13-dm-disk.rules', '11-dm-lvm.rules', '10-dm.rules'].sort()).to.deep.equal([
      '10-dm.rules',
      '11-dm-lvm.rules',
      first,
      '13-dm-disk.rules',
    ]);
    expect([second, '60-persistent-storage-dm.rules', '56-lvm.rules', '55-dm.rules'].sort()).to.deep.equal([
      '55-dm.rules',
      '56-lvm.rules',
      second,
      '60-persistent-storage-dm.rules',
    ]);
  });

  describe('on a host', () => {
    const written = new Map<string, string>();
    const run: string[] = [];
    let hasUdev: boolean;
    let readOnlyFolder: string | undefined;
    const files: Partial<Files> = {
      stat: async (path) => {
        expect(path).to.equal('/host/run/udev/control');
        return hasUdev
          ? { kind: 'other', sizeBytes: 0, rdev: undefined, dev: '0:1', inode: 1, mode: 0o600 }
          : undefined;
      },
      readText: async (path) => {
        const found = written.get(path);
        if (found === undefined) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
        return found;
      },
      mkdir: async () => undefined,
      writeDurably: async (path, content) => {
        if (readOnlyFolder !== undefined && path.startsWith(readOnlyFolder))
          throw Object.assign(new Error(`EROFS: read-only file system, open '${path}'`), { code: 'EROFS' });
        written.set(path, content);
      },
    };
    const commands: Commands = {
      run: async (request: CommandRequest) => {
        run.push([request.file, ...request.args].join(' '));
        return {} as CommandResult;
      },
    };
    const options = { files: files as Files, commands, hostRoot: '/host', vgName: VG };

    beforeEach(() => {
      written.clear();
      run.length = 0;
      hasUdev = true;
      readOnlyFolder = undefined;
    });

    it('are written, loaded and applied to what is there; then only when they are absent or different', async () => {
      await keepUdevRules(options);
      expect([...written]).to.deep.equal(PATHS.map((path) => [path, text]));
      expect(run[0]).to.equal('udevadm control --reload');
      expect(run[1]).to.match(/^udevadm trigger --action=change --subsystem-match=block --property-match=DM_UUID=/);
      expect(run).to.have.length(2);
      run.length = 0;
      await keepUdevRules(options);
      expect(run).to.deep.equal([]);
      const [, second = ''] = PATHS;
      written.set(second, `${text}# by hand\n`);
      await keepUdevRules(options);
      expect(written.get(second)).to.equal(text);
      expect(run).to.have.length(2);
    });

    it('of one volume group leave those of another alone', async () => {
      await keepUdevRules(options);
      await keepUdevRules({ ...options, vgName: 'fast' });
      expect(written.size).to.equal(4);
      for (const path of PATHS) expect(written.get(path)).to.equal(text);
    });

    it('are not there without udev', async () => {
      hasUdev = false;
      await keepUdevRules(options);
      expect([written.size, run]).to.deep.equal([0, []]);
    });

    it('hold until the next boot where /etc is read-only', async () => {
      readOnlyFolder = FOLDER;
      await keepUdevRules(options);
      expect([...written.keys()]).to.deep.equal(PATHS.map((path) => path.replace('/etc/', '/run/')));
      expect(run).to.have.length(2);
    });

    it('do not keep the controller from starting when they cannot be made', async () => {
      readOnlyFolder = '/host';
      await keepUdevRules(options);
      expect([written.size, run]).to.deep.equal([0, []]);
      readOnlyFolder = undefined;
      await keepUdevRules({ ...options, commands: { run: () => Promise.reject(new Error('no udevadm')) } });
      expect(written.size).to.equal(2);
    });
  });
});
