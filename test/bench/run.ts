/**
 * `npm run bench`: times, side by side in one run of the lab, and their ratios. `-- --write` puts them into
 * docs/benchmarks.md. `-- --rounds N` (10 by default and at least).
 *
 * (a) From ControllerPublishVolume to a target that accepts a login, beside Cinder's own tool and beside the floor: the
 *     configfs writes and the one lvchange that nobody can do without.
 * (b) CreateVolume, ControllerPublish, NodeStage and NodePublish, beside the same commands run once each by a shell.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { deploy, startLab } from '../integration/support/deployment.ts';
import { assertNothingLeft } from '../integration/support/leftovers.ts';
import { nodeOf } from '../integration/support/suite.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';
import type { Lab } from '../lab/lab.ts';
import { type Row, table } from './statistics.ts';

const SCRIPTS = path.join(import.meta.dirname, 'scripts');
const DOCUMENT = path.join(import.meta.dirname, '../../docs/benchmarks.md');

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '10' }, write: { type: 'boolean', default: false } },
});
const rounds = Math.max(10, Number(values.rounds));
let lab: Lab | undefined;

async function end(code: number): Promise<never> {
  await lab?.stop();
  process.exit(code);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end(130));

/** A script that prints the milliseconds it took as its last line, measured in the machine itself. */
async function timedScript(machine: Lab['storage'], name: string, args: readonly string[]): Promise<number> {
  const [interpreter, files] = name.endsWith('.py') ? ['python3 -', [name]] : ['bash -s --', ['lio.sh', name]];
  const input = files.map((file) => readFileSync(path.join(SCRIPTS, file), 'utf8')).join('\n');
  const { stdout } = await machine.exec(`${interpreter} ${args.join(' ')}`, { input, timeoutMs: 600_000 });
  const time = Number(stdout.split('\n').at(-1));
  if (!Number.isFinite(time) || time <= 0) throw new Error(`${name} told no time: ${stdout}`);
  return time;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

try {
  lab = await startLab({ nodes: 1, image: { extraPackages: ['cinder-common'] } });
  const { storage } = lab;
  const deployment = await deploy(lab);
  const node = nodeOf(deployment, 0);
  const [publish, floor, cinder, life, shell]: number[][] = [[], [], [], [], []];
  for (let round = 1; round <= rounds; round += 1) {
    // (a) the three in turn, so that noise of this machine meets each of them.
    const volume = await new TestVolume(deployment, {
      name: `bench-a-${round}`,
      kind: 'block',
      sizeBytes: 64 * MIB,
    }).create();
    publish?.push(await timed(() => volume.attach(node)));
    // It does accept: the login itself is not part of the time.
    await volume.stage(node);
    await volume.unstage(node);
    await volume.detach(node);
    await volume.delete();
    floor?.push(await timedScript(storage, 'floor.py', [storage.address, node.machine.iqn]));
    cinder?.push(await timedScript(storage, 'cinder.sh', [storage.address, node.machine.iqn]));
    // (b)
    const whole = new TestVolume(deployment, { name: `bench-b-${round}`, kind: 'ext4', sizeBytes: 256 * MIB });
    life?.push(await timed(() => whole.up(node)));
    await whole.down(node);
    const onStorage = await timedScript(storage, 'shell-storage.sh', ['up', storage.address, node.machine.iqn]);
    const onNode = await timedScript(node.machine, 'shell-node.sh', ['up', storage.address]);
    await timedScript(node.machine, 'shell-node.sh', ['down', storage.address]);
    await timedScript(storage, 'shell-storage.sh', ['down', storage.address, node.machine.iqn]);
    shell?.push(onStorage + onNode);
    console.log(
      `round ${round} of ${rounds}: publish ${publish?.at(-1)?.toFixed(0)} ms, floor ${floor?.at(-1)} ms, cinder-rtstool ${cinder?.at(-1)} ms; whole life ${life?.at(-1)?.toFixed(0)} ms, shell ${shell?.at(-1)} ms`,
    );
  }
  await assertNothingLeft(deployment);
  const tableA: Row[] = [
    { name: 'floor: the configfs writes and one `lvchange --addtag`', times: floor ?? [] },
    { name: 'ControllerPublishVolume', times: publish ?? [] },
    { name: '`cinder-rtstool` create, add-initiator, save', times: cinder ?? [] },
  ];
  const tableB: Row[] = [
    { name: 'the same commands once each, by a shell on each host', times: shell ?? [] },
    { name: 'CreateVolume, ControllerPublish, NodeStage, NodePublish', times: life ?? [] },
  ];
  const text = `(a) To a target that accepts a login:\n\n${table(tableA)}\n\n(b) From nothing to a file system mounted in a pod's folder (256 MiB, ext4):\n\n${table(tableB)}\n`;
  console.log(`\n${text}`);
  if (values.write) {
    const document = readFileSync(DOCUMENT, 'utf8');
    const marks = /(<!-- bench: begin -->\n)[\s\S]*(<!-- bench: end -->)/;
    if (!marks.test(document)) throw new Error('docs/benchmarks.md has no place for the figures');
    writeFileSync(
      DOCUMENT,
      document.replace(marks, (_, begin: string, close: string) => `${begin}\n${text}\n${close}`),
    );
  }
  await end(0);
} catch (error) {
  console.error(error);
  await end(1);
}
