/** Both roles in one process, behind one socket. */
import type { Config } from '../config/types.ts';
import { startBackend } from './controller-backend.ts';
import { checkNodeId, nodePlugin } from './node-plugin.ts';
import type { RoleDependencies, RunningRole } from './role.ts';
import { serve } from './serve.ts';

export async function runAll(
  config: Extract<Config, { role: 'all' }>,
  dependencies: RoleDependencies,
): Promise<RunningRole> {
  await checkNodeId(config, dependencies);
  const { backend, close } = startBackend(config, dependencies);
  return await serve(config, dependencies, {
    controller: { backend, clusterId: config.controller.clusterId },
    node: nodePlugin(config, dependencies),
    close,
  });
}
