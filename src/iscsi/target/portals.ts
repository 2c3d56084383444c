/**
 * Portals of a target. The kernel shares one listening socket between the targets that name the same address, counted;
 * making and removing them race in LIO (a removal has hung for ever on Linux 5.4, targetcli-fb#178), so they are done
 * one at a time over all targets.
 */
import { lockWithin } from '../../system/deadline.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { step } from '../../system/step.ts';
import { type ConfigFs, errorCode } from './configfs.ts';
import { TargetError, TargetTimeoutError } from './errors.ts';
import type { TargetPaths } from './layout.ts';

export class Portals {
  readonly #mutex = new KeyedMutex();
  readonly #wanted: readonly string[];

  /** `wanted`: "address:port", IPv6 in brackets. */
  constructor(wanted: readonly string[]) {
    this.#wanted = wanted;
  }

  /** Adds what is missing, then removes what is not configured (any more): sessions through it live on. */
  async converge(fs: ConfigFs, paths: TargetPaths, found: readonly string[]): Promise<void> {
    const missing = this.#wanted.filter((portal) => !found.includes(portal));
    const surplus = found.filter((portal) => !this.#wanted.includes(portal));
    for (const portal of missing) await this.#add(fs, paths, portal);
    for (const portal of surplus) await this.#remove(fs, paths, portal);
  }

  async removeAll(fs: ConfigFs, paths: TargetPaths): Promise<void> {
    for (const portal of await fs.namesIfPresent(paths.portals)) await this.#remove(fs, paths, portal);
  }

  async #add(fs: ConfigFs, paths: TargetPaths, portal: string): Promise<void> {
    try {
      await this.#alone(fs, () => step('target-portal-add', () => fs.makeFolder(`${paths.portals}/${portal}`)));
    } catch (error) {
      const code = errorCode(error);
      if (code === 'EADDRNOTAVAIL' || code === 'EADDRINUSE' || code === 'EINVAL') {
        const why =
          code === 'EADDRNOTAVAIL'
            ? 'this host does not have the address'
            : code === 'EADDRINUSE'
              ? 'another program listens there'
              : 'it is not "address:port", with an IPv6 address in brackets';
        throw new TargetError('portal', `target cannot listen on portal ${portal}: ${why}`, { cause: error });
      }
      throw error;
    }
  }

  async #remove(fs: ConfigFs, paths: TargetPaths, portal: string): Promise<void> {
    await this.#alone(fs, () => step('target-portal-remove', () => fs.removeFolder(`${paths.portals}/${portal}`)));
  }

  async #alone(fs: ConfigFs, action: () => Promise<void>): Promise<void> {
    await lockWithin(
      { mutex: this.#mutex, key: 'portals' },
      fs.deadline,
      () => new TargetTimeoutError('a portal operation of another target has not ended in time'),
      action,
    );
  }
}
