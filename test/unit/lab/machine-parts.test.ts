import { expect } from 'chai';
import { LabError } from '../../lab/errors.ts';
import { networkScript } from '../../lab/network.ts';
import { parseMemAvailableMib } from '../../lab/prerequisites.ts';
import { createProgress } from '../../lab/progress.ts';
import {
  DISK_PORTS,
  escapeOption,
  type Hardware,
  kernelLine,
  qemuArguments,
  shellQuote,
} from '../../lab/qemu-arguments.ts';
import { MAX_NODES, slot } from '../../lab/slots.ts';
import { labFolder } from '../../lab/state.ts';

const FILES = {
  rootDisk: '/lab,1/root.qcow2',
  kernel: '/image/vmlinuz',
  initrd: '/image/initrd',
  qmpSocket: '/run/lab/node-1.qmp',
  pidFile: '/lab,1/pid',
  serialLog: '/lab,1/serial',
};
const HARDWARE: Hardware = { slot: slot('node-1'), memoryMib: 1024, cpus: 1, accelerator: 'tcg' };

describe('lab slots', () => {
  it('follow from the name alone, and never share an identity', () => {
    const names = ['storage', ...Array.from({ length: MAX_NODES }, (_, index) => `node-${index + 1}`)];
    const slots = names.map(slot);
    for (const key of ['iqn', 'machineId'] as const)
      expect(new Set(slots.map((each) => each[key])).size).to.equal(names.length);
    const interfaces = slots.flatMap((each) => [each.data, each.control]);
    for (const key of ['mac', 'address', 'tap'] as const) {
      expect(new Set(interfaces.map((each) => each[key])).size).to.equal(interfaces.length);
    }
    expect(slot('node-2')).to.deep.equal(slots[2]);
    // IFNAMSIZ is 16 with the final zero byte.
    for (const each of interfaces) expect(each.tap.length).to.be.at.most(15);
    for (const each of slots) expect(each.machineId).to.match(/^[0-9a-f]{32}$/);
  });

  it('refuse other names', () => {
    for (const name of ['node-0', 'node-33', 'node-01', 'node', 'Storage', 'storage ', '']) {
      expect(() => slot(name), name).to.throw(LabError, `machine "${name}"`);
    }
  });
});

describe('lab QEMU arguments', () => {
  const value = (args: string[], option: string): string => args[args.indexOf(option) + 1] ?? '';

  it('start cold, or from a saved state, with the same hardware', () => {
    const cold = qemuArguments(HARDWARE, FILES, { kind: 'cold' });
    const restored = qemuArguments(HARDWARE, FILES, { kind: 'restore', stateFile: "/state's" });
    expect(cold).not.to.include('-incoming');
    expect(restored.slice(0, cold.length)).to.deep.equal(cold);
    expect(restored.slice(cold.length)).to.deep.equal(['-incoming', "exec:cat '/state'\\''s'"]);
    expect(cold).to.include('-S');
  });

  it('are different for another machine', () => {
    const of = (hardware: Partial<Hardware>): string =>
      qemuArguments({ ...HARDWARE, ...hardware }, FILES, { kind: 'cold' }).join(' ');
    const all = [{}, { slot: slot('node-2') }, { memoryMib: 2048 }, { cpus: 2 }, { accelerator: 'kvm' as const }].map(
      of,
    );
    expect(new Set(all).size).to.equal(all.length);
  });

  it('double the commas in paths, and quote for sh', () => {
    expect(escapeOption('/a,b')).to.equal('/a,,b');
    expect(shellQuote("it's")).to.equal("'it'\\''s'");
    expect(qemuArguments(HARDWARE, FILES, { kind: 'cold' }).join(' ')).to.contain('file=/lab,,1/root.qcow2');
  });

  it('have a port for each disk that may be plugged in', () => {
    const ports = qemuArguments(HARDWARE, FILES, { kind: 'cold' }).filter((arg) => arg.startsWith('pcie-root-port'));
    expect(ports).to.have.length(DISK_PORTS);
  });

  it('tell the machine who it is', () => {
    const line = kernelLine(HARDWARE.slot);
    expect(line).to.contain('systemd.hostname=node-1 ');
    expect(line).to.contain('lab.iqn=iqn.1993-08.org.debian:01:lab-node-1 ');
    expect(line).to.contain('lab.data=52:54:00:6c:01:0b,10.77.0.11/24');
    // The kernel cuts off what is longer (COMMAND_LINE_SIZE on x86).
    expect(line.length).to.be.below(2048);
    expect(value(qemuArguments(HARDWARE, FILES, { kind: 'cold' }), '-append')).to.equal(line);
  });
});

describe('lab network', () => {
  it('has two taps for each machine, and addresses that do not change', () => {
    const script = networkScript([slot('storage'), slot('node-1')]);
    expect(script.match(/ip tuntap add/g)).to.have.length(4);
    expect(script).to.equal(networkScript([slot('storage'), slot('node-1')]));
    expect(script).to.contain('ip link add data address 52:54:00:6c:01:01 type bridge');
  });
});

describe('lab small parts', () => {
  it('reads the memory that is available', () => {
    expect(parseMemAvailableMib('MemTotal:  100 kB\nMemAvailable:   2097152 kB\n')).to.equal(2048);
    expect(parseMemAvailableMib('MemTotal:  100 kB\n')).to.equal(undefined);
  });

  it('takes only names that make good folders', () => {
    expect(labFolder('mine-2')).to.match(/\/labs\/mine-2$/);
    for (const name of ['', '..', 'a/b', 'A', '-a', 'a'.repeat(33)])
      expect(() => labFolder(name), name).to.throw(LabError);
  });

  it('shows progress, and passes an error through', async () => {
    let text = '';
    const progress = createProgress('lab', (line) => {
      text += line;
    });
    expect(await progress.step('adding', async () => 1 + 1)).to.equal(2);
    const error = new Error('no');
    expect(await progress.step('failing', () => Promise.reject(error)).catch((caught: unknown) => caught)).to.equal(
      error,
    );
    expect(text).to.match(
      /^\[lab +0\.0 s\] adding\n.*adding: done in 0\.0 s\n.*failing\n.*failing: failed after 0\.0 s\n$/,
    );
  });
});
