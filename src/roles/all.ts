/** Both roles in one process, behind one socket. */
import type { Config } from '../config/types.ts';
import { startBackend } from './controller-backend.ts';
import { checkNodeId, startNodePlugin } from './node-plugin.ts';
import type { RoleDependencies, RunningRole } from './role.ts';
import { serve } from './serve.ts';

export async function runAll(
  config: Extract<Config, { role: 'all' }>,
  dependencies: RoleDependencies,
): Promise<RunningRole> {
  await checkNodeId(config, dependencies);
  const controller = startBackend(config, dependencies);
  const { node, close } = startNodePlugin(config, dependencies);
  return await serve(config, dependencies, {
    controller: { backend: controller.backend, clusterId: config.controller.clusterId },
    node,
    close: async () => {
      await Promise.all([controller.close(), close()]);
    },
  });
}
