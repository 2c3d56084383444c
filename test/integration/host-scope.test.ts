/**
 * Mutating commands outlive the death of the driver's control group, which is how a pod dies (OOM, force-delete) and
 * how systemd stops a unit: on a real systemd, directly on the host and from namespaces like a pod's.
 */
import path from 'node:path';
import { expect } from 'chai';
import { Lab } from '../lab/lab.ts';
import type { Machine } from '../lab/machine.ts';
import { installBundle } from './support/install-bundle.ts';

const PROBE = '/root/probe.mjs';
/** A privileged pod with hostPID: all namespaces but the PID namespace are its own, the cgroup namespace included. */
const POD = 'unshare --mount --uts --ipc --net --cgroup';
const SLOW =
  'echo $$ > /run/t/begun; cat /proc/self/cgroup > /run/t/cgroup; cat /proc/self/oom_score_adj > /run/t/oom; sleep 4; echo out; echo err >&2; echo yes > /run/t/finished';

interface Result {
  readonly kind: string;
  readonly stdout: string;
  readonly durationMs: number;
}

describe('the scope of mutating commands', function () {
  this.timeout(600_000);
  let lab: Lab;
  let host: Machine;
  /** A name of its own for each start, so that a journal holds nothing of an earlier one. */
  let unit = 'probe-0';
  let starts = 0;

  before(async () => {
    lab = await Lab.start({ nodes: 0 });
    host = lab.storage;
    await installBundle(host, path.join(import.meta.dirname, '../fixtures/system/scope-probe.ts'), PROBE);
  });
  after(() => lab?.stop());
  beforeEach(() => host.exec('rm -rf /run/t; mkdir /run/t'));
  afterEach(async () => {
    await host.exec('rm -f /usr/local/sbin/systemctl');
    await killProbe();
    // Scopes are collected as soon as nothing is in them.
    await host.waitFor("! systemctl list-units --all --plain --no-legend 'lvm-iscsi-csi-*' | grep .", 30_000);
  });

  async function startProbe(mode: 'direct' | 'nsenter', ...scripts: readonly string[]): Promise<void> {
    const quoted = scripts.map((script) => `'${script.replaceAll("'", "'\\''")}'`).join(' ');
    // In a file: systemd would expand every $ of its command line.
    await host.writeFile('/root/probe.sh', `exec ${mode === 'nsenter' ? POD : ''} node ${PROBE} ${mode} ${quoted}\n`);
    unit = `probe-${++starts}`;
    await host.exec(`systemd-run --quiet --collect --unit=${unit} --property=OOMScoreAdjust=900 bash /root/probe.sh`);
  }

  /** SIGKILL to the whole control group. */
  async function killProbe(): Promise<void> {
    await host.exec(`systemctl kill --kill-whom=all --signal=KILL ${unit} 2>/dev/null || :`);
    await host.waitFor(`! systemctl is-active --quiet ${unit}`, 30_000);
  }

  /** The last script has ended. */
  async function waitIdle(): Promise<void> {
    await host.waitFor(`journalctl --boot --unit=${unit} --output=cat | tail -n 1 | grep -q ^IDLE`, 180_000);
  }

  const journal = async (): Promise<string> =>
    (await host.exec(`journalctl --boot --unit=${unit} --output=cat`)).stdout;
  const results = async (): Promise<Result[]> =>
    [...(await journal()).matchAll(/^RESULT (.*)$/gm)].map((match) => JSON.parse(match[1] ?? '') as Result);

  for (const mode of ['direct', 'nsenter'] as const) {
    it(`${mode}: a command outlives the SIGKILL of the whole control group`, async () => {
      await startProbe(mode, SLOW);
      await host.waitFor('test -s /run/t/oom', 60_000);
      await killProbe();
      // The unit is dead and the command is not.
      await host.exec('kill -0 $(cat /run/t/begun) && test ! -e /run/t/finished');
      await host.waitFor('test -e /run/t/finished', 30_000);
      expect((await host.readFile('/run/t/cgroup')).trim()).to.match(/lvm-iscsi-csi-probe-[0-9a-f]{12}\.scope$/);
      expect((await host.readFile('/run/t/oom')).trim()).to.equal('-900');
    });
  }

  it('direct: a stop of the scope waits for the command', async () => {
    await startProbe('direct', SLOW);
    await host.waitFor('test -s /run/t/oom', 60_000);
    await host.exec("systemctl stop --no-block 'lvm-iscsi-csi-*.scope'");
    await host.waitFor('test -e /run/t/finished', 30_000);
  });

  it('a new scope is made when the keeper has died', async () => {
    await startProbe('direct', 'cat /proc/self/cgroup', 'wait /run/t/go', 'cat /proc/self/cgroup');
    await host.waitFor(`journalctl --boot --unit=${unit} --output=cat | grep -q ^RESULT`, 60_000);
    await host.exec('kill -9 $(cat /sys/fs/cgroup/system.slice/lvm-iscsi-csi-*.scope/cgroup.procs)');
    await host.waitFor('! ls -d /sys/fs/cgroup/system.slice/lvm-iscsi-csi-*.scope', 30_000);
    await host.exec('touch /run/t/go');
    await waitIdle();
    const groups = (await results()).map(({ stdout }) => stdout.trim());
    expect(groups[0]).to.match(/lvm-iscsi-csi-probe-.*\.scope$/);
    expect(groups[1])
      .to.match(/lvm-iscsi-csi-probe-.*\.scope$/)
      .and.not.equal(groups[0]);
  });

  it('without a lasting scope each command gets one of its own, and outlives us as well', async () => {
    // The keeper cannot learn its control group: as on a host with cgroup v1.
    await host.writeFile('/usr/local/sbin/systemctl', '#!/bin/sh\nexit 1\n', 0o755);
    await startProbe('direct', SLOW);
    await host.waitFor('test -s /run/t/oom', 60_000);
    await host.exec('rm /usr/local/sbin/systemctl');
    await killProbe();
    await host.waitFor('test -e /run/t/finished', 30_000);
    expect((await host.readFile('/run/t/cgroup')).trim()).to.match(/lvm-iscsi-csi-probe-[0-9a-f]{12}\.scope$/);
    expect(await journal()).to.contain('each gets one of its own by systemd-run');
  });

  it('lvcreate and lvremove, killed from above at any time, leave nothing suspended', async () => {
    await lab.createVolumeGroup('scope-test');
    for (let round = 1; round <= 3; round += 1) {
      const busy =
        'while [ ! -e /run/t/stop ]; do lvcreate -qq -y -Zn -Wn -n a -L 16m scope-test && lvremove -qq -f scope-test/a; done; echo yes > /run/t/finished';
      await host.exec('rm -f /run/t/*');
      await startProbe('nsenter', `touch /run/t/begun; ${busy}`);
      await host.waitFor('test -e /run/t/begun', 60_000);
      await host.exec(`sleep 1.${round}`);
      await killProbe();
      await host.exec('touch /run/t/stop');
      await host.waitFor('test -e /run/t/finished', 60_000);
      const { stdout } = await host.exec(
        'dmsetup info -c --noheadings -o name,suspended; lvs --noheadings -o name scope-test',
      );
      expect(stdout).not.to.contain('Suspended');
    }
    await host.exec('vgremove -qq -f scope-test');
  });

  it('costs little more than the command itself', async () => {
    const scripts = Array.from({ length: 5 }, () => ['read :', ':']).flat();
    for (const mode of ['direct', 'nsenter'] as const) {
      await startProbe(mode, ...scripts);
      await waitIdle();
      const mine = await results();
      const median = (kind: string): number | undefined =>
        mine
          .filter((result) => result.kind === kind)
          .map(({ durationMs }) => durationMs)
          .sort((a, b) => a - b)[2];
      console.log(`      ${mode}: median of 5: read ${median('read')} ms, mutate ${median('mutate')} ms`);
      await killProbe();
    }
    const { stdout } = await host.exec(
      'for i in 1 2 3 4 5; do S=$(date +%s%N); systemd-run --scope --quiet --collect true; E=$(date +%s%N); echo $(( (E-S)/1000000 )); done',
    );
    console.log(`      systemd-run --scope for each: ${stdout.trim().split('\n').join(', ')} ms`);
  });
});
