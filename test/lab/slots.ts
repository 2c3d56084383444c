import { createHash } from 'node:crypto';
import { LabError } from './errors.ts';

/**
 * The identity of one machine. It follows from the name alone, so that a machine's saved state fits every lab: labs are
 * kept apart by network namespaces, not by addresses.
 */
export interface Slot {
  /** `storage` or `node-N` with N from 1 */
  readonly name: string;
  /** 0 for the storage host, N for node-N */
  readonly index: number;
  readonly data: Interface;
  readonly control: Interface;
  readonly iqn: string;
  /** 32 hex digits */
  readonly machineId: string;
}

export interface Interface {
  /** name inside the machine */
  readonly device: string;
  /** name of its tap in the lab's namespace, at most 15 characters */
  readonly tap: string;
  readonly mac: string;
  /** IPv4, without the prefix length */
  readonly address: string;
}

export const PREFIX_LENGTH = 24;
export const MAX_NODES = 32;

/** The two networks of a lab: iSCSI and the cluster on `data`, our own ssh on `control`, so that it survives a pulled data cable. */
export const NETWORKS = {
  data: { bridge: 'data', base: '10.77.0', gateway: '10.77.0.1', macByte: '01' },
  control: { bridge: 'control', base: '10.78.0', gateway: '10.78.0.1', macByte: '02' },
} as const;

export function slot(name: string): Slot {
  const index = slotIndex(name);
  return {
    name,
    index,
    data: networkInterface('data', index),
    control: networkInterface('control', index),
    iqn: `iqn.1993-08.org.debian:01:lab-${name}`,
    machineId: createHash('sha256').update(`lab machine ${name}`).digest('hex').slice(0, 32),
  };
}

function slotIndex(name: string): number {
  if (name === 'storage') return 0;
  const number = Number(/^node-([1-9]\d?)$/.exec(name)?.[1]);
  if (number >= 1 && number <= MAX_NODES) return number;
  throw new LabError(`machine "${name}": allowed are storage and node-1 to node-${MAX_NODES}`);
}

function networkInterface(network: keyof typeof NETWORKS, index: number): Interface {
  const { base, macByte } = NETWORKS[network];
  const host = 10 + index;
  return {
    device: `${network}0`,
    tap: `${network}-${index}`,
    mac: `52:54:00:6c:${macByte}:${host.toString(16).padStart(2, '0')}`,
    address: `${base}.${host}`,
  };
}
