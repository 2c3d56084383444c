/** Which services a process offers: Identity always, Controller and Node by what it was given. */
import type { NodeOperations } from '../node/operations.ts';
import type { Handlers } from './call.ts';
import { type ControllerOptions, controllerService } from './controller.ts';
import { identityService } from './identity.ts';
import { nodeService } from './node.ts';
import type { ServiceName } from './proto.ts';
import { Readiness } from './readiness.ts';
import { accessTopology } from './topology.ts';

export interface ServiceOptions {
  readonly driverName: string;
  readonly version: string;
  /** There in the roles controller and all. */
  readonly controller?: Omit<ControllerOptions, 'topology'> | undefined;
  /** There in the roles node and all. */
  readonly node?: NodeOperations | undefined;
  /** How long a call waits for a different one on the same volume, ms. Default: see InFlight. */
  readonly patienceMs?: number;
}

export interface CsiServices {
  readonly services: Readonly<Partial<Record<ServiceName, Handlers>>>;
  /** What Probe answers, with the reasons, for /readyz. */
  readonly readiness: Readiness;
}

export function csiServices(options: ServiceOptions): CsiServices {
  const { controller, node, driverName, version, patienceMs } = options;
  const topology = accessTopology(driverName);
  const readiness = new Readiness([
    ...(controller === undefined ? [] : [async () => await controller.backend.probe()]),
    ...(node === undefined ? [] : [async () => await node.probe()]),
  ]);
  return {
    readiness,
    services: {
      Identity: { ...identityService({ driverName, version, readiness }) },
      ...(controller === undefined
        ? {}
        : { Controller: { ...controllerService({ ...controller, topology, patienceMs }) } }),
      ...(node === undefined ? {} : { Node: { ...nodeService({ node, topology, patienceMs }) } }),
    },
  };
}
