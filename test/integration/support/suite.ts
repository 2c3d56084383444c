/** One deployment for a test file: made before, checked for leftovers after each test, logs kept when one fails. */
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Lab } from '../../lab/lab.ts';
import { type Deployment, type DeploymentOptions, deploy, startLab } from './deployment.ts';
import { leftovers } from './leftovers.ts';

export interface Suite {
  /** Of the running test. */
  readonly deployment: Deployment;
}

/** Registers mocha's hooks in the enclosing `describe`; `suite.deployment` is there inside tests. */
export function useDeployment(options: DeploymentOptions = {}): Suite {
  let lab: Lab | undefined;
  let deployment: Deployment | undefined;
  before('start the lab and deploy the driver', async function () {
    this.timeout(1_200_000);
    lab = await startLab(options);
    try {
      deployment = await deploy(lab, options);
    } catch (error) {
      await keepLogs(lab, 'deployment');
      throw error;
    }
  });
  afterEach('nothing is left on any host', async function () {
    this.timeout(300_000);
    if (lab === undefined || deployment === undefined) return;
    if (this.currentTest?.state === 'failed') {
      // What a failed test leaves says nothing more; the next one starts on clean hosts.
      await keepLogs(lab, this.currentTest.fullTitle());
      await lab.reset();
      deployment = await deploy(lab, options);
      return;
    }
    const left = await leftovers(deployment);
    if (left.length === 0) return;
    await keepLogs(lab, `leftovers ${this.currentTest?.fullTitle() ?? ''}`);
    await lab.reset();
    deployment = await deploy(lab, options);
    throw new Error(`left behind:\n${left.join('\n')}`);
  });
  after('stop the lab', async function () {
    this.timeout(60_000);
    for (const unit of deployment === undefined ? [] : [deployment.controller, ...deployment.nodes]) unit.close();
    await lab?.stop();
  });
  return {
    get deployment(): Deployment {
      if (deployment === undefined) throw new Error('the deployment is there only inside tests');
      return deployment;
    },
  };
}

async function keepLogs(lab: Lab, title: string): Promise<void> {
  const folder = path.join(
    process.env['TEST_LOGS'] ?? path.join(tmpdir(), 'lvm-iscsi-csi-logs'),
    title.replaceAll(/[^A-Za-z0-9]+/g, '-').slice(0, 120),
  );
  await lab.collectLogs(folder);
  console.log(`      logs of all machines: ${folder}`);
}

/** The n-th node's plugin. */
export function nodeOf(deployment: Deployment, index: number): Deployment['nodes'][number] {
  const node = deployment.nodes[index];
  if (node === undefined) throw new Error(`the deployment has no node ${index}`);
  return node;
}
