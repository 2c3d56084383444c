/** The program as a user starts it: from source, and bundled. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { bundle, GENERATED_DOCS, withGenerated } from '../../../build.ts';
import { runCommandLine } from '../../../src/command-line.ts';
import { flagName, OPTION_KEYS } from '../../../src/config/options.ts';
import { version } from '../../../src/version.ts';
import { removeFolder, temporaryFolder } from '../system/support.ts';

const SOURCE = join(import.meta.dirname, '../../../src/main.ts');

describe('the program', () => {
  let folder: string;
  let bundled: string;

  before(async () => {
    folder = temporaryFolder();
    bundled = join(folder, 'lvm-iscsi-csi.mjs');
    await bundle(bundled);
  });
  after(() => removeFolder(folder));

  function run(entry: string, args: readonly string[], env: Record<string, string> = {}) {
    const path = `${join(process.execPath, '..')}:${process.env['PATH']}`;
    return spawnSync(process.execPath, [entry, ...args], { encoding: 'utf8', env: { PATH: path, ...env } });
  }

  it('is one executable file', () => {
    // Without package.json or node_modules beside it.
    const { stdout, status } = spawnSync(bundled, ['--version'], {
      encoding: 'utf8',
      cwd: '/',
      env: { PATH: `${join(process.execPath, '..')}:${process.env['PATH']}` },
    });
    expect(status).to.equal(0);
    expect(stdout).to.equal(`${version()}\n`);
  });

  it('shows every option with default in the help', () => {
    const main = run(bundled, ['--help']);
    const all = run(bundled, ['all', '--help']);
    expect([main.status, all.status]).to.deep.equal([0, 0]);
    for (const key of OPTION_KEYS) {
      expect(main.stdout).to.match(new RegExp(`^ +--${flagName(key)} <[A-Z]+> .*\\(default: .+\\)$`, 'm'));
      expect(all.stdout).to.contain(`--${flagName(key)} <`);
    }
    expect(run(bundled, ['node', '--help']).stdout).not.to.contain('--volume-group <');
    for (const help of [main.stdout, run(bundled, ['scrub', '--help']).stdout])
      expect(help.replaceAll(/\s+/g, ' ')).to.match(/--again .*counts as blank.*\(default: off\)/);
    expect(all.stdout).not.to.contain('--again');
  });

  it('hands scrub its own flags beside the options', async () => {
    const given: unknown[] = [];
    const actions = {
      run: async () => expect.fail('no role was asked for'),
      scrub: async (flags: object, options: object) => void given.push({ ...flags }, options),
    };
    await runCommandLine(['scrub', '--volume-group', 'vg'], '1', actions);
    await runCommandLine(['scrub', '--again'], '1', actions);
    expect(given).to.deep.equal([{ volumeGroup: 'vg' }, { again: false }, { again: true }, { again: true }]);
  });

  for (const [what, args, env, words] of [
    ['no command', [], {}, 'Usage:'],
    ['an unknown command', ['contoller'], {}, "unknown command 'contoller'"],
    ['an unknown flag', ['node', '--log-levle', 'x'], {}, 'Did you mean --log-level'],
    ['a flag of the other role', ['node', '--volume-group', 'x'], {}, "unknown option '--volume-group'"],
    ['a stray argument', ['node', 'x'], {}, 'too many arguments'],
    ['a bad value', ['node', '--slow-call', '10'], {}, 'option slow-call: "10" (from flag --slow-call) is not allowed'],
    ['an unknown variable', ['node'], { LVM_ISCSI_CSI_FOO: '1' }, 'unknown environment variable LVM_ISCSI_CSI_FOO'],
    [
      'a socket beside other files',
      ['node', '--endpoint', 'unix:///run/lvm-iscsi-csi/csi.sock'],
      {},
      'the folder of "unix:///run/lvm-iscsi-csi/csi.sock" is run-dir as well',
    ],
    ['a missing requirement', ['controller'], {}, 'option portals is required'],
    ['a test hook on a machine that is no lab', ['node'], { LVM_ISCSI_CSI_TEST_STEPS: '/tmp' }, 'no lab machine'],
  ] as const) {
    it(`refuses ${what} with exit code 2`, () => {
      const result = run(SOURCE, args, env);
      expect(result.stderr).to.contain(words);
      expect(result.status).to.equal(2);
    });
  }

  it('refuses a node id that Kubernetes cannot store, with exit code 2, and starts nothing', () => {
    const initiatorNameFile = join(folder, 'initiatorname.iscsi');
    writeFileSync(initiatorNameFile, `InitiatorName=iqn.1993-08.org.debian:01:${'i'.repeat(100)}\n`);
    const socket = join(folder, 'csi/csi.sock');
    for (const [role, ...more] of [['node'], ['all', '--portals=192.0.2.1']] as const) {
      const result = run(SOURCE, [
        role,
        ...more,
        `--node-name=${'n'.repeat(66)}`,
        `--initiator-name-file=${initiatorNameFile}`,
        `--endpoint=unix://${socket}`,
        `--run-dir=${folder}`,
      ]);
      expect(result.stderr)
        .to.contain(`option node-name, with the name in ${initiatorNameFile}`)
        .and.contain('193 bytes')
        .and.contain('at most 192 bytes in all');
      expect(result.status).to.equal(2);
      expect(existsSync(dirname(socket))).to.equal(false);
    }
  });

  for (const { path, render } of GENERATED_DOCS) {
    it(`is documented as it is: ${path.replace(/^.*\/docs/, 'docs')}`, () => {
      const text = readFileSync(path, 'utf8');
      expect(text, 'run: node build.ts --docs').to.equal(withGenerated(text, render()));
    });
  }
});
