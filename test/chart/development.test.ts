/** The development mode's script, over stand-ins for the host's LVM and loop devices. */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { render } from '../support/manifests.ts';

describe('the development mode', () => {
  let command: readonly string[];
  let folder: string;
  let file: string;

  before(async () => {
    const rendered = await render({ developmentMode: { enabled: true, size: '20Gi' } });
    command = rendered.pod('controller').initContainers?.[0]?.command ?? [];
  });
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'development-'));
    file = path.join(folder, 'state', 'volumes.img');
    // What is called is noted; which group is on which device, and what is attached, stands in files.
    program(
      'vgs',
      `case "$*" in *pv_name*) sed -n "s|^$4 |  |p" ${folder}/groups ;; *) sed 's|^|  |; s| [^ ]*$||' ${folder}/groups ;; esac`,
    );
    program(
      'losetup',
      `case "$*" in *--associated*) cat ${folder}/loops ;; *) echo /dev/loop7 | tee ${folder}/loops ;; esac`,
    );
    program('vgcreate', `echo "$3 $4" >> ${folder}/groups`);
    program('modprobe', 'exit 1');
    state('groups', '');
    state('loops', '');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const state = (name: string, text: string): void => writeFileSync(path.join(folder, name), text);
  const calls = (): string[] => readFileSync(path.join(folder, 'calls'), 'utf8').trim().split('\n');
  function program(name: string, script: string): void {
    const target = path.join(folder, name);
    writeFileSync(target, `#!/bin/sh\necho "${name} $*" >> ${folder}/calls\n${script}\n`);
    chmodSync(target, 0o755);
  }

  async function run() {
    const begin = command.indexOf('sh');
    const script = (command[begin + 2] ?? '').replace(/PATH=\S+/, `PATH=${folder}:/usr/bin:/bin`);
    const [name = '', vg = '', size = ''] = command.slice(begin + 3);
    return await execa('sh', ['-c', script, name, vg, size, file], { reject: false, all: true });
  }

  it("runs in the host's namespaces, and only when it is switched on", async () => {
    expect(command.slice(0, 8)).to.deep.equal([
      'nsenter',
      '--target=1',
      '--mount',
      '--uts',
      '--ipc',
      '--net',
      '--pid',
      '--',
    ]);
    const container = (await render()).pod('controller');
    expect(container.initContainers).to.equal(undefined);
  });

  it('makes the file and the volume group where there are none', async () => {
    const { exitCode, all } = await run();
    expect(exitCode, all).to.equal(0);
    expect(all).to.include('volume group cinder-volumes of 20G made on /dev/loop7');
    const { size, blocks, mode } = statSync(file);
    expect(size).to.equal(20 * 1024 ** 3);
    expect(blocks, 'sparse').to.equal(0);
    expect(mode & 0o777).to.equal(0o600);
    expect(calls()).to.include('vgcreate --metadatasize 16m cinder-volumes /dev/loop7');
  });

  it('changes nothing the second time, and attaches the file again after a boot', async () => {
    await run();
    state('calls', '');
    expect((await run()).all).to.include('is there, on /dev/loop7');
    expect(calls().join('\n')).to.not.match(/vgcreate|--find/);

    state('loops', '');
    state('calls', '');
    expect((await run()).all).to.include('is there, on /dev/loop7');
    expect(calls()).to.include(`losetup --find --show ${file}`);
    expect(calls().join('\n')).to.not.include('vgcreate');
  });

  it('goes on where it was interrupted, before the volume group was made', async () => {
    await run();
    state('groups', '');
    expect((await run()).exitCode).to.equal(0);
    expect(calls().filter((call) => call.startsWith('vgcreate'))).to.have.lengthOf(2);
  });

  it('refuses the name of a real volume group, and makes nothing', async () => {
    state('groups', 'cinder-volumes /dev/sdb\n');
    const { exitCode, all } = await run();
    expect(exitCode).to.equal(1);
    expect(all).to.include('volume group cinder-volumes is there already, on /dev/sdb: it is real');
    expect(existsSync(file)).to.equal(false);
    expect(calls().join('\n')).to.not.match(/vgcreate|losetup/);
  });

  it('does not mind other volume groups, also of a name that begins alike', async () => {
    state('groups', 'cinder-volumes-2 /dev/sdb\nsystem /dev/sda3\n');
    expect((await run()).exitCode).to.equal(0);
  });

  it('names the package that is missing', async () => {
    rmSync(path.join(folder, 'vgs'));
    const { exitCode, all } = await run();
    expect(exitCode).to.equal(1);
    expect(all).to.include('install package lvm2');
  });

  it('takes nothing over when it cannot tell whose the volume group is', async () => {
    state('groups', 'cinder-volumes /dev/loop7\n');
    program('vgs', `case "$*" in *pv_name*) exit 5 ;; *) echo "  cinder-volumes" ;; esac`);
    const { exitCode, all } = await run();
    expect(exitCode).to.equal(1);
    expect(all).to.include('the disks of volume group cinder-volumes cannot be told');
  });

  it('makes nothing when it cannot tell what is there', async () => {
    program('vgs', 'exit 5');
    const { exitCode, all } = await run();
    expect(exitCode).to.equal(1);
    expect(all).to.include('vgs failed');
    expect(existsSync(file)).to.equal(false);
  });
});
