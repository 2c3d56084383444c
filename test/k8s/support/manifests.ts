/** Objects of the scenarios: as short as they can be, every name telling what it is. */
import type {
  KubernetesObject,
  V1PersistentVolumeClaim,
  V1Pod,
  V1PodSpec,
  V1StorageClass,
} from '@kubernetes/client-node';
import { POD_IMAGE } from '../../cluster/images.ts';
import { DRIVER } from './bench.ts';

export interface ClaimOptions {
  readonly storageClass?: string;
  /** as `256Mi` */
  readonly size?: string;
  readonly accessMode?: string;
  readonly block?: boolean;
  readonly volumeName?: string;
}

/** The class that the chart makes. */
export const CHART_CLASS = 'lvm-iscsi';

export function claim(name: string, options: ClaimOptions = {}): V1PersistentVolumeClaim & KubernetesObject {
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name },
    spec: {
      storageClassName: options.storageClass ?? CHART_CLASS,
      accessModes: [options.accessMode ?? 'ReadWriteOnce'],
      volumeMode: options.block === true ? 'Block' : 'Filesystem',
      resources: { requests: { storage: options.size ?? '256Mi' } },
      ...(options.volumeName === undefined ? {} : { volumeName: options.volumeName }),
    },
  };
}

export interface PodOptions {
  /** Name of the node it must run on. */
  readonly node?: string;
  /** Default: sleeps. */
  readonly script?: string;
  readonly block?: boolean;
  readonly readOnly?: boolean;
  readonly subPath?: string;
  readonly spec?: Partial<V1PodSpec>;
}

/** Where a pod sees its volume. */
export const DATA = '/data';
export const DEVICE = '/dev/volume';

/** A pod with one claim's volume. */
export function pod(name: string, claimName: string, options: PodOptions = {}): V1Pod & KubernetesObject {
  const { node, script, block, readOnly, subPath, spec } = options;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: name } },
    spec: {
      // The node by a selector, not by its name: the scheduler is to do its part.
      ...(node === undefined ? {} : { nodeSelector: { 'kubernetes.io/hostname': node } }),
      terminationGracePeriodSeconds: 5,
      containers: [
        {
          name: 'main',
          image: POD_IMAGE,
          // As PID 1 a shell ignores what it does not trap, and the pod's end would take the whole grace period.
          command: ['sh', '-c', `trap 'exit 0' TERM; ${script ?? 'while :; do sleep 3600 & wait $!; done'}`],
          ...(block === true
            ? { volumeDevices: [{ name: 'data', devicePath: DEVICE }] }
            : {
                volumeMounts: [
                  {
                    name: 'data',
                    mountPath: DATA,
                    ...(subPath === undefined ? {} : { subPath }),
                    ...(readOnly === true ? { readOnly } : {}),
                  },
                ],
              }),
        },
      ],
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName, ...(readOnly === true ? { readOnly } : {}) } }],
      ...spec,
    },
  };
}

export interface ClassOptions {
  readonly parameters?: Readonly<Record<string, string>>;
  readonly bindingMode?: 'Immediate' | 'WaitForFirstConsumer';
  readonly reclaimPolicy?: 'Delete' | 'Retain';
  readonly mountOptions?: readonly string[];
}

export function storageClass(name: string, options: ClassOptions = {}): V1StorageClass & KubernetesObject {
  return {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: { name },
    provisioner: DRIVER,
    parameters: { ...options.parameters },
    volumeBindingMode: options.bindingMode ?? 'Immediate',
    reclaimPolicy: options.reclaimPolicy ?? 'Delete',
    allowVolumeExpansion: true,
    ...(options.mountOptions === undefined ? {} : { mountOptions: [...options.mountOptions] }),
  };
}
