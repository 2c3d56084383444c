/** The node role: CSI Identity and Node. */
import type { Config } from '../config/types.ts';
import { checkNodeId, startNodePlugin } from './node-plugin.ts';
import type { RoleDependencies, RunningRole } from './role.ts';
import { serve } from './serve.ts';

export async function runNode(
  config: Extract<Config, { role: 'node' }>,
  dependencies: RoleDependencies,
): Promise<RunningRole> {
  await checkNodeId(config, dependencies);
  return await serve(config, dependencies, startNodePlugin(config, dependencies));
}
