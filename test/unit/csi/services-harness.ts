/** Both services over real gRPC, against FAKE plugins (memory and folders only): what the wire itself decides. */
import { csiServices } from '../../../src/csi/services.ts';
import { type Message, mountCapability } from '../../integration/support/csi-client.ts';
import { FakeBackend, fakeVolumeId } from '../../sanity/fake/fake-backend.ts';
import { FAKE_NODE_ID, FakeNode } from '../../sanity/fake/fake-node.ts';
import { type Harness, startHarness } from './harness.ts';

/** So short that a test which waits for ABORTED does not wait long. */
const PATIENCE_MS = 50;

/** Set anew before each test of the enclosing `describe`, once `useServices` was called there. */
export let harness: Harness;
export let backend: FakeBackend;
export let node: FakeNode;

export function useServices(): void {
  beforeEach(async () => {
    backend = new FakeBackend([FAKE_NODE_ID]);
    node = new FakeNode();
    const controllerOptions = { backend, volumeIdForName: fakeVolumeId };
    const identity = { driverName: 'x.example', version: '1.2.3' };
    const { services } = csiServices({ ...identity, controller: controllerOptions, node, patienceMs: PATIENCE_MS });
    harness = await startHarness(services);
  });
  afterEach(async () => await harness.close());
}

export async function controller<T = Message>(method: string, request: Message = {}): Promise<T> {
  return await harness.client.call<T>('Controller', method, request);
}

export async function onNode<T = Message>(method: string, request: Message = {}): Promise<T> {
  return await harness.client.call<T>('Node', method, request);
}

export async function create(name: string, more: Message = {}): Promise<string> {
  const request = { name, volume_capabilities: [mountCapability()], ...more };
  return (await controller<{ volume: { volume_id: string } }>('CreateVolume', request)).volume.volume_id;
}

export async function publish(volume_id: string): Promise<Record<string, string>> {
  const request = { volume_id, node_id: FAKE_NODE_ID, volume_capability: mountCapability() };
  return (await controller<{ publish_context: Record<string, string> }>('ControllerPublishVolume', request))
    .publish_context;
}

export function claimedTypes(response: unknown): string[] {
  return (response as { capabilities: { rpc: { type: string } }[] }).capabilities.map(({ rpc }) => rpc.type);
}
