import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { execa } from 'execa';
import { exists } from '../lab/cache.ts';
import { CommandError, LabError } from '../lab/errors.ts';
import { processesIn } from '../lab/keeper.ts';
import { Lab } from '../lab/lab.ts';
import type { Machine } from '../lab/machine.ts';
import { labFolder, labSocketFolder, labsUp } from '../lab/state.ts';

const MIB = 2 ** 20;
const CLI = path.join(import.meta.dirname, '../lab/cli.ts');

describe('lab', function () {
  this.timeout(600_000);

  describe('a storage host and two nodes', () => {
    let lab: Lab;
    let storage: Machine;
    let node: Machine;

    before(async () => {
      lab = await Lab.start({
        nodes: 2,
        storage: {
          disks: [
            { name: 'vg', sizeBytes: 512 * MIB },
            { name: 'second', sizeBytes: 64 * MIB },
          ],
        },
      });
      storage = lab.storage;
      node = lab.machine('node-1');
    });

    after(() => lab?.stop());

    it('gives each machine an identity of its own, and what the driver needs', async () => {
      const seen = new Set<string>();
      for (const machine of lab.machines) {
        const { stdout } = await machine.exec(
          'hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid; grep -c . /etc/iscsi/initiatorname.iscsi',
        );
        const [host, machineId, uuid] = stdout.split('\n');
        expect(host).to.equal(machine.name);
        seen.add(machineId ?? '').add(uuid ?? '');
        expect(await machine.readFile('/etc/iscsi/initiatorname.iscsi')).to.equal(`InitiatorName=${machine.iqn}\n`);
        await machine.exec(
          'systemctl is-active iscsid && mountpoint /sys/kernel/config && test -d /sys/kernel/config/target && lvs && node --version',
        );
      }
      expect(seen.size, 'machine ids and uuids are all different').to.equal(6);
    });

    it('keeps the right time', async () => {
      const [before, { stdout }, after] = [Date.now(), await node.exec('date +%s.%N'), Date.now()];
      expect(Number(stdout) * 1000).to.be.within(before - 1000, after + 1000);
    });

    it('makes other random numbers in each life', async () => {
      const uuid = async (): Promise<string> => (await node.exec('cat /proc/sys/kernel/random/uuid')).stdout;
      const before = await uuid();
      await lab.reset();
      expect(await uuid()).not.to.equal(before);
    });

    it('resets to blank disks', async () => {
      await lab.createVolumeGroup('vg');
      await storage.exec('touch /root/trace');
      await lab.reset();
      expect((await storage.exec('vgs --noheadings; ls /root/trace', { check: false })).stdout).to.equal('');
      expect(storage.disks).to.deep.equal(['/dev/disk/by-id/virtio-vg', '/dev/disk/by-id/virtio-second']);
      for (const [index, bytes] of [512 * MIB, 64 * MIB].entries()) {
        expect((await storage.exec(`blockdev --getsize64 ${storage.disks[index]}`)).stdout).to.equal(String(bytes));
      }
    });

    it('reports how a command ended', async () => {
      const error = await node.exec('echo out; echo err >&2; exit 7').catch((caught: unknown) => caught);
      expect(error).to.be.instanceOf(CommandError);
      expect(error).to.include({ exitCode: 7, stdout: 'out', stderr: 'err', machine: 'node-1' });
      expect((await node.exec('exit 7', { check: false })).exitCode).to.equal(7);
      expect((await node.exec('tr a-z A-Z', { input: 'text' })).stdout).to.equal('TEXT');
      const late = await node.exec('sleep 30', { timeoutMs: 500 }).catch((caught: unknown) => caught);
      expect(late).to.be.instanceOf(CommandError).with.property('exitCode', undefined);
    });

    it('runs a process in the background, and kills all of it', async () => {
      const running = await node.spawn('echo begun; sleep 1000 & sleep 1000');
      await running.waitForLine(/begun/);
      expect(running.running).to.equal(true);
      await running.kill();
      expect((await node.exec("pgrep -f '^sleep 1000'", { check: false })).stdout).to.equal('');
      const ended = await node.spawn('echo one; echo two >&2; exit 4');
      expect(await ended.wait()).to.equal(4);
      expect(ended.lines).to.deep.equal(['one', 'two']);
    });

    it('carries files both ways', async () => {
      const content = `quote ' and \u00e4\n`;
      await node.writeFile("/tmp/a 'folder'/file", content, 0o600);
      expect(await node.readFile("/tmp/a 'folder'/file")).to.equal(content);
      expect((await node.exec(`stat -c %a "/tmp/a 'folder'/file"`)).stdout).to.equal('600');
      await node.copyTo(import.meta.filename, '/tmp/copy.ts');
      await node.copyTo(import.meta.dirname, '/tmp/folder');
      await node.exec('cmp /tmp/copy.ts /tmp/folder/lab.test.ts');
    });

    it('makes a socket of a machine reachable', async () => {
      const local = await node.forwardSocket('/run/echo.sock');
      const script = `require('net').createServer((s) => s.pipe(s)).listen('/run/echo.sock', () => console.log('listening'))`;
      const server = await node.spawn(`node -e "${script}"`);
      await server.waitForLine(/listening/);
      const { createConnection } = await import('node:net');
      const socket = createConnection(local);
      socket.write('hello');
      const [answer] = await once(socket, 'data');
      expect(String(answer)).to.equal('hello');
      socket.destroy();
      await server.kill();
    });

    it('pulls the data cable and leaves ssh alone', async () => {
      const ping = (): Promise<{ exitCode: number }> => node.exec(`ping -c1 -W1 ${storage.address}`, { check: false });
      await node.waitFor(`ping -c1 -W1 ${storage.address}`);
      await node.linkDown();
      expect((await ping()).exitCode).to.equal(1);
      expect((await node.exec('cat /sys/class/net/data0/carrier')).stdout).to.equal('0');
      await node.linkUp();
      await node.waitFor(`ping -c1 -W1 ${storage.address}`);
    });

    it('delays what a machine sends', async () => {
      const rtt = async (): Promise<number> =>
        Number(/time=([\d.]+)/.exec((await node.exec(`ping -c1 ${storage.address}`)).stdout)?.[1]);
      await node.netem('delay 300ms');
      expect(await rtt()).to.be.greaterThan(300);
      await node.netem(undefined);
      // Other work may delay one of them as much.
      expect(Math.min(await rtt(), await rtt(), await rtt())).to.be.lessThan(300);
    });

    it('freezes and thaws', async () => {
      await storage.freeze();
      expect((await node.exec(`ping -c1 -W1 ${storage.address}`, { check: false })).exitCode).to.equal(1);
      await storage.thaw();
      await node.waitFor(`ping -c1 -W1 ${storage.address}`);
      await storage.exec('true');
    });

    it('lets a disk fail', async () => {
      const read = `dd if=${storage.disks[1]} of=/dev/null bs=4k count=1 iflag=direct`;
      await storage.exec(read);
      await storage.failDisk('second');
      expect((await storage.exec(read, { check: false })).stderr).to.contain('Input/output error');
      await storage.failDisk('second', false);
      await storage.exec(read);
    });

    it('reboots in order, and comes back as itself', async () => {
      await node.exec('touch /root/kept');
      await node.reboot();
      await node.exec('ls /root/kept');
      expect(await node.readFile('/etc/iscsi/initiatorname.iscsi')).to.equal(`InitiatorName=${node.iqn}\n`);
      await node.exec(`ping -c1 -W5 ${storage.address}`);
    });

    it('moves data over iSCSI', async () => {
      await lab.reset();
      await storage.exec(
        EXPORT.replaceAll('DEVICE', storage.disks[0] ?? '')
          .replaceAll('PORTAL', storage.address)
          .replaceAll('INITIATOR', node.iqn),
      );
      await node.exec(`set -e
        iscsiadm -m node -T iqn.2010-10.org.openstack:test -p ${storage.address} -o new
        iscsiadm -m node -T iqn.2010-10.org.openstack:test --login
        udevadm settle
        dd if=/dev/urandom of=/root/data bs=1M count=4
        dd if=/root/data of=/dev/sda bs=1M oflag=direct
        iscsiadm -m node -T iqn.2010-10.org.openstack:test --logout`);
      const [written, found] = await Promise.all([
        node.exec('sha256sum < /root/data'),
        storage.exec(`dd if=${storage.disks[0]} bs=1M count=4 iflag=direct | sha256sum`),
      ]);
      expect(found.stdout).to.equal(written.stdout);
    });
  });

  describe('a power cut', () => {
    for (const dropFlushes of [false, true]) {
      it(
        dropFlushes
          ? 'control: loses flushed writes too when flushes are dropped'
          : 'loses what was not flushed, and nothing else',
        async () => {
          const disks = [{ name: 'vg', sizeBytes: 64 * MIB, fill: 0x50, dropFlushes }];
          await using lab = await Lab.start({ nodes: 0, storage: { disks } });
          const { storage } = lab;
          const device = storage.disks[0] ?? '';
          const write = (letter: string, offset: number, flag: string): Promise<unknown> =>
            storage.exec(
              `head -c 1M /dev/zero | tr '\\0' ${letter} | dd of=${device} bs=1M seek=${offset} iflag=fullblock oflag=direct ${flag}`,
            );
          await write('A', 1, 'conv=fsync');
          await write('B', 2, '');
          await storage.powerCut();
          const first = await firstBytes(storage.power.disks[0]?.file ?? '', [MIB, 2 * MIB, 3 * MIB]);
          expect(first).to.deep.equal([dropFlushes ? 'P' : 'A', 'P', 'P']);
          await storage.boot();
          expect((await storage.exec(`dd if=${device} bs=1 skip=1M count=1 iflag=skip_bytes`)).stdout).to.equal(
            dropFlushes ? 'P' : 'A',
          );
        },
      );
    }
  });

  describe('its end', () => {
    it('comes with the death of its parent, kill -9 included, and leaves nothing', async () => {
      const held = await holdLab();
      expect((await processesIn(held.namespace)).length).to.be.greaterThan(3);
      expect(await labsUp()).to.include(held.name);
      held.child.kill('SIGKILL');
      await once(held.child, 'close');
      await until(async () => (await processesIn(held.namespace)).length === 0);
      expect(await labsUp()).not.to.include(held.name);
      await until(() => hasNoFiles(held.name));
    });

    it('comes with Ctrl-C', async () => {
      const held = await holdLab();
      held.child.kill('SIGINT');
      await until(async () => (await processesIn(held.namespace)).length === 0);
      await until(() => hasNoFiles(held.name));
    });

    it('comes with Ctrl-C while `lab up` is starting it, and nothing is in the way of the next', async () => {
      const name = `cut-${process.pid}`;
      const command = [CLI, '--name', name, 'up', '--nodes', '0'];
      const up = execa(process.execPath, command, { reject: false, stdin: 'ignore' });
      await until(async () => (await labsUp()).includes(name));
      up.kill('SIGINT');
      expect((await up).signal).to.equal('SIGINT');
      await until(async () => !(await labsUp()).includes(name));
      await using lab = await Lab.start({ nodes: 0, name });
      expect((await lab.storage.exec('hostname')).stdout).to.equal('storage');
    });

    it('comes with the death of the keeper', async () => {
      await using lab = await Lab.start({ nodes: 0 });
      const namespace = await lab.keeper.namespace();
      process.kill(lab.keeper.pid, 'SIGKILL');
      await until(async () => (await processesIn(namespace)).length === 0);
    });
  });

  it('runs beside another', async () => {
    const [one, two] = await Promise.all([Lab.start({ nodes: 1 }), Lab.start({ nodes: 1 })]);
    try {
      expect(one.name).not.to.equal(two.name);
      await one.storage.exec('touch /root/one');
      expect((await two.storage.exec('ls /root')).stdout).to.equal('');
      const ids = await Promise.all([one, two].map((lab) => lab.storage.exec('cat /proc/sys/kernel/random/uuid')));
      expect(ids[0]?.stdout).not.to.equal(ids[1]?.stdout);
      await one.stop();
      await two.machine('node-1').exec(`ping -c1 -W2 ${two.storage.address}`);
      const again = await Lab.start({ nodes: 0, name: two.name }).catch((caught: unknown) => caught);
      expect(again).to.be.instanceOf(LabError).with.property('message').that.contains('already up');
    } finally {
      await one.stop();
      await two.stop();
    }
  });

  it('by its command line: up, status, run, ssh, reset, logs, down', async () => {
    const name = `cli-${process.pid}`;
    const lab = (...args: string[]) =>
      execa(process.execPath, [CLI, '--name', name, ...args], { reject: false, stdin: 'ignore' });
    const before = await lab('run', 'storage', 'true');
    expect([before.exitCode, before.stderr]).to.deep.equal([1, `lab: no lab "${name}" is up (npm run lab -- up)`]);
    const folder = await mkdtemp(path.join(tmpdir(), 'lab-cli-'));
    try {
      const up = await lab('up', '--nodes', '0', '--disk', '1');
      expect(up.exitCode, up.stderr).to.equal(0);
      expect(up.stdout).to.contain(`lab "${name}" is up`).and.to.contain('/dev/disk/by-id/virtio-vg');
      expect((await lab('status')).stdout).to.contain(`lab "${name}" is up`);
      // A command's own output and exit code are handed through; options after the host are the command's.
      const ran = await lab('run', 'storage', 'echo hello --name x; touch /root/here; exit 7');
      expect([ran.exitCode, ran.stdout]).to.deep.equal([7, 'hello --name x']);
      expect((await lab('ssh', 'storage')).exitCode, 'a shell at the end of its input').to.equal(0);
      expect((await lab('run', 'node-9', 'true')).stderr).to.contain('no machine "node-9"');
      expect((await lab('reset')).exitCode).to.equal(0);
      expect((await lab('run', 'storage', 'ls /root/here')).exitCode).to.equal(2);
      expect((await lab('logs', folder)).exitCode).to.equal(0);
      expect(await readdir(path.join(folder, 'storage'))).to.include.members(['journal.txt', 'lvs.txt', 'serial.log']);
    } finally {
      expect((await lab('down')).stdout).to.equal(`lab "${name}" is down`);
      await rm(folder, { recursive: true });
    }
    expect((await lab('status')).stdout).not.to.contain(name);
  });

  it('says what is missing', async () => {
    const error = await Lab.start({ nodes: 2, node: { memoryMib: 4 * MIB } }).catch((caught: unknown) => caught);
    expect(error)
      .to.be.instanceOf(LabError)
      .with.property('message')
      .that.matches(/need \d+ MiB of memory, \d+ MiB are available/);
  });
});

