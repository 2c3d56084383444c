/** Both roles in one process, behind one socket. */
import type { Config } from '../config-types.ts';
import { DriverError } from '../errors.ts';
import type { RoleDependencies, RunningRole } from './role.ts';

export async function runAll(
  config: Extract<Config, { role: 'all' }>,
  _dependencies: RoleDependencies,
): Promise<RunningRole> {
  throw new DriverError('UNIMPLEMENTED', `the ${config.role} role is not wired yet`);
}
