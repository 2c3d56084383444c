/**
 * `npm run bench`: times, side by side in one run of the lab, and their ratios. `-- --write` puts them into
 * docs/benchmarks.md. `-- --rounds N` (10 by default and at least).
 *
 * (a) From ControllerPublishVolume to a target that accepts a login, beside Cinder's own tool and beside the floor: the
 *     configfs writes and the one lvchange that nobody can do without. A node logs in to each of the three, and out.
 * (b) CreateVolume, ControllerPublish, NodeStage and NodePublish, beside the same commands run once each by a shell.
 *
 * What is compared works on a volume group of its own: the driver gives up its trust in blank extents as soon as it meets
 * volumes of others, and would zero every new volume from then on.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type Deployment, deploy, startLab } from '../integration/support/deployment.ts';
import type { DriverUnit } from '../integration/support/driver-unit.ts';
import { assertNothingLeft } from '../integration/support/leftovers.ts';
import { nodeOf } from '../integration/support/suite.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';
import type { Lab } from '../lab/lab.ts';
import type { Machine } from '../lab/machine.ts';
import { table } from './statistics.ts';

const SCRIPTS = path.join(import.meta.dirname, 'scripts');
const DOCUMENT = path.join(import.meta.dirname, '../../docs/benchmarks.md');
const MARKS = /(<!-- bench: begin -->\n)[\s\S]*(<!-- bench: end -->)/;
const LEAST_ROUNDS = 10;
const DISK_BYTES = 4 * 1024 ** 3;
/** As in the scripts. */
const OTHERS_VG = 'bench';
const FLOOR_IQN = 'iqn.2010-10.org.bench:floor';
const CINDER_IQN = 'iqn.2010-10.org.bench:cinder';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: String(LEAST_ROUNDS) },
    write: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
let lab: Lab | undefined;

async function end(code: number): Promise<never> {
  await lab?.stop();
  process.exit(code);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end(130));

/** Runs one of the scripts in the machine. @returns what it prints */
async function script(machine: Machine, name: string, args: readonly string[]): Promise<string> {
  const [interpreter, files] = name.endsWith('.py') ? ['python3 -', [name]] : ['bash -s --', ['lio.sh', name]];
  const input = files.map((file) => readFileSync(path.join(SCRIPTS, file), 'utf8')).join('\n');
  return (await machine.exec(`${interpreter} ${args.join(' ')}`, { input, timeoutMs: 600_000 })).stdout;
}

