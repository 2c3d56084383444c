/** The command line: its commands and flags come from the option table; what they do is handed in. */
import { Command, CommanderError, Option } from 'commander';
import {
  defaultText,
  flagName,
  OPTION_KEYS,
  OPTIONS,
  type OptionSpec,
  type Section,
  variableName,
} from './config/options.ts';
import { suggest } from './config/suggest.ts';
import type { Role } from './config/types.ts';

export type Flags = Readonly<Record<string, unknown>>;

/** Of this one run, so flags only: in a file or the environment they would be forgotten there. */
export interface ScrubFlags {
  readonly again: boolean;
}

export interface Actions {
  run(role: Role, flags: Flags): Promise<void>;
  scrub(flags: Flags, options: ScrubFlags): Promise<void>;
}

/** Wrong use of the command line (exit code 2), or help and version asked for (exit code 0). Already printed. */
export class CommandLineExit extends Error {
  override readonly name = 'CommandLineExit';
  readonly exitCode: number;
  constructor(exitCode: number, cause: unknown) {
    super('the command line has been answered', { cause });
    this.exitCode = exitCode;
  }
}

const GROUPS: Readonly<Record<Section, string>> = {
  common: 'Options:',
  controller: 'Controller options:',
  node: 'Node options:',
};

const ROLES: readonly { role: Role; sections: readonly Section[]; summary: string }[] = [
  {
    role: 'controller',
    sections: ['common', 'controller'],
    summary: 'serve CSI Identity and Controller, on the host with the volume group',
  },
  {
    role: 'node',
    sections: ['common', 'node'],
    summary: 'serve CSI Identity and Node, on every host that mounts volumes',
  },
  { role: 'all', sections: ['common', 'controller', 'node'], summary: 'both in one process, for a single machine' },
];

/** @throws CommandLineExit; and whatever the action throws */
export async function runCommandLine(argv: readonly string[], version: string, actions: Actions): Promise<void> {
  const program = new Command('lvm-iscsi-csi')
    .description('Kubernetes CSI driver: LVM logical volumes exported over iSCSI through the kernel’s LIO target.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help; each command has its own')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(withSuggestion(text)) })
    .showHelpAfterError('(--help lists commands and options)')
    .addHelpText('after', () => `\n${PRECEDENCE}\n\n${allOptions()}`);
  for (const { role, sections, summary } of ROLES) {
    addCommand(program, role, sections, summary).action(async (flags: Flags) => await actions.run(role, flags));
  }
  addCommand(
    program,
    'scrub',
    ['common', 'controller'],
    'zero the volume group’s free space once, so that new volumes need not be zeroed one by one',
  )
    .addOption(new Option('--again', AGAIN_HELP).helpGroup(SCRUB_GROUP))
    .action(async (flags: Flags) => await actions.scrub(flags, { again: flags['again'] === true }));
  try {
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) throw new CommandLineExit(error.exitCode === 0 ? 0 : 2, error);
    throw error;
  }
}

/** Commander looks for a similar option itself, but takes the value for a part of the name. */
function withSuggestion(text: string): string {
  const name = /^error: unknown option '--([^=']+)=/.exec(text)?.[1];
  const similar = name === undefined ? undefined : suggest(name, OPTION_KEYS.map(flagName));
  return similar === undefined ? text : `${text}(Did you mean --${similar}?)\n`;
}

const PRECEDENCE =
  'Every option can also be an environment variable (--volume-group: LVM_ISCSI_CSI_VOLUME_GROUP) or a key of the\n' +
  'YAML file (volumeGroup). A flag goes before the environment, that before the file, that before the default.';

const SCRUB_GROUP = 'Scrub options (flags only):';
const AGAIN_HELP =
  'zero the free space although it counts as blank, after something that the driver cannot see (see docs/operations.md) (default: off)';

function addCommand(program: Command, name: string, sections: readonly Section[], summary: string): Command {
  const command = program
    .command(name)
    .description(summary)
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', `\n${PRECEDENCE}`)
    // Settings are inherited from the program only when the command is made by it, as here: exitOverride, showHelpAfterError.
    .addOption(new Option('--config <PATH>', configHelp()).helpGroup(GROUPS.common));
  for (const key of OPTION_KEYS) {
    const spec: OptionSpec<unknown> = OPTIONS[key];
    if (!sections.includes(spec.section)) continue;
    const description = `${spec.description}; ${spec.kind.allowed} (default: ${defaultText(key)})`;
    command.addOption(
      new Option(`--${flagName(key)} <${spec.placeholder}>`, description).helpGroup(GROUPS[spec.section]),
    );
  }
  return command;
}

function configHelp(): string {
  return `YAML file with options (environment: ${variableName('config')})`;
}

/** The main help's list: every option with its default, at a glance. */
function allOptions(): string {
  const lines: string[] = [];
  for (const section of Object.keys(GROUPS) as Section[]) {
    lines.push(section === 'common' ? 'Options of all commands:' : GROUPS[section]);
    if (section === 'common') lines.push(row('--config <PATH>', configHelp()));
    for (const key of OPTION_KEYS) {
      const spec: OptionSpec<unknown> = OPTIONS[key];
      if (spec.section !== section) continue;
      lines.push(row(`--${flagName(key)} <${spec.placeholder}>`, `${spec.description} (default: ${defaultText(key)})`));
    }
    lines.push('');
  }
  lines.push(SCRUB_GROUP, row('--again', AGAIN_HELP), '');
  return lines.join('\n');
}

const COLUMN = 34;

function row(flag: string, text: string): string {
  return `  ${flag.padEnd(COLUMN)}${text}`;
}
