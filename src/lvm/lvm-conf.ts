/**
 * lvm.conf as text: reads what `lvmconfig` prints (one setting a line), changes settings, writes it back, so that the
 * host's own settings stay in force except for those that we have to decide.
 */

/** Section → key → value as it is written there (strings with their quotes). */
export type LvmConf = Map<string, Map<string, string>>;

/**
 * @param text output of `lvmconfig --type current`: `section {`, tab `key=value`, `}`. Nested sections (`tags { host { … } }`)
 *   are kept as a value.
 */
export function parseLvmConf(text: string): LvmConf {
  const conf: LvmConf = new Map();
  let section: Map<string, string> | undefined;
  let nested: { name: string; lines: string[]; depth: number } | undefined;
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    const opened = /^([A-Za-z0-9_.+/@-]+)\s*\{$/.exec(line)?.[1];
    if (nested !== undefined) {
      nested.lines.push(line);
      nested.depth += (opened === undefined ? 0 : 1) - (line === '}' ? 1 : 0);
      if (nested.depth > 0) continue;
      section?.set(nested.name, nested.lines.join('\n'));
      nested = undefined;
    } else if (opened !== undefined && section !== undefined) {
      nested = { name: opened, lines: ['{'], depth: 1 };
    } else if (opened !== undefined) {
      section = conf.get(opened) ?? new Map<string, string>();
      conf.set(opened, section);
    } else if (line === '}') {
      if (section === undefined) throw new Error('lvmconfig: a "}" without its section');
      section = undefined;
    } else {
      const [, key, value] = /^([A-Za-z0-9_.+/@-]+)\s*=\s*(.*)$/.exec(line) ?? [];
      if (key === undefined || value === undefined || section === undefined)
        throw new Error(`lvmconfig: line not understood: ${line}`);
      section.set(key, value);
    }
  }
  if (section !== undefined || nested !== undefined) throw new Error('lvmconfig: the last section is not closed');
  return conf;
}

export function formatLvmConf(conf: LvmConf): string {
  let text =
    '# Made by lvm-iscsi-csi for its own LVM commands from the settings of this host; made anew at each start.\n';
  for (const [name, section] of conf) {
    text += `${name} {\n`;
    for (const [key, value] of section) text += value.startsWith('{') ? `\t${key} ${value}\n` : `\t${key}=${value}\n`;
    text += '}\n';
  }
  return text;
}

/** Sets `section/key`; the value as lvm.conf has it. */
export function setSetting(conf: LvmConf, path: string, value: string): void {
  const [sectionName = '', key = ''] = path.split('/');
  const section = conf.get(sectionName) ?? new Map<string, string>();
  conf.set(sectionName, section.set(key, value));
}

export function getSetting(conf: LvmConf, path: string): string | undefined {
  const [sectionName = '', key = ''] = path.split('/');
  return conf.get(sectionName)?.get(key);
}

/** Can a filter pattern name this path exactly? Names with other characters are left out; devices have several. */
export function isFilterable(path: string): boolean {
  return /^[A-Za-z0-9_/:@,=.+-]+$/.test(path);
}

/**
 * A filter that accepts the devices with these names (any of a device's names will do) and no other. `.` and `+` mean
 * something in LVM's patterns; in brackets they are themselves (a backslash would first have to pass lvm.conf's strings).
 */
export function acceptOnly(paths: readonly string[]): string {
  const patterns = paths.map((path) => `"a|^${path.replaceAll(/[.+]/g, '[$&]')}$|"`);
  return `[${[...patterns, '"r|.*|"'].join(',')}]`;
}
