import type { Accelerator } from './accel.ts';
import { PREFIX_LENGTH, type Slot } from './slots.ts';

/** Ports for disks that are plugged in after start: a saved state fits any set of disks. */
export const DISK_PORTS = 6;

/** All that decides what a machine's hardware looks like; a saved state fits exactly these values. */
export interface Hardware {
  readonly slot: Slot;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly accelerator: Accelerator;
  /** Further words of the kernel's command line. */
  readonly kernelArguments?: readonly string[];
}

export interface MachineFiles {
  /** qcow2 overlay over the image */
  readonly rootDisk: string;
  readonly kernel: string;
  readonly initrd: string;
  readonly qmpSocket: string;
  readonly pidFile: string;
  readonly serialLog: string;
}

/** How the machine begins: `cold` from its kernel, `restore` from a state saved earlier. Either way it waits for `cont`. */
export type Start = { readonly kind: 'cold' } | { readonly kind: 'restore'; readonly stateFile: string };

export function qemuArguments(hardware: Hardware, files: MachineFiles, start: Start): string[] {
  const { slot, memoryMib, cpus, accelerator } = hardware;
  const args = [
    ['-name', `guest=${slot.name}`],
    ['-machine', 'q35'],
    ...acceleratorArguments(accelerator),
    ['-m', String(memoryMib)],
    ['-smp', String(cpus)],
    ['-display', 'none'],
    ['-nodefaults'],
    ['-no-user-config'],
    // Stopped until everything is plugged in: a disk is there from the guest's first instruction.
    ['-S'],
    ['-rtc', 'base=utc,clock=host'],
    ['-chardev', `file,id=serial0,path=${escapeOption(files.serialLog)},append=on`],
    ['-serial', 'chardev:serial0'],
    ['-qmp', `unix:${escapeOption(files.qmpSocket)},server=on,wait=off`],
    ['-pidfile', files.pidFile],
    ['-device', 'virtio-rng-pci,id=rng0'],
    // A new id at each start tells the guest that it is a copy: it reseeds, and no two copies make the same uuids.
    ['-device', 'vmgenid,guid=auto,id=generation0'],
    // The root disk may be lost with the whole machine; only the VG's disks are kept honest about flushes (disk.ts).
    [
      '-drive',
      `if=none,id=root,format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap,file=${escapeOption(files.rootDisk)}`,
    ],
    ['-device', 'virtio-blk-pci,drive=root,id=root0,serial=root'],
    ...networkArguments('data', slot.data.tap, slot.data.mac),
    ...networkArguments('control', slot.control.tap, slot.control.mac),
    ...Array.from({ length: DISK_PORTS }, (_, index) => [
      '-device',
      `pcie-root-port,id=port${index + 1},chassis=${index + 1},slot=${index + 1}`,
    ]),
    ['-kernel', files.kernel],
    ['-initrd', files.initrd],
    ['-append', [kernelLine(slot), ...(hardware.kernelArguments ?? [])].join(' ')],
    start.kind === 'restore' ? ['-incoming', `exec:cat ${shellQuote(start.stateFile)}`] : [],
  ];
  return args.flat();
}

function acceleratorArguments(accelerator: Accelerator): string[][] {
  if (accelerator === 'kvm') {
    return [
      ['-accel', 'kvm'],
      ['-cpu', 'host'],
    ];
  }
  return [
    // MiB of translated code. What is full is thrown away whole and translated anew: with 256 that came every half minute in
    // a host of the Kubernetes cluster.
    ['-accel', 'tcg,thread=multi,tb-size=1024'],
    // x86-64-v2, which all that runs here is content with. With `max` the guest uses five-level page tables, AVX and SMAP,
    // and each of them costs an emulator: a tenth to a sixth of all processor time, measured with lvm and node.
    ['-cpu', 'Nehalem'],
  ];
}

function networkArguments(name: string, tap: string, mac: string): string[][] {
  return [
    ['-netdev', `tap,id=${name},ifname=${tap},script=no,downscript=no`],
    ['-device', `virtio-net-pci,id=${name}0,netdev=${name},mac=${mac},romfile=`],
  ];
}

export function kernelLine(slot: Slot): string {
  return [
    'root=/dev/vda rw console=ttyS0 quiet loglevel=4 noresume',
    // Each of these is paid for in emulated instructions at boot or at every system call.
    'mitigations=off audit=0 apparmor=0 net.ifnames=0 random.trust_cpu=on',
    // A frozen or starved machine is part of the tests, not a fault to report.
    'nowatchdog rcupdate.rcu_cpu_stall_suppress=1',
    `systemd.hostname=${slot.name} systemd.machine_id=${slot.machineId} systemd.firstboot=off`,
    `lab.iqn=${slot.iqn}`,
    `lab.data=${slot.data.mac},${slot.data.address}/${PREFIX_LENGTH}`,
    `lab.control=${slot.control.mac},${slot.control.address}/${PREFIX_LENGTH}`,
  ].join(' ');
}

/** In QEMU's option lists a comma ends the value; a doubled one stands for itself. */
export function escapeOption(value: string): string {
  return value.replaceAll(',', ',,');
}

export function shellQuote(value: string): string {
  return `'${value.replaceAll("'", "'\\''")}'`;
}
