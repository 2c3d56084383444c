import { spawn } from 'node:child_process';
import path from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { addClusterCommands } from '../cluster/cli.ts';
import { LabError } from './errors.ts';
import { Lab } from './lab.ts';
import { createProgress } from './progress.ts';
import { MAX_NODES } from './slots.ts';
import { labsUp } from './state.ts';

/** The developer's own bench: `npm run lab -- COMMAND`. */
const program = new Command('lab')
  .description('Virtual machines with real LVM, LIO and open-iscsi: one storage host and some nodes')
  .option('--name <name>', 'which lab; several can be up at once', 'default')
  .configureHelp({ showGlobalOptions: true })
  // What follows HOST belongs to the command that runs there.
  .enablePositionalOptions();

program
  .command('up')
  .description('start a lab that stays up until `down`')
  .option('--nodes <count>', `how many nodes, 0 to ${MAX_NODES}`, wholeNumber(0, MAX_NODES), 2)
  .option('--memory <MiB>', 'memory of each machine', wholeNumber(256, 65_536), 1024)
  .option('--disk <GiB>', "size of the storage host's disk for the VG (sparse)", wholeNumber(1, 1024), 20)
  .option('--package <name...>', 'further Debian packages in the image')
  .action(async (options: { nodes: number; memory: number; disk: number; package?: string[] }) => {
    const lab = await Lab.start({
      name: labName(),
      nodes: options.nodes,
      node: { memoryMib: options.memory },
      storage: { memoryMib: options.memory, disks: [{ name: 'vg', sizeBytes: options.disk * 2 ** 30 }] },
      image: { extraPackages: options.package ?? [] },
      detached: true,
      progress: createProgress('lab'),
    });
    printMachines(lab);
  });

program
  .command('ssh')
  .description('a shell, as root')
  .argument('<host>', 'storage, node-1, …')
  .action(async (host: string) => {
    const machine = (await Lab.attach(labName())).machine(host);
    await machine.waitForSsh();
    await passThrough([...machine.ssh.clientArguments, '-t', 'lab']);
  });

program
  .command('run')
  .description('run a command, as root; ends with its exit code')
  .argument('<host>', 'storage, node-1, …')
  .argument('<command...>', 'for bash')
  .passThroughOptions()
  .action(async (host: string, command: string[]) => {
    const machine = (await Lab.attach(labName())).machine(host);
    await machine.waitForSsh();
    await passThrough([...machine.ssh.clientArguments, '-T', 'lab', command.join(' ')]);
  });

program
  .command('logs')
  .description('collect logs and the state of LVM, target and initiator of every machine')
  .argument('[folder]', 'where to', 'lab-logs')
  .action(async (folder: string) => {
    const lab = await Lab.attach(labName());
    await createProgress('lab').step(`collecting into ${path.resolve(folder)}`, () => lab.collectLogs(folder));
  });

program
  .command('reset')
  .description('every machine back to its saved state, with blank disks')
  .action(async () => {
    const lab = await Lab.attach(labName());
    await createProgress('lab').step('resetting', () => lab.reset());
  });

program
  .command('down')
  .description('end the lab and remove its files')
  .action(async () => {
    const lab = await Lab.attach(labName());
    await lab.stop();
    console.log(`lab "${lab.name}" is down`);
  });

program
  .command('status')
  .alias('ps')
  .description('every lab that is up')
  .action(async () => {
    const names = await labsUp();
    if (names.length === 0) console.log('no lab is up');
    for (const name of names) {
      // One that is starting, or is just being ended, has no state to show.
      const lab = await Lab.attach(name).catch(() => undefined);
      if (lab) printMachines(lab);
      else console.log(`lab "${name}": starting`);
    }
  });

addClusterCommands(program, labName, wholeNumber);

function labName(): string {
  return program.opts<{ name: string }>().name;
}

function printMachines(lab: Lab): void {
  console.log(`lab "${lab.name}" is up, keeper ${lab.keeper.pid}`);
  for (const machine of lab.machines) {
    console.log(`  ${machine.name.padEnd(8)} ${machine.address.padEnd(12)} ${machine.iqn} ${machine.disks.join(' ')}`);
  }
}

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`a whole number from ${min} to ${max}`);
  };
}

/** Runs ssh on our own terminal and takes over its exit code. */
async function passThrough(args: string[]): Promise<void> {
  const child = spawn('ssh', args, { stdio: 'inherit' });
  process.exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
}

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof LabError)) throw error;
  process.stderr.write(`lab: ${error.message}\n`);
  process.exitCode = 1;
}
