/** The controller role: CSI Identity and Controller over one volume group. */
import type { Config } from '../config/types.ts';
import { startBackend } from './controller-backend.ts';
import type { RoleDependencies, RunningRole } from './role.ts';
import { serve } from './serve.ts';

export async function runController(
  config: Extract<Config, { role: 'controller' }>,
  dependencies: RoleDependencies,
): Promise<RunningRole> {
  const { backend, close } = startBackend(config, dependencies);
  return await serve(config, dependencies, { controller: { backend, clusterId: config.controller.clusterId }, close });
}
