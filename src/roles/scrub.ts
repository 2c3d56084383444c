/** Zeroes the free space of the volume group once and records it in a VG tag. */
import type { Config } from '../config-types.ts';
import { DriverError } from '../errors.ts';
import type { RoleDependencies } from './role.ts';

/** Answers the exit code. */
export async function runScrub(
  config: Extract<Config, { role: 'controller' }>,
  _dependencies: RoleDependencies,
): Promise<number> {
  throw new DriverError('UNIMPLEMENTED', `scrub of ${config.controller.volumeGroup} is not wired yet`);
}