const EXPORT = `set -e
c=/sys/kernel/config/target b=$c/core/iblock_0/test t=$c/iscsi/iqn.2010-10.org.openstack:test/tpgt_1
mkdir -p $b && echo udev_path=DEVICE > $b/control && echo 1 > $b/enable
mkdir -p $c/iscsi && mkdir -p $t/np/PORTAL:3260 $t/lun/lun_0 && ln -s $b $t/lun/lun_0/x
mkdir -p $t/acls/INITIATOR/lun_0 && ln -s $t/lun/lun_0 $t/acls/INITIATOR/lun_0/x
echo 0 > $t/attrib/authentication && echo 1 > $t/enable
`;

/** A process of its own that holds a lab, as a test run does. */
async function holdLab() {
  const fixture = new URL('../lab/fixtures/hold-lab.ts', import.meta.url).pathname;
  const child = spawn(process.execPath, [fixture], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const line of createInterface({ input: child.stdout })) {
    return { child, ...(JSON.parse(line) as { name: string; keeperPid: number; namespace: string }) };
  }
  throw new Error('the fixture ended before it had a lab');
}

async function hasNoFiles(name: string): Promise<boolean> {
  const there = await Promise.all([labFolder(name), labSocketFolder(name)].map(exists));
  return !there.includes(true);
}

async function firstBytes(file: string, offsets: number[]): Promise<string[]> {
  await using handle = await open(file);
  return Promise.all(
    offsets.map(async (offset) => (await handle.read(Buffer.alloc(1), 0, 1, offset)).buffer.toString('latin1')),
  );
}

async function until(condition: () => Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not true within ${timeoutMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
