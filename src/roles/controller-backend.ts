/** The controller's life: the VG's lock, the first comparison, background work. */
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { CommonConfig, ControllerConfig } from '../config/types.ts';
import { DriverError } from '../errors.ts';
import { followHostPath } from '../filesystem/host-path.ts';
import { prepareShutdown } from '../iscsi/target/shutdown-unit.ts';
import { Wiper } from '../lvm/wiper.ts';
import { log, withContext } from '../system/context.ts';
import { acquireHostLock, describeHolder, type HostLock } from '../system/host-lock.ts';
import { awaitPredecessors } from '../system/predecessors.ts';
import type { Backend, ProbeResult } from '../volumes/backend.ts';
import { ChapKeys } from '../volumes/chap.ts';
import { LvmBackend } from '../volumes/lvm-backend.ts';
import { isWipeName } from '../volumes/names.ts';
import { WIPE_TAG } from '../volumes/tags.ts';
import { ComparisonPace } from './comparison-pace.ts';
import { controllerMetrics } from './controller-metrics.ts';
import { controllerProgramProblems } from './controller-programs.ts';
import type { RoleDependencies } from './role.ts';
import { type StorageHost, storageHost } from './storage.ts';
import { keepUdevRules } from './udev-rules.ts';

const RETRY_MS = 5_000;
const LOCK_RETRY_MS = 3_000;

export interface RunningBackend {
  readonly backend: Backend;
  close(): Promise<void>;
}

type ControllerSettings = CommonConfig & { readonly controller: ControllerConfig };

/** Answers at once: the socket must be there while lock and VG are waited for, so that Probe can say what is missing. */
export function startBackend(config: ControllerSettings, dependencies: RoleDependencies): RunningBackend {
  const closing = new AbortController();
  const stopped = AbortSignal.any([closing.signal, dependencies.stopping]);
  const waiting = new WaitingBackend();
  const parts: { lock?: Extract<HostLock, { held: true }>; wiper?: Wiper; backend?: LvmBackend } = {};
  const work = withContext({ task: 'controller start' }, async () => {
    try {
      parts.lock = await takeLock(config, dependencies, waiting, stopped);
      const holding = await succeed(config, dependencies, parts.lock, waiting, stopped);
      const host = storageHost(config, holding);
      const { backend, wiper } = await makeBackend(config, holding, host, waiting, stopped);
      parts.wiper = wiper;
      parts.backend = backend;
      // A call that waits for hours of zeroing must not hold up the drain.
      stopped.addEventListener('abort', () => void backend.close());
      await prepareHost(config, holding);
      wiper.start();
      waiting.backend = backend;
      controllerMetrics(dependencies.metrics, config.controller.volumeGroup, host, backend, wiper);
      await compareForEver(host, backend, stopped, (reason) => {
        waiting.reason = reason;
      });
    } catch (error) {
      if (stopped.aborted) return;
      log().fatal({ err: error }, 'the controller cannot work');
      dependencies.fail(error instanceof Error ? error.message : String(error));
    }
  });
  return {
    backend: waiting.asBackend(() => controllerProgramProblems(dependencies.commands)),
    async close() {
      closing.abort();
      await work;
      await Promise.all([parts.wiper?.stop(), parts.backend?.close()]);
      await parts.lock?.release();
    },
  };
}

/** What the host itself needs to know of us. */
async function prepareHost({ hostRoot, controller }: ControllerSettings, holding: RoleDependencies): Promise<void> {
  const { iqnPrefix, volumeGroup: vgName } = controller;
  await prepareShutdown({ ...holding, hostRoot, iqnPrefix, vgName });
  await keepUdevRules({ ...holding, hostRoot, vgName });
}

async function takeLock(
  config: ControllerSettings,
  dependencies: RoleDependencies,
  waiting: WaitingBackend,
  stopped: AbortSignal,
): Promise<Extract<HostLock, { held: true }>> {
  const { volumeGroup } = config.controller;
  const path = `${config.runDir}/controller-${volumeGroup}.lock`;
  const me = {
    pid: process.pid,
    hostName: hostname(),
    instance: process.env['POD_NAME'] ?? hostname(),
    since: new Date().toISOString(),
  };
  for (;;) {
    const lock = await acquireHostLock(dependencies.host, dependencies.commands, path, me);
    if (lock.held) {
      void lock.lost.then((how) => {
        // Also while we drain: the calls that are waited for would work beside those of the next holder.
        dependencies.die(
          `the lock of volume group "${volumeGroup}" was lost (${how}): another controller may work on it now`,
        );
      });
      return lock;
    }
    const reason = `volume group "${volumeGroup}" is served by another controller: ${describeHolder(lock.holder)}; waiting for it to end`;
    if (waiting.reason !== reason) log().warn(reason);
    waiting.reason = reason;
    await delay(LOCK_RETRY_MS, undefined, { signal: stopped });
  }
}

