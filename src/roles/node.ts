/** The node role: CSI Identity and Node. */
import type { Config } from '../config-types.ts';
import { DriverError } from '../errors.ts';
import type { RoleDependencies, RunningRole } from './role.ts';

export async function runNode(
  config: Extract<Config, { role: 'node' }>,
  _dependencies: RoleDependencies,
): Promise<RunningRole> {
  throw new DriverError('UNIMPLEMENTED', `the ${config.role} role is not wired yet`);
}
