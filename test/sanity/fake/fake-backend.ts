/**
 * FAKE. Volumes in memory, nothing behind them: to test the wire alone, without LVM, LIO or a lab. It answers with the
 * codes that the Backend contract asks for, and says nothing about whether the real backend does.
 */
import { randomBytes } from 'node:crypto';
import { DriverError } from '../../../src/errors.ts';
import type {
  Backend,
  Capacity,
  CreateVolumeRequest,
  ExpandResult,
  ProbeResult,
  PublishRequest,
} from '../../../src/volumes/backend.ts';
import type { Attachment, CapacityRange, Volume, VolumeCapability } from '../../../src/volumes/model.ts';
import { volumeIdForName } from '../../../src/volumes/names.ts';
import { parseNodeId } from '../../../src/volumes/node-id.ts';
import type { PublishContext } from '../../../src/volumes/publish-context.ts';

const DEFAULT_SIZE_BYTES = 1024 ** 3;
const CAPACITY_BYTES = 100 * 1024 ** 3;
const CLUSTER_ID = 'fake';

export function fakeVolumeId(name: string): string {
  return volumeIdForName(CLUSTER_ID, name);
}

export class FakeBackend implements Backend {
  readonly volumes = new Map<string, Volume>();
  readonly knownNodes: ReadonlySet<string>;
  probeResult: ProbeResult = { ready: true, reasons: [] };
  /** Called at the beginning of each method: throws or waits, as the test likes. */
  before: (method: string) => Promise<void> = async () => {};

  constructor(knownNodes: readonly string[]) {
    this.knownNodes = new Set(knownNodes);
  }

  async probe(): Promise<ProbeResult> {
    await this.before('probe');
    return this.probeResult;
  }

  async createVolume(request: CreateVolumeRequest): Promise<Volume> {
    await this.before('createVolume');
    const id = fakeVolumeId(request.name);
    const { requiredBytes, limitBytes } = request.capacity;
    const existing = this.volumes.get(id);
    if (existing !== undefined) {
      if (existing.sizeBytes < requiredBytes || (limitBytes > 0 && existing.sizeBytes > limitBytes)) {
        throw new DriverError('ALREADY_EXISTS', `volume ${id} exists with ${existing.sizeBytes} bytes`);
      }
      return existing;
    }
    const sizeBytes = requiredBytes || limitBytes || DEFAULT_SIZE_BYTES;
    if (sizeBytes > CAPACITY_BYTES) throw new DriverError('RESOURCE_EXHAUSTED', 'too large for the fake');
    const raw = request.capabilities.every((capability) => capability.access.kind === 'block');
    const volume: Volume = {
      id,
      name: request.name,
      sizeBytes,
      serial: randomBytes(16).toString('hex'),
      content: raw ? { kind: 'raw' } : { kind: 'filesystem', fsType: 'ext4' },
      provisioning: 'thick',
      attachments: [],
    };
    this.volumes.set(id, volume);
    return volume;
  }

  async deleteVolume(volumeId: string): Promise<void> {
    await this.before('deleteVolume');
    this.volumes.delete(volumeId);
  }

  async getVolume(volumeId: string): Promise<Volume | undefined> {
    await this.before('getVolume');
    return this.volumes.get(volumeId);
  }

  async listVolumes(): Promise<Volume[]> {
    await this.before('listVolumes');
    return [...this.volumes.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  async expandVolume(volumeId: string, capacity: CapacityRange): Promise<ExpandResult> {
    await this.before('expandVolume');
    const volume = this.#existing(volumeId);
    const sizeBytes = Math.max(volume.sizeBytes, capacity.requiredBytes);
    this.volumes.set(volumeId, { ...volume, sizeBytes });
    return { sizeBytes, nodeExpansionRequired: true };
  }

  async publishVolume(request: PublishRequest): Promise<PublishContext> {
    await this.before('publishVolume');
    const volume = this.#existing(request.volumeId);
    const node = parseNodeId(request.nodeId);
    if (node === undefined || !this.knownNodes.has(request.nodeId)) {
      throw new DriverError('NOT_FOUND', `node ${request.nodeId} is not known`);
    }
    let attachment = volume.attachments.find((each) => each.nodeName === node.nodeName);
    if (attachment !== undefined && attachment.readonly !== request.readonly) {
      throw new DriverError('ALREADY_EXISTS', `published with readonly ${attachment.readonly}`);
    }
    if (attachment === undefined) {
      attachment = newAttachment(node.nodeName, node.initiatorIqn, request);
      this.volumes.set(volume.id, { ...volume, attachments: [...volume.attachments, attachment] });
    }
    return {
      witnessIqn: undefined,
      targetIqn: `iqn.2010-10.org.openstack:${volume.id}`,
      portals: ['192.0.2.1:3260'],
      lun: 0,
      serial: volume.serial,
      nonce: attachment.nonce,
      content: volume.content,
      sizeBytes: volume.sizeBytes,
      authentication: 'derived',
      chap: { user: 'fake-chap-user', password: 'fake-chap-password' },
      mutualChap: undefined,
    };
  }

  async unpublishVolume(volumeId: string, nodeId: string): Promise<void> {
    await this.before('unpublishVolume');
    const volume = this.volumes.get(volumeId);
    if (volume === undefined) return;
    const name = parseNodeId(nodeId)?.nodeName;
    const attachments = nodeId === '' ? [] : volume.attachments.filter((each) => each.nodeName !== name);
    this.volumes.set(volumeId, { ...volume, attachments });
  }

  async capacity(): Promise<Capacity> {
    await this.before('capacity');
    return { availableBytes: CAPACITY_BYTES, maximumVolumeSizeBytes: CAPACITY_BYTES, minimumVolumeSizeBytes: 4096 };
  }

  capabilityProblem(_volume: Volume | undefined, capabilities: readonly VolumeCapability[]): string | undefined {
    const bad = capabilities.some(({ access, mode }) => access.kind === 'mount' && mode === 'MULTI_NODE_MULTI_WRITER');
    return bad ? 'MULTI_NODE_MULTI_WRITER with a file system' : undefined;
  }

  checkParameters(parameters: Readonly<Record<string, string>>): void {
    if ('bad' in parameters) throw new DriverError('INVALID_ARGUMENT', 'parameter "bad" is not known');
  }

  #existing(volumeId: string): Volume {
    const volume = this.volumes.get(volumeId);
    if (volume === undefined) throw new DriverError('NOT_FOUND', `volume ${volumeId} does not exist`);
    return volume;
  }
}

function newAttachment(nodeName: string, initiatorIqn: string, request: PublishRequest): Attachment {
  return {
    nodeName,
    nodeId: request.nodeId,
    initiatorIqn,
    nonce: randomBytes(16).toString('hex'),
    access: request.capability.access.kind,
    mode: request.capability.mode,
    readonly: request.readonly,
    auth: { kind: 'derived', keyId: 'fake', mutual: false },
  };
}
