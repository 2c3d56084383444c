/** The storage host's adapters, put together: what the controller role and the maintenance commands work on. */
import type { CommonConfig, ControllerConfig } from '../config/types.ts';
import { DriverError } from '../errors.ts';
import { FileSystemError } from '../filesystem/errors.ts';
import { FileSystemMaker } from '../filesystem/make.ts';
import { DmGates } from '../gate/dm-gates.ts';
import type { Gates } from '../gate/types.ts';
import { LioTargets } from '../iscsi/target/lio-targets.ts';
import type { Targets } from '../iscsi/target/types.ts';
import { AwaitedZeroing } from '../lvm/awaited-zeroing.ts';
import { DiskCaches } from '../lvm/disk-caches.ts';
import { RateLimiter } from '../lvm/rate-limit.ts';
import { BlankTrust } from '../lvm/scrub.ts';
import type { LogicalVolume, Lvm, VgReport } from '../lvm/types.ts';
import { VgLvm } from '../lvm/vg-lvm.ts';
import { step } from '../system/step.ts';
import type { FsType } from '../volumes/model.ts';
import { readLv } from '../volumes/tags.ts';
import type { RoleDependencies } from './role.ts';

export interface StorageHost {
  readonly lvm: Lvm;
  readonly diskCaches: DiskCaches;
  /** Are free extents known to be blank? */
  readonly blankTrust: BlankTrust;
  readonly isOurs: (lv: LogicalVolume) => boolean;
  readonly gates: Gates;
  readonly targets: Targets;
  /** Shared by all zeroing and wiping of this process. */
  readonly limiter: RateLimiter;
  /** Of volumes that a call makes or expands. */
  readonly zeroing: AwaitedZeroing;
  readonly makeFileSystem: (devicePath: string, fsType: FsType) => Promise<void>;
}

export function storageHost(
  config: CommonConfig & { readonly controller: ControllerConfig },
  dependencies: RoleDependencies,
): StorageHost {
  const { commands, files } = dependencies;
  const { hostRoot, runDir, controller } = config;
  const limiter = new RateLimiter(controller.wipeBytesPerSecond);
  const maker = new FileSystemMaker({ commands, files, hostRoot });
  const isOurs = (lv: LogicalVolume) => ['volume', 'wipe'].includes(readLv(lv, controller.clusterId).kind);
  const onReport = (report: VgReport) => blankTrust.observe(report);
  const diskCaches = new DiskCaches({ commands, files, hostRoot, policy: controller.diskWriteCache });
  const onDevices = (names: readonly string[]) => diskCaches.watch(names);
  const mustFlush = () => diskCaches.mustFlush;
  const vgName = controller.volumeGroup;
  const lvm = new VgLvm({ commands, files, vgName, runDir, hostRoot, onReport, onDevices, mustFlush });
  const blankTrust = new BlankTrust(lvm, isOurs);
  return {
    lvm,
    diskCaches,
    blankTrust,
    isOurs,
    gates: new DmGates({ commands, files, runDir, hostRoot }),
    targets: new LioTargets({
      commands,
      files,
      iqnPrefix: controller.iqnPrefix,
      portals: controller.portals,
      vgName: controller.volumeGroup,
    }),
    limiter,
    zeroing: new AwaitedZeroing(commands, limiter),
    makeFileSystem: async (devicePath, fsType) => {
      try {
        await step('mkfs', () => maker.make({ devicePath, fsType, everyByteIsZero: true }));
      } catch (cause) {
        if (cause instanceof FileSystemError) throw makeFailed(cause, devicePath);
        throw cause;
      }
    },
  };
}

function makeFailed(cause: FileSystemError, devicePath: string): DriverError {
  switch (cause.kind) {
    case 'too-small':
      return new DriverError('OUT_OF_RANGE', cause.message, { cause });
    case 'tool-missing':
      return new DriverError('UNAVAILABLE', cause.message, { cause });
    default:
      return new DriverError(
        'UNAVAILABLE',
        {
          problem: `no file system could be made on ${devicePath}`,
          found: cause.message,
          action: 'see the controller log; the call is retried',
        },
        { cause },
      );
  }
}
