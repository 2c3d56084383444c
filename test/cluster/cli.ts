/** `npm run lab -- cluster …`: a Kubernetes cluster in the lab, for the developer's own hands. */
import type { Command } from 'commander';
import { createProgress } from '../lab/progress.ts';
import { MAX_NODES } from '../lab/slots.ts';
import { Cluster } from './cluster.ts';

/**
 * @param labName of the lab that the command is for
 * @param wholeNumber makes a parser of option values
 */
export function addClusterCommands(
  program: Command,
  labName: () => string,
  wholeNumber: (min: number, max: number) => (text: string) => number,
): void {
  const cluster = program
    .command('cluster')
    .description('a Kubernetes cluster in the lab: kubelets on its machines, the control plane on this one')
    .enablePositionalOptions();

  cluster
    .command('up')
    .description('start a lab with a cluster that stays up until `down`; the driver image is loaded, nothing installed')
    .option('--nodes <count>', `workers beside the storage host, 1 to ${MAX_NODES}`, wholeNumber(1, MAX_NODES), 2)
    .action(async ({ nodes }: { nodes: number }) => {
      await Cluster.start({ name: labName(), nodes, detached: true, progress: createProgress('cluster') });
      console.log(`cluster "${labName()}" is up: npm run lab -- cluster kubectl get nodes`);
    });

  cluster
    .command('load')
    .description('build the driver image from this folder, and load it on every machine')
    .action(async () => {
      const progress = createProgress('cluster');
      const up = await Cluster.attach(labName(), progress);
      await up.loadDriver(progress);
    });

  for (const name of ['kubectl', 'helm']) {
    cluster
      .command(name)
      .description(`${name}, as an administrator of the cluster`)
      .argument('[arguments...]')
      .allowUnknownOption()
      .helpOption(false)
      .passThroughOptions()
      .action(async (args: string[]) => {
        const up = await Cluster.attach(labName(), createProgress('cluster'));
        process.exitCode = await up.terminal(name, args);
      });
  }

  cluster
    .command('shell')
    .description('a shell of this machine in the network of the lab, with kubectl and helm for the cluster')
    .action(async () => {
      const up = await Cluster.attach(labName(), createProgress('cluster'));
      process.exitCode = await up.terminal(process.env['SHELL'] ?? 'bash', []);
    });
}