/** Before anything is read: what the former holder has left running ends first. The commands of the holder. */
async function succeed(
  { controller }: ControllerSettings,
  dependencies: RoleDependencies,
  lock: Extract<HostLock, { held: true }>,
  waiting: WaitingBackend,
  stopped: AbortSignal,
): Promise<RoleDependencies> {
  // As systemd takes it in a unit's name.
  const owner = `vg-${controller.volumeGroup.replaceAll('+', '_')}`;
  const onWaiting = (reason: string): void => {
    waiting.reason = reason;
  };
  await awaitPredecessors({ commands: dependencies.commands, owner, onWaiting, signal: stopped });
  waiting.reason = 'the controller is starting';
  return { ...dependencies, commands: dependencies.commands.holding(lock.record, owner) };
}

async function makeBackend(
  config: ControllerSettings,
  dependencies: RoleDependencies,
  host: StorageHost,
  waiting: WaitingBackend,
  stopped: AbortSignal,
): Promise<{ backend: LvmBackend; wiper: Wiper }> {
  const { controller } = config;
  const { files, commands } = dependencies;
  const chapKeys = await loadChapKeys(config, files, waiting, stopped);
  const wiper = new Wiper({
    lvm: host.lvm,
    commands,
    limiter: host.limiter,
    // Only under its final name: the name of a volume may be used again.
    isDeleted: (lv) => lv.tags.includes(WIPE_TAG) && isWipeName(lv.name),
    onWiped: (lvs) => host.blankTrust.wiped(lvs),
  });
  const backend = new LvmBackend({
    config: controller,
    lvm: host.lvm,
    gates: host.gates,
    targets: host.targets,
    chapKeys,
    wipeQueue: { wake: () => wiper.wake(), backlog: () => wiper.backlog() },
    blankMark: (report) => host.blankTrust.mark(report),
    zeroNew: (path, lengthBytes) => host.zeroing.zeroNew(path, lengthBytes),
    zeroGrowth: (range) => host.zeroing.zeroGrowth(range),
    makeFileSystem: host.makeFileSystem,
  });
  return { backend, wiper };
}

/** With CHAP off as well: attachments keep the mode that they were made with. */
async function loadChapKeys(
  { hostRoot, controller }: ControllerSettings,
  files: RoleDependencies['files'],
  waiting: WaitingBackend,
  stopped: AbortSignal,
): Promise<ChapKeys | undefined> {
  for (;;) {
    try {
      const path = `${hostRoot}${await followHostPath(files, hostRoot, controller.chapKeyFile)}`;
      if (controller.chap === 'off') return await ChapKeys.loadIfPresent(files, path);
      return await ChapKeys.load(files, path, controller.chap === 'mutual');
    } catch (error) {
      waiting.reason = error instanceof Error ? error.message : String(error);
      log().error({ err: error }, 'the CHAP key file cannot be used; trying again');
      await delay(RETRY_MS, undefined, { signal: stopped });
    }
  }
}

async function compareForEver(
  { diskCaches }: Pick<StorageHost, 'diskCaches'>,
  backend: LvmBackend,
  stopped: AbortSignal,
  notReady: (reason: string | undefined) => void,
): Promise<void> {
  const pace = new ComparisonPace();
  for (;;) {
    let pauseMs: number;
    await diskCaches.look();
    try {
      const { repaired, removed, foreign, failures } = await backend.reconcile();
      log().info(
        { exports: repaired, removed, foreign, failures: failures.length },
        'volume group and target compared',
      );
      notReady(undefined);
      pauseMs = pace.after(failures.length === 0 ? 'complete' : 'incomplete');
    } catch (error) {
      pauseMs = pace.after('impossible');
      log().error({ err: error }, 'volume group and target could not be compared; trying again');
    }
    await delay(pauseMs, undefined, { signal: stopped });
  }
}

/** Stands in until the real backend is there: every call is UNAVAILABLE, Probe says why. */
class WaitingBackend {
  reason: string | undefined = 'the controller is starting';
  backend: LvmBackend | undefined;

  /** `missing`: programs of the host without which some call cannot be served. */
  asBackend(missing: () => Promise<string[]>): Backend {
    const real = (): LvmBackend => {
      if (this.backend === undefined)
        throw new DriverError('UNAVAILABLE', {
          problem: 'the controller is not ready',
          found: this.reason ?? 'it is starting',
          action: 'the call is retried',
        });
      return this.backend;
    };
    return {
      probe: async (): Promise<ProbeResult> => {
        if (this.backend === undefined) return { ready: false, reasons: [this.reason ?? 'the controller is starting'] };
        const [{ reasons }, programs] = await Promise.all([this.backend.probe(), missing()]);
        const all = [...reasons, ...programs];
        return { ready: all.length === 0, reasons: all };
      },
      createVolume: async (request) => await real().createVolume(request),
      deleteVolume: async (id) => await real().deleteVolume(id),
      getVolume: async (id) => await real().getVolume(id),
      listVolumes: async () => await real().listVolumes(),
      expandVolume: async (id, capacity, capability) => await real().expandVolume(id, capacity, capability),
      publishVolume: async (request) => await real().publishVolume(request),
      unpublishVolume: async (id, nodeId) => await real().unpublishVolume(id, nodeId),
      capacity: async (parameters, capabilities) => await real().capacity(parameters, capabilities),
      capabilityProblem: (volume, capabilities) => real().capabilityProblem(volume, capabilities),
      checkParameters: (parameters) => real().checkParameters(parameters),
    };
  }
}
