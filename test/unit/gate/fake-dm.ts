/**
 * A fake of device-mapper for decisions and error paths: dmsetup's commands on a table in memory, and the files that
 * the gate adapter looks at. What the kernel really does is in test/integration/target.test.ts.
 */
import { CommandError, type CommandRequest, type CommandResult, type Commands } from '../../../src/system/commands.ts';
import type { FileStat, Files } from '../../../src/system/files.ts';

export interface FakeDevice {
  uuid: string;
  table: string | undefined;
  inactive: string | undefined;
  suspended: boolean;
  openCount: number;
}

const BACKING = '253:0';

export class FakeDm implements Commands {
  readonly devices = new Map<string, FakeDevice>();
  /** Mutating commands, as "create gate-a". */
  readonly changes: string[] = [];
  readonly lvPath = '/dev/vg/volume-a';
  lvExists = true;
  /** Answers before the command is looked at. */
  before: (change: string) => Promise<void> = async () => undefined;

  add(name: string, device: Partial<FakeDevice> = {}): FakeDevice {
    const full = {
      uuid: `LVMISCSICSI-${name}`,
      table: `0 8 linear ${BACKING} 0`,
      inactive: undefined,
      suspended: false,
      openCount: 0,
      ...device,
    };
    this.devices.set(name, full);
    return full;
  }

  async run(request: CommandRequest): Promise<CommandResult> {
    const args = request.args.filter((argument) => argument !== '--noudevsync');
    const [verb = '', ...rest] = args;
    const name = verb === 'table' ? rest[1] : rest[0];
    if (request.kind === 'mutate') {
      this.changes.push(`${verb} ${name}`);
      await this.before(`${verb} ${name}`);
    }
    const stdout = this.#perform(verb, name, rest);
    return { command: 'dmsetup', exitCode: 0, stdout, stderr: '', durationMs: 0 };
  }

  #perform(verb: string, name: string | undefined, rest: readonly string[]): string {
    const after = (option: string): string => (rest[rest.indexOf(option) + 1] ?? '').replace(this.lvPath, BACKING);
    if (verb === 'table' && name === undefined) return [...this.devices].map(([one, dev]) => print(one, dev)).join('');
    if (verb === 'create') {
      const uuid = after('--uuid');
      const taken = this.devices.has(name ?? '') || [...this.devices.values()].some((device) => device.uuid === uuid);
      if (taken) throw dmFailure('create ioctl failed: Device or resource busy');
      this.add(name ?? '', { uuid, table: after('--table') });
      return '';
    }
    const device = this.devices.get(name ?? '');
    if (device === undefined) throw dmFailure(`${verb} ioctl on ${name} failed: No such device or address`);
    switch (verb) {
      case 'table':
        return print(name ?? '', device);
      case 'reload':
        device.inactive = after('--table');
        return '';
      case 'clear':
        device.inactive = undefined;
        return '';
      case 'resume':
        device.table = device.inactive ?? device.table;
        device.inactive = undefined;
        device.suspended = false;
        return '';
      case 'wipe_table':
        device.table = '0 8 error';
        device.suspended = false;
        return '';
      case 'remove':
        if (device.openCount > 0) throw dmFailure('remove ioctl failed: Device or resource busy');
        this.devices.delete(name ?? '');
        return '';
      default:
        return '';
    }
  }

  /** Only what gates ask for. */
  files(): Files {
    const fake: Partial<Files> = {
      stat: async (path) => {
        if (path === this.lvPath) return this.lvExists ? blockDevice(BACKING) : undefined;
        const index = [...this.devices.keys()].indexOf(path.replace('/dev/mapper/', ''));
        return index < 0 ? undefined : blockDevice(`254:${index}`);
      },
      readText: async (path) => {
        if (path === `/sys/dev/block/${BACKING}/dm/uuid`) return 'LVM-vgvgvglvlvlv\n';
        return `${[...this.devices.values()][Number(/254:([0-9]+)/.exec(path)?.[1])]?.uuid}\n`;
      },
      readdir: async (path) => {
        const device = [...this.devices.values()][Number(/254:([0-9]+)/.exec(path)?.[1])];
        return device?.table?.includes('linear') === true ? ['dm-0'] : [];
      },
    };
    return fake as Files;
  }
}

function print(name: string, device: FakeDevice): string {
  const present = [device.table && 'LIVE', device.inactive && 'INACTIVE'].filter(Boolean).join(' & ') || 'None';
  return `Name:              ${name}
State:             ${device.suspended ? 'SUSPENDED' : 'ACTIVE'}
Tables present:    ${present}
Open count:        ${device.openCount}
Major, minor:      254, 0
UUID: ${device.uuid}

${device.table ?? ''}

`;
}

function blockDevice(rdev: string): FileStat {
  return { kind: 'block', sizeBytes: 0, rdev, dev: '0:5', inode: 1, mode: 0o660 };
}

export function dmFailure(stderr: string): CommandError {
  return new CommandError({ command: 'dmsetup', shortMessage: 'dmsetup failed', exitCode: 1, stderr, durationMs: 0 });
}
