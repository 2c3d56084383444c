import { NETWORKS, PREFIX_LENGTH, type Slot } from './slots.ts';

/**
 * The script that makes a lab's networks: two bridges with an address of our own on each, and two taps for each machine.
 * It runs in a fresh network namespace, so that names and addresses are the same in every lab and none can collide.
 */
export function networkScript(slots: readonly Slot[]): string {
  const lines = ['ip link set lo up'];
  for (const { bridge, gateway, macByte } of Object.values(NETWORKS)) {
    // The address is always the same because a saved machine wakes up with the one it knew; without that, its answers go
    // to nobody for half a minute. Nobody snoops multicast here, and forwarding must not wait for a spanning tree.
    lines.push(`ip link add ${bridge} address 52:54:00:6c:${macByte}:01 type bridge forward_delay 0 mcast_snooping 0`);
    lines.push(`ip address add ${gateway}/${PREFIX_LENGTH} dev ${bridge}`);
    lines.push(`ip link set ${bridge} up`);
  }
  for (const { data, control } of slots) {
    lines.push(`ip tuntap add ${data.tap} mode tap`);
    lines.push(`ip link set ${data.tap} master ${NETWORKS.data.bridge} up`);
    lines.push(`ip tuntap add ${control.tap} mode tap`);
    lines.push(`ip link set ${control.tap} master ${NETWORKS.control.bridge} up`);
  }
  return lines.join('\n');
}
