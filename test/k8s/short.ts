/**
 * The scenarios of each CI run: the driver installed by helm, a claim, a pod, its data on the other node. Kubernetes is
 * built from source first where it is not cached, and CI ends after 90 minutes: with `TEST_DEADLINE` (seconds since 1970)
 * they run only if they are likely to be done by then. Otherwise they are counted as skipped, with the reason; a scenario
 * that has begun passes or fails.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { ensureClusterPrograms, missingPrograms } from '../cluster/programs.ts';
import { createProgress } from '../lab/progress.ts';

const ROOT = path.join(import.meta.dirname, '../..');
/** Both of `.mocharc.k8s-short.json`. */
const SCENARIOS = 2;
/** In seconds, on two cores without KVM (AMD EPYC, 2026-11-29). */
const BUILD_SECONDS: Readonly<Record<string, number>> = { kubernetes: 530, etcd: 35, containerd: 70, sidecars: 145 };
/** Likewise, nothing cached: images, first boot of three hosts, installation, scenarios. */
const CLUSTER_SECONDS = 950;
/** Other machines are slower, and this one is not alone. */
const MARGIN = 1.5;

const deadline = Number(process.env['TEST_DEADLINE'] ?? Number.POSITIVE_INFINITY);
const secondsLeft = (): number => deadline - Date.now() / 1000;

function skip(reason: string): never {
  console.log(`\n  skipped, ${SCENARIOS} scenarios: ${reason}\n  They run with: npm run test:k8s`);
  const file = process.env['TEST_COUNTS_FILE'];
  if (file !== undefined) {
    writeFileSync(file, JSON.stringify({ passed: 0, failed: 0, skipped: SCENARIOS, failures: [] }));
  }
  process.exit(0);
}

const minutes = (seconds: number): string => `${Math.max(0, Math.round(seconds / 60))} minutes`;
const missing = await missingPrograms();
const building = missing.reduce((sum, name) => sum + (BUILD_SECONDS[name] ?? 0), 0);
const needed = (building + CLUSTER_SECONDS) * MARGIN;
if (secondsLeft() < needed) {
  const what =
    missing.length === 0 ? 'a cluster and the scenarios' : `${missing.join(', ')} built from source, a cluster`;
  skip(`${minutes(secondsLeft())} are left until the deadline, and ${minutes(needed)} may be needed (${what})`);
}
const tooLate = Number.isFinite(deadline)
  ? setTimeout(
      () => skip('building Kubernetes from source has taken so long that no time is left for them'),
      (secondsLeft() - CLUSTER_SECONDS * MARGIN) * 1000,
    )
  : undefined;
await ensureClusterPrograms(createProgress('k8s'));
clearTimeout(tooLate);

const mocha = spawn(path.join(ROOT, 'node_modules/.bin/mocha'), ['--config', '.mocharc.k8s-short.json'], {
  cwd: ROOT,
  stdio: 'inherit',
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => mocha.kill(signal));
mocha.once('error', (error) => {
  console.error(error);
  process.exitCode = 1;
});
mocha.once('exit', (code) => {
  process.exitCode = code ?? 1;
});
