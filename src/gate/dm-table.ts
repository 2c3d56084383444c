/** Reads what `dmsetup table -v` prints: state and live table of each device in one process (LVM2's dmsetup.c). */

export interface DmTableLine {
  readonly startSectors: number;
  readonly lengthSectors: number;
  readonly type: string;
  /** Arguments of the target, e.g. "253:4 0" (device number and offset in sectors) of a linear one. */
  readonly args: string;
}

export interface DmDevice {
  readonly name: string;
  /** '' when it has none. */
  readonly uuid: string;
  readonly suspended: boolean;
  readonly readonly: boolean;
  /** A table has been loaded and waits for the next resume. */
  readonly inactiveTable: boolean;
  readonly openCount: number;
  /** "major:minor". */
  readonly deviceNumber: string;
  /** Of the live table; empty when there is none. */
  readonly table: readonly DmTableLine[];
}

/** @throws Error when a block lacks a field: better than to take half an answer for a device. */
export function parseDmDevices(stdout: string): DmDevice[] {
  const blocks: string[][] = [];
  for (const line of stdout.split('\n')) {
    if (/^Name: /.test(line)) blocks.push([]);
    blocks.at(-1)?.push(line);
  }
  return blocks.map(parseBlock);
}

function parseBlock(lines: readonly string[]): DmDevice {
  const fields = new Map<string, string>();
  const table: DmTableLine[] = [];
  for (const line of lines) {
    const entry = /^([0-9]+) ([0-9]+) (\S+) ?(.*)$/.exec(line);
    const field = /^([A-Z][A-Za-z, ]*):\s*(.*)$/.exec(line);
    if (entry !== null) {
      const [, start, length, type = '', args = ''] = entry;
      table.push({ startSectors: Number(start), lengthSectors: Number(length), type, args: args.trim() });
    } else if (field !== null) {
      fields.set(field[1] ?? '', (field[2] ?? '').trim());
    }
  }
  const need = (name: string, shape: RegExp): string => {
    const value = fields.get(name);
    if (value === undefined || !shape.test(value)) {
      throw new Error(
        `dmsetup printed no usable "${name}" for ${fields.get('Name') ?? 'a device'}: ${value ?? '(nothing)'}`,
      );
    }
    return value;
  };
  const state = need('State', /^(ACTIVE|SUSPENDED)/);
  return {
    name: need('Name', /./),
    uuid: fields.get('UUID') ?? '',
    suspended: state.startsWith('SUSPENDED'),
    readonly: state.includes('READ-ONLY'),
    inactiveTable: need('Tables present', /./).includes('INACTIVE'),
    openCount: Number(need('Open count', /^[0-9]+$/)),
    deviceNumber: need('Major, minor', /^[0-9]+, [0-9]+$/).replace(', ', ':'),
    table,
  };
}
