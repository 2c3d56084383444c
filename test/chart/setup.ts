/** Loaded by .mocharc.chart.json: helm is there before the first test, whose time limit does not count its build. */
import { helm } from '../support/helm.ts';

export async function mochaGlobalSetup(): Promise<void> {
  await helm();
}
