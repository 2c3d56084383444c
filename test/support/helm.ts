/** helm itself, and what the chart renders with it. */
import path from 'node:path';
import { execa } from 'execa';
import { goTool } from './go-tool.ts';

export const CHART = path.join(import.meta.dirname, '../../deploy/helm/lvm-iscsi-csi');

/**
 * @returns path of the program
 * @throws Error with what to install when it cannot be built
 */
export async function helm(): Promise<string> {
  return await goTool({
    name: 'helm',
    package: 'helm.sh/helm/v4/cmd/helm',
    version: 'v4.3.1',
    go: '1.26',
    duration: 'five minutes',
  });
}

export interface Rendered {
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** `helm template` as a user runs it, with a release of the chart's name. `flags`: --set and the like. */
export async function helmTemplate(flags: readonly string[] = [], valuesYaml = ''): Promise<Rendered> {
  const release = ['lvm-iscsi-csi', CHART, '--namespace', 'lvm-iscsi-csi', '--values', '-'];
  const { exitCode, stdout, stderr } = await execa(await helm(), ['template', ...release, ...flags], {
    input: valuesYaml,
    reject: false,
  });
  return { exitCode, stdout, stderr };
}
