/** CSI Identity service. */
import type { Readiness } from './readiness.ts';
import type { Empty, GetPluginCapabilitiesResponse, GetPluginInfoResponse, ProbeResponse } from './wire.ts';

export interface IdentityOptions {
  /** Plugin name, as validated in config.ts. */
  readonly driverName: string;
  readonly version: string;
  readonly readiness: Readiness;
}

export interface IdentityService {
  GetPluginInfo(request: Empty): Promise<GetPluginInfoResponse>;
  GetPluginCapabilities(request: Empty): Promise<GetPluginCapabilitiesResponse>;
  Probe(request: Empty): Promise<ProbeResponse>;
}

export function identityService(options: IdentityOptions): IdentityService {
  return {
    GetPluginInfo: async () => ({ name: options.driverName, vendor_version: options.version }),

    // Of the plugin as a whole: the node's endpoint claims CONTROLLER_SERVICE too, although it does not serve it.
    GetPluginCapabilities: async () => ({
      capabilities: [
        { service: { type: 'CONTROLLER_SERVICE' } },
        { service: { type: 'VOLUME_ACCESSIBILITY_CONSTRAINTS' } },
        { volume_expansion: { type: 'ONLINE' } },
      ],
    }),

    // An answer and not an error: sidecars wait while it is false. The reasons are in the log and in /readyz.
    Probe: async () => ({ ready: { value: (await options.readiness.check()).ready } }),
  };
}
