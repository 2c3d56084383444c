/** One socket for the services of a role, and its orderly end. */
import type { CommonConfig } from '../config/types.ts';
import { startCsiServer } from '../csi/server.ts';
import { csiServices } from '../csi/services.ts';
import type { NodeOperations } from '../node/operations.ts';
import { version } from '../version.ts';
import type { Backend } from '../volumes/backend.ts';
import { volumeIdForName } from '../volumes/names.ts';
import type { RoleDependencies, RunningRole } from './role.ts';

export interface Served {
  readonly controller?: { readonly backend: Backend; readonly clusterId: string } | undefined;
  readonly node?: NodeOperations | undefined;
  /** Background work of the role, ended after the last call. */
  readonly close: () => Promise<void>;
}

export async function serve(
  config: CommonConfig,
  dependencies: RoleDependencies,
  served: Served,
): Promise<RunningRole> {
  const { controller, node } = served;
  const { services, readiness } = csiServices({
    driverName: config.driverName,
    version: version(),
    controller:
      controller === undefined
        ? undefined
        : { backend: controller.backend, volumeIdForName: (name) => volumeIdForName(controller.clusterId, name) },
    node,
  });
  const server = await startCsiServer({
    endpoint: config.endpoint,
    tcpEndpoint: config.tcpEndpoint,
    services,
    slowCallMs: config.slowCallMs,
    observer: dependencies.metrics,
  });
  return {
    ready: async () => await readiness.check(),
    drain: async (timeoutMs) => await server.stop(timeoutMs),
    close: served.close,
  };
}
