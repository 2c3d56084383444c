/** FAKE. A node plugin that makes folders and files and remembers; nothing is attached or mounted. For the wire's tests. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { DriverError } from '../../../src/errors.ts';
import type {
  NodeExpandRequest,
  NodeInfo,
  NodeOperations,
  NodePublishRequest,
  StageRequest,
  VolumeStats,
} from '../../../src/node/operations.ts';
import type { ProbeResult } from '../../../src/volumes/backend.ts';

export const FAKE_NODE_ID = 'fake-node/iqn.1993-08.org.debian:01:fake';

interface FakeStaged {
  readonly request: StageRequest;
  readonly targets: Map<string, NodePublishRequest>;
}

export class FakeNode implements NodeOperations {
  readonly staged = new Map<string, FakeStaged>();
  probeResult: ProbeResult = { ready: true, reasons: [] };
  /** Called at the beginning of each method: throws or waits, as the test likes. */
  before: (method: string) => Promise<void> = async () => {};

  async probe(): Promise<ProbeResult> {
    return this.probeResult;
  }

  async info(): Promise<NodeInfo> {
    return { nodeId: FAKE_NODE_ID, maxVolumes: 0 };
  }

  async stage(request: StageRequest): Promise<void> {
    await this.before('stage');
    if (!this.staged.has(request.volumeId)) this.staged.set(request.volumeId, { request, targets: new Map() });
  }

  async unstage(volumeId: string): Promise<void> {
    await this.before('unstage');
    this.staged.delete(volumeId);
  }

  async publish(request: NodePublishRequest): Promise<void> {
    await this.before('publish');
    const volume = this.#existing(request.volumeId);
    const others = [...volume.targets.keys()].filter((target) => target !== request.targetPath);
    if (request.capability.mode === 'SINGLE_NODE_SINGLE_WRITER' && others.length > 0) {
      throw new DriverError('FAILED_PRECONDITION', `already published at ${others.join(', ')}`);
    }
    if (request.capability.access.kind === 'mount') await mkdir(request.targetPath, { recursive: true });
    else await writeFile(request.targetPath, '');
    volume.targets.set(request.targetPath, request);
  }

  async unpublish(volumeId: string, targetPath: string): Promise<void> {
    await this.before('unpublish');
    this.staged.get(volumeId)?.targets.delete(targetPath);
    await rm(targetPath, { recursive: true, force: true });
  }

  async stats(volumeId: string, volumePath: string): Promise<VolumeStats> {
    await this.before('stats');
    this.#at(volumeId, volumePath);
    if (this.#existing(volumeId).request.capability.access.kind === 'block') return { kind: 'block', totalBytes: 4096 };
    return {
      kind: 'mount',
      totalBytes: 9,
      availableBytes: 5,
      usedBytes: 3,
      totalInodes: 7,
      freeInodes: 4,
      usedInodes: 3,
    };
  }

  async expand(request: NodeExpandRequest): Promise<number> {
    await this.before('expand');
    this.#at(request.volumeId, request.volumePath);
    return request.requiredBytes;
  }

  #at(volumeId: string, path: string): void {
    const { request, targets } = this.#existing(volumeId);
    if (path !== request.stagingPath && !targets.has(path)) throw new DriverError('NOT_FOUND', `not at ${path}`);
  }

  #existing(volumeId: string): FakeStaged {
    const volume = this.staged.get(volumeId);
    if (volume === undefined) throw new DriverError('NOT_FOUND', `volume ${volumeId} is not staged`);
    return volume;
  }
}
