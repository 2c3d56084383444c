/** The node plugin's work: NodeOperations, one file for each operation. */
import { DriverError } from '../errors.ts';
import { KeyedMutex } from '../system/keyed-mutex.ts';
import type { ProbeResult } from '../volumes/backend.ts';
import { formatNodeId } from '../volumes/node-id.ts';
import { createEnvironment, type NodeEnvironment, type NodePluginOptions } from './environment.ts';
import { expandVolume } from './expand.ts';
import { explained } from './explain.ts';
import type {
  NodeExpandRequest,
  NodeInfo,
  NodeOperations,
  NodePublishRequest,
  StageRequest,
  VolumeStats,
} from './operations.ts';
import { publishVolume } from './publish.ts';
import { type RecoveryResult, recoverRecords, warnOldKernel } from './recovery.ts';
import { endRevokedSessions, type IfIdle } from './revocation.ts';
import { stageVolume } from './stage.ts';
import { volumeStats } from './stats.ts';
import { unpublishVolume } from './unpublish.ts';
import { unstageVolume } from './unstage.ts';

export class NodePlugin implements NodeOperations {
  readonly #env: NodeEnvironment;
  /** Operations wait for it: it removes records, which a stage of the same volume could just have written. */
  #recovery: Promise<unknown> = Promise.resolve();
  /** Calls on one volume exclude each other before they come here; what the plugin does by itself does so here. */
  readonly #volumes = new KeyedMutex();

  constructor(options: NodePluginOptions) {
    this.#env = createEnvironment(options);
  }

  /** To be called once at start: forgets what belongs to earlier boots. Requests that come meanwhile wait for it. */
  async recover(): Promise<RecoveryResult> {
    const recovery = explained('the node state records could not be read', () => recoverRecords(this.#env));
    // Its failure belongs to this caller; each operation looks for itself.
    this.#recovery = recovery.catch(() => undefined);
    await warnOldKernel(this.#env);
    return await recovery;
  }

  /** To be called every LOOK_EVERY_MS: ends sessions whose attachment was revoked, of volumes that no call is working on. */
  async endRevoked(nowMs: number = performance.now()): Promise<void> {
    await this.#recovery;
    const ifIdle: IfIdle = async (volumeId, action) => await this.#volumes.runIfFree(volumeId, action);
    await endRevokedSessions(this.#env, ifIdle, nowMs);
  }

  async probe(): Promise<ProbeResult> {
    const reasons = await explained('the initiator could not be examined', () => this.#env.initiator.problems());
    if (reasons.length > 0) return { ready: false, reasons };
    try {
      await this.info();
    } catch (error) {
      if (error instanceof DriverError) return { ready: false, reasons: [error.message] };
      throw error;
    }
    return { ready: true, reasons };
  }

  async info(): Promise<NodeInfo> {
    const { initiator, config } = this.#env;
    return await explained('this node cannot be identified', async () => {
      const initiatorIqn = await initiator.initiatorIqn();
      return { nodeId: formatNodeId({ nodeName: config.nodeName, initiatorIqn }), maxVolumes: config.maxVolumes };
    });
  }

  async stage(request: StageRequest): Promise<void> {
    checkAbsolute('staging path', request.stagingPath);
    await this.#recovery;
    const problem = `volume ${request.volumeId} could not be staged`;
    await this.#volumes.run(request.volumeId, () =>
      explained(problem, () => stageVolume(this.#env, request), { mayLeaveState: true }),
    );
  }

  async unstage(volumeId: string, stagingPath: string): Promise<void> {
    checkAbsolute('staging path', stagingPath);
    await this.#recovery;
    const problem = `volume ${volumeId} could not be unstaged`;
    await this.#volumes.run(volumeId, () => explained(problem, () => unstageVolume(this.#env, volumeId, stagingPath)));
  }

  async publish(request: NodePublishRequest): Promise<void> {
    if (request.stagingPath !== '') checkAbsolute('staging path', request.stagingPath);
    checkAbsolute('target path', request.targetPath);
    await this.#recovery;
    const problem = `volume ${request.volumeId} could not be published at ${request.targetPath}`;
    await this.#volumes.run(request.volumeId, () =>
      explained(problem, () => publishVolume(this.#env, request), { mayLeaveState: true }),
    );
  }

  async unpublish(volumeId: string, targetPath: string): Promise<void> {
    checkAbsolute('target path', targetPath);
    await this.#recovery;
    const problem = `volume ${volumeId} could not be unpublished from ${targetPath}`;
    await this.#volumes.run(volumeId, () => explained(problem, () => unpublishVolume(this.#env, volumeId, targetPath)));
  }

  async stats(volumeId: string, volumePath: string, _stagingPath: string | undefined): Promise<VolumeStats> {
    return await explained(`statistics of volume ${volumeId} could not be read`, () =>
      volumeStats(this.#env, volumeId, volumePath),
    );
  }

  async expand(request: NodeExpandRequest): Promise<number> {
    await this.#recovery;
    const problem = `volume ${request.volumeId} could not be expanded on this node`;
    return await this.#volumes.run(request.volumeId, () => explained(problem, () => expandVolume(this.#env, request)));
  }
}

function checkAbsolute(what: string, path: string): void {
  if (path.startsWith('/') && path !== '/' && !path.includes('\0')) return;
  throw new DriverError('INVALID_ARGUMENT', {
    problem: `${what} ${JSON.stringify(path)} cannot be used`,
    action: 'give an absolute path',
  });
}
