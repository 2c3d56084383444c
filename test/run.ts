/**
 * `npm test`: everything: static checks, unit, integration in the lab, the Helm chart, the image, csi-sanity. Chart and
 * csi-sanity need programs that are built from Go once; that goes on beside the first stages, with what they leave of the
 * processors. With a deadline, as CI has one (`TEST_DEADLINE`, seconds since 1970), also a short scenario in Kubernetes.
 * A failed stage does not stop the later ones. Ends with what failed, and why, and with `N passed, N failed, N skipped`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

interface Failure {
  readonly name: string;
  readonly reason: string;
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** May be fewer than `failed`: a command that ended before it could count has told more than its counts file. */
  failures: readonly Failure[];
}

/** Of a failure's reason so much is said again at the end, in lines: where the output is long or is cut. */
const REASON_LINES = 25;

interface Stage {
  readonly name: string;
  readonly command: readonly string[];
  /** `checks`: the command is one check that passes or fails; `counted`: it writes its counts to TEST_COUNTS_FILE. */
  readonly kind: 'check' | 'counted';
  /** Only when it is named: too slow for every run. */
  readonly onlyByName?: boolean;
  /** It may find that no time is left for it, and says so. Otherwise tests that are all skipped are a failure. */
  readonly mayBeSkipped?: boolean;
}

const ROOT = path.join(import.meta.dirname, '..');
const bin = (name: string) => path.join(ROOT, 'node_modules/.bin', name);

const STAGES: readonly Stage[] = [
  { name: 'lint', command: [bin('biome'), 'check', '--error-on-warnings', '.'], kind: 'check' },
  { name: 'types', command: [bin('tsc')], kind: 'check' },
  { name: 'build', command: [process.execPath, 'build.ts'], kind: 'check' },
  { name: 'unit', command: [bin('mocha')], kind: 'counted' },
  { name: 'integration', command: [bin('mocha'), '--config', '.mocharc.integration.json'], kind: 'counted' },
  { name: 'chart', command: [bin('mocha'), '--config', '.mocharc.chart.json'], kind: 'counted' },
  { name: 'image', command: [bin('mocha'), '--config', '.mocharc.image.json'], kind: 'counted' },
  { name: 'sanity', command: [process.execPath, 'test/sanity/run.ts', '--combination', 'mount'], kind: 'counted' },
  {
    name: 'integration-all',
    command: [bin('mocha'), '--config', '.mocharc.integration-all.json'],
    kind: 'counted',
    onlyByName: true,
  },
  {
    name: 'k8s-short',
    command: [process.execPath, 'test/k8s/short.ts'],
    kind: 'counted',
    onlyByName: process.env['TEST_DEADLINE'] === undefined,
    mayBeSkipped: true,
  },
  { name: 'k8s', command: [bin('mocha'), '--config', '.mocharc.k8s.json'], kind: 'counted', onlyByName: true },
  { name: 'faults', command: [bin('mocha'), '--config', '.mocharc.faults.json'], kind: 'counted', onlyByName: true },
];

const given = process.argv.slice(2);
const firstOption = given.findIndex((argument) => argument.startsWith('-'));
const only = firstOption < 0 ? given : given.slice(0, firstOption);
/** For the command of the one stage that is named, as `k8s --grep "raw block"`. */
const options = firstOption < 0 ? [] : given.slice(firstOption);
if (options.length > 0 && only.length !== 1) {
  console.error(`options (${options.join(' ')}) are for one stage: name it before them`);
  process.exit(2);
}
const scratch = mkdtempSync(path.join(tmpdir(), 'lvm-iscsi-csi-test-'));
let running: ChildProcess | undefined;
let interrupted = false;

async function run(stage: Stage): Promise<Counts> {
  const countsFile = path.join(scratch, `${stage.name}.json`);
  const [file, ...args] = stage.command;
  if (file === undefined) throw new Error('empty command');
  const child = spawn(file, [...args, ...options], {
    cwd: ROOT,
    stdio: 'inherit',
    env: { ...process.env, TEST_COUNTS_FILE: countsFile },
  });
  running = child;
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode) => resolve(exitCode ?? 1));
  });
  running = undefined;
  const itself = (reason: string): Failure[] => [{ name: stage.command.join(' '), reason }];
  if (stage.kind === 'check') {
    const failures = code === 0 ? [] : itself(`ended with ${code}; what it said is above, under "=== ${stage.name}"`);
    return { passed: code === 0 ? 1 : 0, failed: failures.length, skipped: 0, failures };
  }
  let counts: Counts;
  try {
    counts = JSON.parse(readFileSync(countsFile, 'utf8')) as Counts;
  } catch {
    // It ended before it could count: that is a failure, whatever its exit code says.
    return { passed: 0, failed: 1, skipped: 0, failures: itself(`ended with ${code} before it could count`) };
  }
  if (counts.failed > 0) return counts;
  if (code !== 0) return { ...counts, failed: 1, failures: itself(`ended with ${code} though no test failed`) };
  if (counts.passed === 0 && !(stage.mayBeSkipped === true && counts.skipped > 0))
    return { ...counts, failed: 1, failures: itself('no test ran') };
  return counts;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Each stage cleans up after itself; the terminal has told it already, a plain kill has not.
    interrupted = true;
    running?.kill(signal);
  });
}

/** Builds ahead what later stages wait for. Its failure is theirs to tell: they build what is still missing. */
function buildAhead(): () => void {
  const child = spawn(process.execPath, [path.join(ROOT, 'test/support/build-ahead.ts')], {
    // It ends when its input does: when we say so, and however we end.
    stdio: ['pipe', 'inherit', 'ignore'],
    // A session of its own, to which the kernel gives what all others leave.
    detached: true,
  });
  child.once('error', () => undefined);
  child.unref();
  return () => child.stdin?.destroy();
}

const total = { passed: 0, failed: 0, skipped: 0 };
const failures: string[] = [];
const summary: string[] = [];
const unknown = only.filter((name) => !STAGES.some((stage) => stage.name === name));
if (unknown.length > 0) {
  console.error(`no stage ${unknown.join(', ')}; there are ${STAGES.map((stage) => stage.name).join(', ')}`);
  process.exit(2);
}
const endBuilding = only.length === 0 ? buildAhead() : () => undefined;
for (const stage of STAGES) {
  if (interrupted) break;
  if (only.length > 0 ? !only.includes(stage.name) : stage.onlyByName === true) continue;
  console.log(`\n=== ${stage.name}`);
  const begin = performance.now();
  const counts = await run(stage);
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
  failures.push(
    ...counts.failures.map(({ name, reason }) => {
      const lines = reason.trim().split('\n').slice(0, REASON_LINES);
      return `${stage.name}: ${name}\n    ${lines.join('\n    ')}`;
    }),
  );
  summary.push(
    `${stage.name.padEnd(12)} ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped  (${((performance.now() - begin) / 1000).toFixed(0)} s)`,
  );
}
endBuilding();
rmSync(scratch, { recursive: true, force: true });
console.log(`\n=== summary\n${summary.join('\n')}`);
if (failures.length > 0) console.log(`\n=== failures\n${failures.join('\n')}\n`);
if (interrupted) console.log('interrupted: the stages not listed did not run');
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed > 0 || interrupted ? 1 : 0);
