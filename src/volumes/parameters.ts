/** StorageClass parameters. Unknown keys are refused by name: a typo must not silently give another kind of volume. */
import { DriverError } from '../errors.ts';

export interface VolumeParameters {
  readonly provisioning: 'thick';
}

const KEYS = ['provisioning', 'volumeGroup'] as const;
/** Added by external-provisioner --extra-create-metadata: pvc/name, pvc/namespace, pv/name. */
const SIDECAR_PREFIX = 'csi.storage.k8s.io/';

/** @throws DriverError INVALID_ARGUMENT */
export function parseParameters(parameters: Readonly<Record<string, string>>, volumeGroup: string): VolumeParameters {
  for (const [key, value] of Object.entries(parameters)) {
    if (key.startsWith(SIDECAR_PREFIX)) continue;
    switch (key as (typeof KEYS)[number]) {
      case 'provisioning':
        if (value !== 'thick') throw badValue(key, value, '"thick"');
        break;
      case 'volumeGroup':
        if (value !== volumeGroup)
          throw badValue(key, value, `"${volumeGroup}", the volume group that this controller serves`);
        break;
      default:
        throw new DriverError('INVALID_ARGUMENT', {
          problem: `unknown StorageClass parameter "${key.slice(0, 128)}"`,
          found: `the known ones are ${KEYS.join(', ')}`,
          action: 'correct or remove it',
        });
    }
  }
  return { provisioning: 'thick' };
}

function badValue(key: string, value: string, allowed: string): DriverError {
  return new DriverError('INVALID_ARGUMENT', {
    problem: `StorageClass parameter "${key}" has a value that is not allowed`,
    found: `"${value.slice(0, 128)}"`,
    action: `use ${allowed}`,
  });
}
