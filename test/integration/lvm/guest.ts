/**
 * Runs on a storage host of the lab (bundled into one file): `node guest.mjs SCENARIO DISK…`. Each scenario makes its
 * own VG on the disks, checks the LVM adapter against it, and takes everything away again. The lab's disks are its own.
 */
import { runFileHelper } from '../../../src/system/file-helper.ts';
import { FILE_HELPER_COMMAND } from '../../../src/system/file-helper-protocol.ts';
import { Bench } from './bench.ts';
import { blankScenarios } from './scenarios-blank.ts';
import { failureScenarios } from './scenarios-failures.ts';
import { operationScenarios } from './scenarios-operations.ts';

const SCENARIOS = { ...operationScenarios, ...failureScenarios, ...blankScenarios };

async function main(name: string, disks: readonly string[]): Promise<void> {
  const scenario = SCENARIOS[name];
  if (scenario === undefined) throw new Error(`no scenario ${name}`);
  const bench = new Bench(disks);
  try {
    await bench.clean();
    await scenario(bench);
    await bench.clean();
  } finally {
    await bench.close();
  }
  console.log(`${name}: ok`);
}

const [name = '', ...disks] = process.argv.slice(2);
if (name === FILE_HELPER_COMMAND) runFileHelper();
else await main(name, disks);
