/** The Backend over a local volume group: one operation for each volume at a time, nothing before the first reconciliation. */
import { DriverError } from '../errors.ts';
import { LvmError } from '../lvm/types.ts';
import { log } from '../system/context.ts';
import { KeyedMutex } from '../system/keyed-mutex.ts';
import { PendingAttachments, publishVolume, unpublishVolume } from './attachment.ts';
import type { Backend, Capacity, CreateVolumeRequest, ExpandResult, ProbeResult, PublishRequest } from './backend.ts';
import { capabilityProblem, capabilityProblemOf } from './capabilities.ts';
import { createVolume } from './creation.ts';
import { deleteVolume, requireDetached } from './deletion.ts';
import type { BackendDependencies } from './dependencies.ts';
import { expandVolume } from './expansion.ts';
import { explainExport } from './export-errors.ts';
import { UnfinishedFences } from './fences.ts';
import { ForeignTargets } from './foreign-targets.ts';
import { Growths } from './growth.ts';
import { hasMetadataRoom } from './metadata-room.ts';
import type { CapacityRange, Volume, VolumeCapability } from './model.ts';
import { targetIqn, volumeIdForName } from './names.ts';
import { parseParameters } from './parameters.ts';
import type { PublishContext } from './publish-context.ts';
import { type ReconcileResult, reconcile, resumeLeftGates } from './reconcile.ts';
import { VolumeTable } from './volume-table.ts';
import { witnessed } from './witness.ts';

/** A call to expand waits that long for zeroing. While it waits the wire refuses other calls for the volume. */
const GROWTH_PATIENCE_MS = 30_000;
/**
 * For so long calls must have been let in before an unfinished volume is given up. The provisioner repeats a create after
 * minutes, and one that zeroes for more than a day must not be lost to a restart: its call counts from there on.
 */
const ASKED_AGAIN_WITHIN_MS = 3_600_000;

export interface LvmBackendOptions {
  readonly growthPatienceMs?: number;
  readonly askedAgainWithinMs?: number;
}

export class LvmBackend implements Backend {
  readonly #deps: BackendDependencies;
  readonly #mutex = new KeyedMutex();
  readonly #pending = new PendingAttachments();
  readonly #fences = new UnfinishedFences();
  readonly #foreign = new ForeignTargets();
  readonly #growths: Growths;
  readonly #askedAgainWithinMs: number;
  /** When calls were let in, by the monotonic clock; undefined before that. */
  #readySinceMs: number | undefined;
  /** Why no call can be served yet; undefined once the first reconciliation is through. */
  #notReady: string | undefined = 'the controller is starting: the volume group has not been read yet';
  #portalProblem: string | undefined;
  #failures: readonly string[] = [];

  constructor(deps: BackendDependencies, options: LvmBackendOptions = {}) {
    this.#deps = deps;
    this.#askedAgainWithinMs = options.askedAgainWithinMs ?? ASKED_AGAIN_WITHIN_MS;
    this.#growths = new Growths(deps, this.#mutex, options.growthPatienceMs ?? GROWTH_PATIENCE_MS);
  }

  /** Ends background work, and the calls that wait for it. */
  async close(): Promise<void> {
    await this.#growths.stop();
  }

