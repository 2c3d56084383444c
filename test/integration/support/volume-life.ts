/** A volume through the calls that the sidecars and kubelet make, each with Kubernetes' own paths and arguments. */
import { blockCapability, type Message, type Mode, mountCapability } from './csi-client.ts';
import type { Deployment } from './deployment.ts';
import type { DriverUnit } from './driver-unit.ts';

export const MIB = 1024 ** 2;
const KUBELET = '/var/lib/kubelet/plugins/kubernetes.io/csi/lvm-iscsi-csi';

export interface VolumeSpec {
  readonly name: string;
  readonly sizeBytes?: number;
  readonly kind?: 'ext4' | 'xfs' | 'block';
  readonly mode?: Mode;
  readonly mountFlags?: string[];
}

export class TestVolume {
  readonly deployment: Deployment;
  readonly spec: VolumeSpec;
  readonly capability: Message;
  id = '';
  sizeBytes = 0;
  /** publish_context for each node that it is attached to. */
  readonly contexts = new Map<string, Record<string, string>>();

  constructor(deployment: Deployment, spec: VolumeSpec) {
    this.deployment = deployment;
    this.spec = spec;
    const kind = spec.kind ?? 'ext4';
    this.capability = kind === 'block' ? blockCapability(spec.mode) : mountCapability(kind, spec.mode, spec.mountFlags);
  }

  async create(): Promise<this> {
    const response = await this.#controller<{ volume: { volume_id: string; capacity_bytes: string } }>(
      'CreateVolume',
      this.createRequest(),
    );
    this.id = response.volume.volume_id;
    this.sizeBytes = Number(response.volume.capacity_bytes);
    return this;
  }

  createRequest(): Message {
    const sizeBytes = this.spec.sizeBytes ?? 64 * MIB;
    return {
      name: this.spec.name,
      capacity_range: { required_bytes: String(sizeBytes) },
      volume_capabilities: [this.capability],
    };
  }

  async attach(node: DriverUnit, readonly = false): Promise<Record<string, string>> {
    const response = await this.#controller<{ publish_context: Record<string, string> }>(
      'ControllerPublishVolume',
      await this.attachRequest(node, readonly),
    );
    this.contexts.set(node.machine.name, response.publish_context);
    return response.publish_context;
  }

  async attachRequest(node: DriverUnit, readonly = false): Promise<Message> {
    return { volume_id: this.id, node_id: nodeId(node), volume_capability: this.capability, readonly };
  }

  async detach(node: DriverUnit): Promise<void> {
    await this.#controller('ControllerUnpublishVolume', { volume_id: this.id, node_id: nodeId(node) });
    this.contexts.delete(node.machine.name);
  }

  stageRequest(node: DriverUnit): Message {
    return {
      volume_id: this.id,
      publish_context: this.contexts.get(node.machine.name) ?? {},
      staging_target_path: this.stagingPath,
      volume_capability: this.capability,
    };
  }

  async stage(node: DriverUnit): Promise<void> {
    // kubelet makes the folder.
    await node.machine.exec(`mkdir -p '${this.stagingPath}'`);
    await (await node.client()).call('Node', 'NodeStageVolume', this.stageRequest(node));
  }

  async unstage(node: DriverUnit): Promise<void> {
    await (await node.client()).call('Node', 'NodeUnstageVolume', {
      volume_id: this.id,
      staging_target_path: this.stagingPath,
    });
    await node.machine.exec(`rmdir '${this.stagingPath}' 2>/dev/null || true`);
  }

  publishRequest(pod = 'pod-1', readonly = false): Message {
    return {
      volume_id: this.id,
      staging_target_path: this.stagingPath,
      target_path: this.targetPath(pod),
      volume_capability: this.capability,
      readonly,
    };
  }

  async publish(node: DriverUnit, pod = 'pod-1', readonly = false): Promise<void> {
    const target = this.targetPath(pod);
    await node.machine.exec(`mkdir -p '${target.slice(0, target.lastIndexOf('/'))}'`);
    await (await node.client()).call('Node', 'NodePublishVolume', {
      ...this.publishRequest(pod, readonly),
      publish_context: this.contexts.get(node.machine.name) ?? {},
    });
  }

  async unpublish(node: DriverUnit, pod = 'pod-1'): Promise<void> {
    await (await node.client()).call('Node', 'NodeUnpublishVolume', {
      volume_id: this.id,
      target_path: this.targetPath(pod),
    });
  }

  async expand(sizeBytes: number): Promise<Message> {
    const response = await this.#controller<Message>('ControllerExpandVolume', {
      volume_id: this.id,
      capacity_range: { required_bytes: String(sizeBytes) },
      volume_capability: this.capability,
    });
    this.sizeBytes = Number(response['capacity_bytes']);
    return response;
  }

  async nodeExpand(node: DriverUnit): Promise<Message> {
    return await (await node.client()).call('Node', 'NodeExpandVolume', {
      volume_id: this.id,
      volume_path: this.targetPath(),
      staging_target_path: this.stagingPath,
      capacity_range: { required_bytes: String(this.sizeBytes) },
      volume_capability: this.capability,
    });
  }

  async delete(): Promise<void> {
    await this.#controller('DeleteVolume', { volume_id: this.id });
  }

  /** From nothing to a pod's path. */
  async up(node: DriverUnit): Promise<this> {
    await this.create();
    await this.bringTo(node);
    return this;
  }

  async bringTo(node: DriverUnit): Promise<void> {
    await this.attach(node);
    await this.stage(node);
    await this.publish(node);
  }

  async takeFrom(node: DriverUnit): Promise<void> {
    await this.unpublish(node);
    await this.unstage(node);
    await this.detach(node);
  }

  async down(node: DriverUnit): Promise<void> {
    await this.takeFrom(node);
    await this.delete();
  }

  get stagingPath(): string {
    return `${KUBELET}/${this.id}/globalmount`;
  }

  targetPath(pod = 'pod-1'): string {
    return `/var/lib/kubelet/pods/${pod}/volumes/kubernetes.io~csi/${this.id}/mount`;
  }

  /** LV on the storage host. */
  get lvPath(): string {
    return `/dev/cinder-volumes/${this.id}`;
  }

  get gatePath(): string {
    return `/dev/mapper/gate-${this.id.slice('volume-'.length)}`;
  }

  get targetIqn(): string {
    return `iqn.2010-10.org.openstack:${this.id}`;
  }

  async #controller<T = Message>(method: string, request: Message): Promise<T> {
    return await (await this.deployment.controller.client()).call<T>('Controller', method, request);
  }
}

export function nodeId(node: DriverUnit): string {
  return `${node.machine.name}/${node.machine.iqn}`;
}
