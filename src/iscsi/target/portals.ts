/**
 * Portals of a target. The kernel shares one listening socket between the targets that name the same address, counted;
 * making and removing them race in LIO (a removal has hung for ever on Linux 5.4, targetcli-fb#178), so they are done
 * one at a time over all targets.
 */
import { BlockList, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { lockWithin } from '../../system/deadline.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { type ConfigFs, errorCode, type Mutation } from './configfs.ts';
import { makeFolder, removeFolder } from './configfs-calls.ts';
import { TargetError, TargetTimeoutError } from './errors.ts';
import type { TargetPaths } from './layout.ts';

export class Portals {
  readonly #mutex = new KeyedMutex();
  readonly #wanted: readonly string[];

  /** `wanted`: "address:port", IPv6 in brackets. */
  constructor(wanted: readonly string[]) {
    this.#wanted = wanted;
  }

  /**
   * Adds what is missing, then removes what is not configured (any more; sessions through it live on); `around` is
   * applied before and after it in the same go.
   * @returns as ConfigFs.apply, of `around.before`.
   */
  async converge(
    fs: ConfigFs,
    paths: TargetPaths,
    found: readonly string[],
    around: { readonly before: readonly Mutation[]; readonly after: readonly Mutation[] } = { before: [], after: [] },
  ): Promise<(string | undefined)[]> {
    const missing = this.#wanted.filter((portal) => !found.includes(portal));
    const surplus = found.filter((portal) => !this.#wanted.includes(portal));
    const changes = [
      ...missing.map((portal) => makeFolder('target-portal-add', `${paths.portals}/${portal}`)),
      ...portalRemoval(paths, surplus),
    ];
    const all = [...around.before, ...changes, ...around.after];
    try {
      const codes = changes.length === 0 ? await fs.apply(all) : await this.#alone(fs, all);
      return codes.slice(0, around.before.length);
    } catch (error) {
      const portal = missing.find((one) => (error as NodeJS.ErrnoException).path === `${paths.portals}/${one}`);
      throw (portal === undefined ? undefined : portalError(portal, error)) ?? error;
    }
  }

  async remove(
    fs: ConfigFs,
    paths: TargetPaths,
    found: readonly string[],
    andThen: readonly Mutation[],
  ): Promise<void> {
    await this.#alone(fs, [...portalRemoval(paths, found), ...andThen]);
  }

  async #alone(fs: ConfigFs, mutations: readonly Mutation[]): Promise<(string | undefined)[]> {
    return await lockWithin(
      { mutex: this.#mutex, key: 'portals' },
      fs.deadline,
      () => new TargetTimeoutError('a portal operation of another target has not ended in time'),
      () => fs.apply(mutations),
    );
  }
}

/**
 * Portals whose address no interface of this host has. LIO does not say so: it binds with IP_FREEBIND (iscsit_setup_np),
 * listens where nobody comes, and a misspelt address would show on the nodes only. Looked up each time: an address may
 * come later.
 */
export function portalProblems(portals: readonly string[], interfaces = networkInterfaces()): string[] {
  const own = new BlockList();
  const addresses = Object.values(interfaces).flatMap((list) => list ?? []);
  for (const { address, family } of addresses) own.addAddress(address, family === 'IPv6' ? 'ipv6' : 'ipv4');
  return portals
    .filter((portal) => {
      const address = portal.slice(0, portal.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1');
      return !own.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
    })
    .map((portal) => {
      const others = addresses.filter(({ internal }) => !internal).map(({ address }) => address);
      return `no interface of this host has the address of portal ${portal}: nodes cannot reach it there; this host has ${others.join(', ') || 'no address'} (a pod needs hostNetwork)`;
    });
}

function portalRemoval(paths: TargetPaths, portals: readonly string[]): Mutation[] {
  return portals.map((portal) => removeFolder('target-portal-remove', `${paths.portals}/${portal}`));
}

/** The kernel makes every reason EINVAL (target_fabric_make_np); the address has the right form, and any address will do (above). */
function portalError(portal: string, cause: unknown): TargetError | undefined {
  if (errorCode(cause) !== 'EINVAL') return undefined;
  const why = 'the kernel refuses it, most often because another program listens there';
  return new TargetError(
    'portal',
    `target cannot listen on portal ${portal}: ${why} (ss -ltnp; dmesg has the reason)`,
    {
      cause,
    },
  );
}
