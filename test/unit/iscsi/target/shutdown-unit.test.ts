import { expect } from 'chai';
import { prepareShutdown, shutdownUnitText } from '../../../../src/iscsi/target/shutdown-unit.ts';
import type { CommandRequest, CommandResult, Commands } from '../../../../src/system/commands.ts';
import type { Files } from '../../../../src/system/files.ts';

const PREFIX = 'iqn.2010-10.org.openstack';
const PATH = '/host/run/systemd/system/lvm-iscsi-csi-sessions-cinder-volumes.service';

/** What systemd really does with the unit is in test/integration/gate.test.ts. */
describe('unit that ends the sessions at a shutdown', () => {
  const written = new Map<string, string>();
  const run: string[] = [];
  let hasSystemd: boolean;
  const files: Partial<Files> = {
    stat: async (path) => {
      expect(path).to.equal('/host/run/systemd/system');
      return hasSystemd
        ? { kind: 'directory', sizeBytes: 0, rdev: undefined, dev: '0:1', inode: 1, mode: 0o755 }
        : undefined;
    },
    readText: async (path) => {
      const text = written.get(path);
      if (text === undefined) throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
      return text;
    },
    mkdir: async () => undefined,
    writeDurably: async (path, text) => void written.set(path, text),
  };
  const commands: Commands = {
    run: async (request: CommandRequest) => {
      run.push([request.file, ...request.args].join(' '));
      return {} as CommandResult;
    },
  };
  const options = { files: files as Files, hostRoot: '/host', iqnPrefix: PREFIX, vgName: 'cinder-volumes' };
  const prepare = () => prepareShutdown({ ...options, commands });

  beforeEach(() => {
    written.clear();
    run.length = 0;
    hasSystemd = true;
  });

  it('is written and loaded once, and started each time', async () => {
    await prepare();
    expect(written.get(PATH)).to.equal(shutdownUnitText(PREFIX));
    expect(run).to.deep.equal([
      'systemctl daemon-reload',
      'systemctl start lvm-iscsi-csi-sessions-cinder-volumes.service',
    ]);
    run.length = 0;
    await prepare();
    expect(run).to.deep.equal(['systemctl start lvm-iscsi-csi-sessions-cinder-volumes.service']);
  });

  it('is not there without systemd', async () => {
    hasSystemd = false;
    await prepare();
    expect([written.size, run]).to.deep.equal([0, []]);
  });

  it('of one volume group leaves that of another alone', async () => {
    await prepare();
    await prepareShutdown({ ...options, commands, iqnPrefix: 'iqn.2020-01.example', vgName: 'fast+1' });
    expect([...written.keys()]).to.deep.equal([PATH, '/host/run/systemd/system/lvm-iscsi-csi-sessions-fast_1.service']);
    expect(written.get(PATH)).to.equal(shutdownUnitText(PREFIX));
  });

  it('silences the witness, then closes the portals, then ends sessions; leaves targets of others alone', () => {
    const stop = /^ExecStop=(.*)$/m.exec(shutdownUnitText(PREFIX))?.[1] ?? '';
    expect(stop.match(/for \w in [^;]*/g)).to.deep.equal([
      `for e in ${PREFIX}:portal-*/tpgt_1/enable`,
      `for p in ${PREFIX}:*/tpgt_1/np/*`,
      `for e in ${PREFIX}:*/tpgt_1/enable`,
    ]);
    expect(stop.match(/echo 0|rmdir/g)).to.deep.equal(['echo 0', 'rmdir', 'echo 0']);
  });

  it('does not keep the controller from starting when it cannot be made', async () => {
    const failing: Commands = { run: () => Promise.reject(new Error('no bus')) };
    await prepareShutdown({ ...options, commands: failing });
    expect(written.has(PATH)).to.equal(true);
  });
});