/** A script that prints the milliseconds it took as its last line, measured in the machine itself. */
async function timedScript(machine: Machine, name: string, args: readonly string[]): Promise<number> {
  const printed = await script(machine, name, args);
  const time = Number(printed.split('\n').at(-1));
  if (!Number.isFinite(time) || time <= 0) throw new Error(`${name} told no time: ${printed}`);
  return time;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

/** Milliseconds. */
interface Round {
  readonly floor: number;
  readonly publish: number;
  readonly cinder: number;
  readonly shell: number;
  readonly life: number;
}

/** What is compared takes turns, so that noise of this machine meets each of them. */
async function runRound(deployment: Deployment, round: number): Promise<Round> {
  const { storage } = deployment.lab;
  const node = nodeOf(deployment, 0);
  const publish = await driverTarget(deployment, node, round);
  const floor = await otherTarget(storage, node.machine, 'floor.py', FLOOR_IQN);
  const cinder = await otherTarget(storage, node.machine, 'cinder.sh', CINDER_IQN);
  const life = await driverLife(deployment, node, round);
  const shell = await shellLife(storage, node.machine);
  return { floor, publish, cinder, shell, life };
}

/** (a) The login and all that is cleaned up, here and in what it is compared with, is not part of the time. */
async function driverTarget(deployment: Deployment, node: DriverUnit, round: number): Promise<number> {
  const name = `bench-a-${round}`;
  const volume = await new TestVolume(deployment, { name, kind: 'block', sizeBytes: 64 * MIB }).create();
  const time = await timed(() => volume.attach(node));
  await volume.stage(node);
  await volume.unstage(node);
  await volume.detach(node);
  await volume.delete();
  // It is wiped in the background: whatever is timed next must not meet that.
  await assertNothingLeft(deployment);
  return time;
}

async function otherTarget(storage: Machine, node: Machine, name: string, targetIqn: string): Promise<number> {
  const time = await timedScript(storage, name, ['up', storage.address, node.iqn]);
  await script(node, 'login.sh', [targetIqn, storage.address]);
  await script(storage, name, ['down', storage.address, node.iqn]);
  return time;
}

/** (b) The four calls, without the folders that kubelet makes in between. */
async function driverLife(deployment: Deployment, node: DriverUnit, round: number): Promise<number> {
  const volume = new TestVolume(deployment, { name: `bench-b-${round}`, kind: 'ext4', sizeBytes: 256 * MIB });
  const plugin = await node.client();
  const onController = await timed(async () => {
    await volume.create();
    await volume.attach(node);
  });
  await node.machine.exec(`mkdir -p '${volume.stagingPath}' "$(dirname '${volume.targetPath()}')"`);
  const onNode = await timed(async () => {
    await plugin.call('Node', 'NodeStageVolume', volume.stageRequest(node));
    await plugin.call('Node', 'NodePublishVolume', volume.publishRequest());
  });
  await volume.down(node);
  await assertNothingLeft(deployment);
  return onController + onNode;
}

async function shellLife(storage: Machine, node: Machine): Promise<number> {
  const onStorage = await timedScript(storage, 'shell-storage.sh', ['up', storage.address, node.iqn]);
  const onNode = await timedScript(node, 'shell-node.sh', ['up', storage.address]);
  await script(node, 'shell-node.sh', ['down', storage.address]);
  await script(storage, 'shell-storage.sh', ['down', storage.address, node.iqn]);
  return onStorage + onNode;
}

/** What the figures are of: kind and number of processors, versions; no names of this machine. */
async function conditions(storage: Machine): Promise<string> {
  const { accelerator, cpus: guestCpus, memoryMib } = storage.power.hardware;
  const { stdout } = await storage.exec(
    `uname -r; lvm version | sed -n 's/.*LVM version: *\\([^ ]*\\).*/\\1/p'; dpkg-query -Wf '\${Version}' cinder-common`,
  );
  const [kernel, lvm, cinder] = stdout.split('\n');
  const host = cpus();
  const how = accelerator === 'kvm' ? 'under KVM' : 'in software emulation (QEMU TCG)';
  return (
    `Measured on ${new Date().toISOString().slice(0, 10)}, ${rounds} rounds after one that does not count, on one storage ` +
    `host and one node, each with ${guestCpus} processor(s) and ${memoryMib} MiB, ${how} on ${host.length} × ` +
    `${host[0]?.model.trim() ?? 'unknown'}. Linux ${kernel}, LVM ${lvm}, cinder-common ${cinder}. Each target of (a) ` +
    'accepted a login in each round.'
  );
}

function report(results: readonly Round[], measuredOn: string): string {
  const row = (name: string, key: keyof Round) => ({ name, times: results.map((result) => result[key]) });
  const toTarget = table([
    row('floor: the configfs writes and one `lvchange --addtag`', 'floor'),
    row('ControllerPublishVolume', 'publish'),
    row('`cinder-rtstool` create, add-initiator, save', 'cinder'),
  ]);
  const toPod = table([
    row('the same commands once each, by a shell on each host', 'shell'),
    row('CreateVolume, ControllerPublish, NodeStage, NodePublish', 'life'),
  ]);
  return `${measuredOn}

(a) To a target that accepts a login:

${toTarget}

(b) From nothing to a file system mounted in a pod's folder (256 MiB, ext4):

${toPod}
`;
}

try {
  if (!Number.isInteger(rounds) || rounds < LEAST_ROUNDS)
    throw new Error(`--rounds ${values.rounds}: a number, at least ${LEAST_ROUNDS}`);
  const document = readFileSync(DOCUMENT, 'utf8');
  if (values.write && !MARKS.test(document)) throw new Error('docs/benchmarks.md has no place for the figures');
  const disks = ['vg', OTHERS_VG].map((name) => ({ name, direct: true, sizeBytes: DISK_BYTES }));
  lab = await startLab({ nodes: 1, image: { extraPackages: ['cinder-common'] }, storage: { disks } });
  const { storage } = lab;
  const deployment = await deploy(lab);
  await storage.exec(`vgcreate --metadatasize 64m ${OTHERS_VG} ${storage.disks[1]}`);
  const results: Round[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const result = await runRound(deployment, round);
    // The first one meets cold caches and modules that are loaded once.
    if (round > 0) results.push(result);
    const times = Object.entries(result).map(([name, time]: [string, number]) => `${name} ${time.toFixed(0)} ms`);
    console.log(`round ${round} of ${rounds}: ${times.join(', ')}`);
  }
  const { stdout: left } = await storage.exec(`lvs --noheadings -o lv_name ${OTHERS_VG}`);
  if (left !== '') throw new Error(`left behind in ${OTHERS_VG}: ${left}`);
  const text = report(results, await conditions(storage));
  console.log(`\n${text}`);
  if (values.write) {
    const written = document.replace(MARKS, (_, begin: string, close: string) => `${begin}\n${text}\n${close}`);
    writeFileSync(DOCUMENT, written);
    console.log('written to docs/benchmarks.md');
  }
  await end(0);
} catch (error) {
  console.error(error);
  const folder = path.join(process.env['TEST_LOGS'] ?? path.join(tmpdir(), 'lvm-iscsi-csi-logs'), 'bench');
  if (lab !== undefined) {
    await lab.collectLogs(folder);
    console.error(`logs of all machines: ${folder}`);
  }
  await end(1);
}