  /** Compares and repairs; the first one that succeeds opens the backend for calls. */
  async reconcile(): Promise<ReconcileResult> {
    const atStart = this.#notReady !== undefined;
    try {
      if (atStart) await resumeLeftGates(this.#deps.gates);
      const parts = { deps: this.#deps, mutex: this.#mutex, fences: this.#fences };
      const since = this.#readySinceMs;
      const discardUnfinished = since !== undefined && performance.now() - since >= this.#askedAgainWithinMs;
      const result = await witnessed(parts, () =>
        reconcile(this.#deps, this.#mutex, this.#fences, this.#growths, this.#foreign, { atStart, discardUnfinished }),
      );
      this.#notReady = undefined;
      this.#readySinceMs ??= performance.now();
      this.#portalProblem = result.portalProblem;
      this.#failures = result.failures;
      return result;
    } catch (error) {
      if (atStart)
        this.#notReady =
          error instanceof DriverError
            ? error.message
            : 'the first comparison of the volume group with the target failed; see the controller log';
      throw error;
    }
  }

  /** What the last comparison could not repair, and expansions that failed. Not in Probe: one volume must not keep the sidecars from the others. */
  get failures(): readonly string[] {
    return [...this.#failures, ...this.#growths.failures];
  }

  async probe(): Promise<ProbeResult> {
    const reasons = [this.#notReady, this.#portalProblem].filter((reason) => reason !== undefined);
    try {
      const problem = 'the iSCSI target of the storage host cannot be examined';
      reasons.push(...(await explainExport(problem, () => this.#deps.targets.problems())));
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      log().debug({ err: error.cause }, 'probe: the target cannot be examined');
      reasons.push(error.message);
    }
    try {
      const { vg } = await this.#deps.lvm.read();
      if (vg.missingPvCount > 0)
        reasons.push(
          `volume group "${vg.name}" misses ${vg.missingPvCount} physical volume(s); bring the disk back (pvs)`,
        );
      if (vg.exported) reasons.push(`volume group "${vg.name}" is exported; vgimport it`);
    } catch (error) {
      log().debug({ err: error }, 'probe: the volume group cannot be read');
      reasons.push(
        error instanceof LvmError && error.kind === 'lvm-missing'
          ? 'the LVM tools are not installed on the storage host; to do: install the package lvm2'
          : `volume group "${this.#deps.lvm.vgName}" cannot be read; check "vgs ${this.#deps.lvm.vgName}" on the storage host`,
      );
    }
    return { ready: reasons.length === 0, reasons };
  }

  async createVolume(request: CreateVolumeRequest): Promise<Volume> {
    const volumeId = volumeIdForName(this.#deps.config.clusterId, request.name);
    return await this.#exclusively(volumeId, () => createVolume(this.#deps, request));
  }

  async deleteVolume(volumeId: string): Promise<void> {
    // A call that is refused stops no expansion.
    await this.#exclusively(volumeId, () => requireDetached(this.#deps, volumeId));
    await this.#growths.without(volumeId, () => this.#exclusively(volumeId, () => deleteVolume(this.#deps, volumeId)));
  }

  async expandVolume(
    volumeId: string,
    capacity: CapacityRange,
    capability: VolumeCapability | undefined,
  ): Promise<ExpandResult> {
    for (;;) {
      const expand = () => expandVolume(this.#deps, volumeId, capacity, capability);
      const result = await this.#exclusively(volumeId, expand);
      if (result !== undefined) return result;
      // Not under the volume's mutex: it can be attached and detached meanwhile.
      await this.#growths.finish(volumeId);
    }
  }

  async publishVolume(request: PublishRequest): Promise<PublishContext> {
    return await this.#exclusively(request.volumeId, () =>
      publishVolume(this.#deps, this.#pending, this.#fences, request),
    );
  }

  async unpublishVolume(volumeId: string, nodeId: string): Promise<void> {
    await this.#exclusively(volumeId, () => unpublishVolume(this.#deps, this.#fences, volumeId, nodeId));
  }

  async getVolume(volumeId: string): Promise<Volume | undefined> {
    this.#requireReady();
    const entry = (await this.#table()).findMade(volumeId);
    return entry === undefined ? undefined : (await this.#markRepublish([entry.volume]))[0];
  }

  async listVolumes(): Promise<Volume[]> {
    this.#requireReady();
    const volumes = (await this.#table())
      .entries()
      .filter((entry) => entry.made)
      .map((entry) => entry.volume)
      .sort((a, b) => (a.id < b.id ? -1 : 1));
    return await this.#markRepublish(volumes);
  }

  async capacity(
    parameters: Readonly<Record<string, string>>,
    capabilities: readonly VolumeCapability[],
  ): Promise<Capacity> {
    this.#requireReady();
    const table = await this.#table();
    const { vg } = table.report;
    const none = { availableBytes: 0, maximumVolumeSizeBytes: 0, minimumVolumeSizeBytes: vg.extentSizeBytes };
    // CSI: capacity for volumes of that kind; of a kind that can't be made there is none.
    try {
      parseParameters(parameters, this.#deps.config.volumeGroup);
    } catch (error) {
      if (error instanceof DriverError) return none;
      throw error;
    }
    if (this.capabilityProblem(undefined, capabilities) !== undefined) return none;
    if (!hasMetadataRoom(table)) {
      log().warn(
        { metadataFreeBytes: vg.metadataFreeBytes },
        'the metadata area of the volume group is nearly full: no capacity is told',
      );
      return none;
    }
    return { ...none, availableBytes: vg.freeBytes, maximumVolumeSizeBytes: vg.freeBytes };
  }

  capabilityProblem(volume: Volume | undefined, capabilities: readonly VolumeCapability[]): string | undefined {
    for (const capability of capabilities) {
      const problem = volume === undefined ? capabilityProblem(capability) : capabilityProblemOf(volume, capability);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  checkParameters(parameters: Readonly<Record<string, string>>): void {
    parseParameters(parameters, this.#deps.config.volumeGroup);
  }

  async #exclusively<T>(volumeId: string, action: () => Promise<T>): Promise<T> {
    this.#requireReady();
    return await this.#mutex.run(volumeId, action);
  }

  #requireReady(): void {
    if (this.#notReady !== undefined) {
      throw new DriverError('UNAVAILABLE', {
        problem: 'the controller is not ready',
        found: this.#notReady,
        action: 'the call is retried',
      });
    }
  }

  #table(): Promise<VolumeTable> {
    return VolumeTable.read(this.#deps.lvm, this.#deps.config.clusterId);
  }

  /** A user's CHAP secrets are gone after a reboot of the storage host: such an attachment has no ACL until it is published again. */
  async #markRepublish(volumes: Volume[]): Promise<Volume[]> {
    if (!volumes.some((volume) => volume.attachments.some(({ auth }) => auth.kind === 'user'))) return volumes;
    const targets = await explainExport('the targets of the storage host could not be listed', () =>
      this.#deps.targets.list(),
    );
    const acls = new Map(targets.map((target) => [target.targetIqn, target.aclInitiators]));
    return volumes.map((volume) => ({
      ...volume,
      attachments: volume.attachments.map((attachment) => {
        const present =
          acls.get(targetIqn(this.#deps.config.iqnPrefix, volume.id))?.includes(attachment.initiatorIqn) ?? false;
        return attachment.auth.kind === 'user' && !present ? { ...attachment, needsRepublish: true } : attachment;
      }),
    }));
  }
}
