/**
 * `npm run test:sanity`: csi-sanity against the driver in the lab, the controller on the storage host, the node plugin
 * on another machine. `--all`: every combination; `--combination NAME`: that one; `--focus REGEX`: some specs only;
 * `--fake`: against the FAKE plugins in memory on this machine (the wire alone, seconds). Without `--focus` every spec
 * must run, but for those that combinations.ts names. Ends with `N passed, N failed, N skipped`.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { ATTACH_LIMIT, COMBINATIONS, type Combination, DEFAULT_COMBINATIONS, SPECS } from './combinations.ts';
import { addSkips, differences } from './expected.ts';
import { parseReport, type Spec } from './junit.ts';
import { fakeTarget, labTarget, type Target } from './targets.ts';
import { csiSanity, VERSION } from './tool.ts';

/** Each command is a login to a machine under software emulation. */
const PATH_COMMAND_TIMEOUT = '60s';

const { values: flags } = parseArgs({
  options: {
    all: { type: 'boolean', default: false },
    combination: { type: 'string', multiple: true },
    focus: { type: 'string' },
    fake: { type: 'boolean', default: false },
  },
});

function chosen(): readonly Combination[] {
  if (flags.all) return COMBINATIONS;
  const names = flags.combination ?? DEFAULT_COMBINATIONS;
  return names.map((name) => {
    const found = COMBINATIONS.find((combination) => combination.name === name);
    if (found !== undefined) return found;
    throw new Error(`no combination "${name}"; there are ${COMBINATIONS.map((each) => each.name).join(', ')}`);
  });
}

async function runCombination(
  program: string,
  combination: Combination,
  target: Target,
  scratch: string,
): Promise<Spec[]> {
  const { controllerSocket, nodeSocket, paths, mountFolder, stagingFolder } = await target.start(combination);
  const report = path.join(scratch, `${combination.name}.xml`);
  const parameters = path.join(scratch, `${combination.name}.yaml`);
  await writeFile(parameters, JSON.stringify(combination.parameters));
  const pathCommands =
    paths === undefined
      ? []
      : [
          ...['createmountpathcmd', 'createstagingpathcmd'].map((flag) => `-csi.${flag}=${paths.create}`),
          ...['removemountpathcmd', 'removestagingpathcmd'].map((flag) => `-csi.${flag}=${paths.remove}`),
          `-csi.checkpathcmd=${paths.check}`,
          ...['create', 'remove', 'check'].map((verb) => `-csi.${verb}pathcmdtimeout=${PATH_COMMAND_TIMEOUT}`),
        ];
  const result = await execa(
    program,
    [
      `-csi.endpoint=unix://${nodeSocket}`,
      `-csi.controllerendpoint=unix://${controllerSocket}`,
      `-csi.mountdir=${mountFolder}`,
      `-csi.stagingdir=${stagingFolder}`,
      `-csi.testvolumeaccesstype=${combination.accessType}`,
      `-csi.testvolumesize=${combination.volumeSizeBytes}`,
      `-csi.testvolumeexpandsize=${combination.expandedSizeBytes}`,
      `-csi.testvolumeparameters=${parameters}`,
      '-csi.testnodevolumeattachlimit',
      ...pathCommands,
      `-ginkgo.junit-report=${report}`,
      '-ginkgo.no-color',
      // The default, one hour, is enough here and too little on a slower machine.
      '-ginkgo.timeout=3h',
      ...(flags.focus === undefined ? [] : [`-ginkgo.focus=${flags.focus}`]),
    ],
    { stdio: ['ignore', 'inherit', 'inherit'], cwd: scratch, reject: false },
  );
  const specs = parseReport(await readFile(report, 'utf8'));
  const failed = specs.some((spec) => spec.outcome === 'failed');
  const surplus: Spec[] = [];
  if (result.exitCode !== 0 && !failed) {
    const reason = `csi-sanity ended with exit code ${result.exitCode ?? result.signal}, and its report has no failure`;
    surplus.push({ name: 'csi-sanity', outcome: 'failed', reason, seconds: 0 });
  }
  if (flags.focus === undefined) {
    const found = differences(specs, { specs: SPECS, skips: addSkips(combination.skips, target.skips) });
    if (found.length > 0) {
      const reason = `${found.join('\n')}\n(expected: test/sanity/combinations.ts)`;
      surplus.push({ name: 'every spec runs, but for those that are known', outcome: 'failed', reason, seconds: 0 });
    }
  }
  const left = await target.leftovers();
  if (left.length > 0) {
    const reason = `left behind:\n${left.join('\n')}`;
    surplus.push({ name: 'nothing is left on any host', outcome: 'failed', reason, seconds: 0 });
  }
  const all = [...specs, ...surplus];
  if (all.some((spec) => spec.outcome === 'failed')) await target.keepLogs(combination.name);
  return all;
}

function print(combination: Combination, specs: readonly Spec[], seconds: number): void {
  const count = (outcome: Spec['outcome']) => specs.filter((spec) => spec.outcome === outcome).length;
  console.log(
    `\n--- ${combination.name} (${combination.what}), csi-sanity ${VERSION}: ${specs.length} specs, ${seconds.toFixed(0)} s`,
  );
  for (const spec of specs.filter(({ outcome }) => outcome === 'skipped')) {
    console.log(`skipped: ${spec.name}: ${spec.reason}`);
  }
  for (const spec of specs.filter(({ outcome }) => outcome === 'failed')) {
    console.log(`FAILED:  ${spec.name}\n${spec.reason.replace(/^/gm, '         ')}`);
  }
  console.log(`${combination.name}: ${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`);
}

const counts = { passed: 0, failed: 0, skipped: 0 };
const failures: { name: string; reason: string }[] = [];
const scratch = await mkdtemp(path.join(tmpdir(), 'csi-sanity-'));
let target: Target | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    console.error(`\n${signal}: stopping the lab`);
    // The machines die with this process in any case; this is the orderly way, as long as it does not hang.
    setTimeout(() => process.exit(130), 15_000).unref();
    void Promise.allSettled([target?.stop(), rm(scratch, { recursive: true, force: true })]).then(() =>
      process.exit(130),
    );
  });
}
try {
  const combinations = chosen();
  const program = await csiSanity();
  target = flags.fake ? await fakeTarget(scratch) : await labTarget(scratch, ATTACH_LIMIT);
  for (const combination of combinations) {
    console.log(`\n=== ${combination.name}: ${combination.what}`);
    const begin = performance.now();
    const specs = await runCombination(program, combination, target, scratch);
    print(combination, specs, (performance.now() - begin) / 1000);
    for (const { outcome } of specs) counts[outcome] += 1;
    const failed = specs.filter(({ outcome }) => outcome === 'failed');
    failures.push(...failed.map(({ name, reason }) => ({ name: `${combination.name}: ${name}`, reason })));
  }
} catch (error) {
  const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
  console.error(reason);
  counts.failed += 1;
  failures.push({ name: 'csi-sanity in the lab', reason });
} finally {
  await target?.stop();
  await rm(scratch, { recursive: true, force: true });
}
const countsFile = process.env['TEST_COUNTS_FILE'];
if (countsFile !== undefined) await writeFile(countsFile, JSON.stringify({ ...counts, failures }));
console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
