/**
 * From where volumes can be reached: from every node that runs the node plugin, and from no other. So there is one
 * segment, the same on all of them, with the plugin's name in its key: several installations, each with its own volume
 * group, do not mix. It never changes: Kubernetes writes it into every PersistentVolume, where it cannot be edited.
 *
 * What it is for: pods with volumes are not placed on nodes that lack the node plugin, and csi-provisioner keeps a
 * CSIStorageCapacity object only for drivers that tell a topology.
 */
import type { WireTopology } from './wire.ts';

/** CSI specification, Topology: a key is `[prefix/]name`, the prefix a DNS subdomain in lower case. */
export function accessTopology(driverName: string): WireTopology {
  return { segments: { [`topology.${driverName.toLowerCase()}/access`]: 'iscsi' } };
}

/** Whether a volume that is reachable from `own` is so from each place that has the segments of `asked`. */
export function isWithin(asked: WireTopology, own: WireTopology): boolean {
  return Object.entries(own.segments).every(([key, value]) => asked.segments[key] === value);
}
