/** The controller role: CSI Identity and Controller over one volume group. */
import type { Config } from '../config-types.ts';
import { DriverError } from '../errors.ts';
import type { RoleDependencies, RunningRole } from './role.ts';

export async function runController(
  config: Extract<Config, { role: 'controller' }>,
  _dependencies: RoleDependencies,
): Promise<RunningRole> {
  throw new DriverError('UNIMPLEMENTED', `the ${config.role} role is not wired yet`);
}
