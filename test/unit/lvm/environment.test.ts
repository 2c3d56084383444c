/** The private LVM configuration, over a real folder; LVM itself is a fake that prints what the real one does. */
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { LvmEnvironment } from '../../../src/lvm/environment.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import type { CommandRequest, Commands } from '../../../src/system/commands.ts';

/** `lvmconfig --type current` of a host whose lvmlocal.conf has a filter and a system id: it gives both files in one. */
const HOST_CONF = `devices {
\tglobal_filter=["a|.*|"]
\tfilter=["r|/dev/sdz|"]
}
local {
\tsystem_id="storage-1"
}
`;
const REPORT = { report: [{ vg: [{ pv_uuid: 'p-1', vg_uuid: 'v-1', pv_major: '254', pv_minor: '16' }] }] };

describe('lvm/environment', () => {
  const root = mkdtempSync(join(tmpdir(), 'lvm-environment-'));
  const files = new BlockingFiles();
  const folder = join(root, 'run/lvm/cinder-volumes');

  before(() => {
    const device = join(root, 'sys/devices/virtual/block/vdb');
    mkdirSync(device, { recursive: true });
    mkdirSync(join(root, 'sys/block'), { recursive: true });
    writeFileSync(join(device, 'dev'), '254:16\n');
    writeFileSync(join(device, 'size'), '2048\n');
    symlinkSync(device, join(root, 'sys/block/vdb'));
  });

  after(async () => {
    await files.close();
    rmSync(root, { recursive: true });
  });

  it("a filter in the host's lvmlocal.conf does not take the place of ours; its system id stays", async () => {
    // What an older version has left there.
    mkdirSync(folder, { recursive: true });
    symlinkSync('/etc/lvm/lvmlocal.conf', join(folder, 'lvmlocal.conf'));
    const run = async ({ program }: CommandRequest) => {
      const stdout = program === 'lvmconfig' ? HOST_CONF : JSON.stringify(REPORT);
      return { command: 'lvm', exitCode: 0, stdout, stderr: '', durationMs: 1 };
    };
    const options = { files, vgName: 'cinder-volumes', runDir: '/run', hostRoot: root };
    const environment = new LvmEnvironment({ ...options, commands: { run } as unknown as Commands });
    expect((await environment.get()).paths).to.deep.equal(['/dev/vdb']);
    const [conf, local] = ['lvm.conf', 'lvmlocal.conf'].map((name) => readFileSync(join(folder, name), 'utf8'));
    expect(conf).to.contain('global_filter=["a|^/dev/vdb$|","r|.*|"]').and.to.not.contain('system_id');
    expect(lstatSync(join(folder, 'lvmlocal.conf')).isSymbolicLink()).to.equal(false);
    expect(local).to.contain('system_id="storage-1"').and.to.not.contain('filter');
  });
});
