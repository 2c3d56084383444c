/** A node for tests: the real plugin, real files, mounts and file systems on loop devices, over the FAKE initiator. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { DriverError, type ErrorCode } from '../../../../src/errors.ts';
import { NodePlugin } from '../../../../src/node/node-plugin.ts';
import type { NodePublishRequest, StageRequest } from '../../../../src/node/operations.ts';
import { BlockingFiles } from '../../../../src/system/blocking-files.ts';
import { setStepHook } from '../../../../src/system/step.ts';
import type { AccessMode, VolumeCapability, VolumeContent } from '../../../../src/volumes/model.ts';
import type { PublishContext } from '../../../../src/volumes/publish-context.ts';
import { skip } from '../../../support/skip.ts';
import type { DirectCommands } from '../../filesystem/support/direct-commands.ts';
import { type LoopDevice, Loops, MountNamespace, noLoopsReason, run } from '../../filesystem/support/loop-devices.ts';
import { FakeInitiator, type MutableSession } from './fake-initiator.ts';

export const MIB = 1024 * 1024;
export const PORTAL = '10.0.0.1:3260';

/** Made before the tests of the enclosing `describe`, which are skipped where there are no loop devices; there inside tests. */
export function useNodeBench(): { readonly bench: NodeBench } {
  let bench: NodeBench | undefined;
  before(async function () {
    const reason = noLoopsReason();
    if (reason !== undefined) skip(this, reason);
    bench = await NodeBench.create();
  });
  after(async () => {
    await bench?.close();
  });
  return {
    get bench(): NodeBench {
      if (bench === undefined) throw new Error('the bench is there only inside tests');
      return bench;
    },
  };
}

export class NodeBench {
  readonly files = new BlockingFiles();
  readonly loops = new Loops();
  readonly namespace: MountNamespace;
  readonly commands: DirectCommands;
  /** Seen on the "host" and here alike: it is on a file system that both namespaces have. */
  readonly folder: string;
  readonly initiator: FakeInitiator;
  plugin: NodePlugin;
  /** Volumes unstaged of which data was lost. */
  lostData = 0;
  #count = 0;

  private constructor(namespace: MountNamespace) {
    this.namespace = namespace;
    this.commands = namespace.commands();
    this.folder = mkdtempSync(join(tmpdir(), 'node-bench-'));
    this.initiator = new FakeInitiator(join(this.folder, 'sys'));
    this.plugin = this.#newPlugin();
  }

  static async create(): Promise<NodeBench> {
    return new NodeBench(await MountNamespace.create());
  }

  async close(): Promise<void> {
    setStepHook(undefined);
    await this.files.close();
    await this.namespace.close();
    this.loops.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The process dies and a new one starts: nothing in memory survives. */
  restart(): NodePlugin {
    setStepHook(undefined);
    this.plugin = this.#newPlugin();
    return this.plugin;
  }

  /** From that point on nothing more is done by the running process, as if it had been killed there. */
  dieAt(point: string): void {
    let isDead = false;
    setStepHook(async (reached) => {
      isDead ||= reached === point;
      if (isDead) throw new Error(`killed at ${point}`);
    });
  }

  #newPlugin(): NodePlugin {
    return new NodePlugin({
      initiator: this.initiator,
      files: this.files,
      commands: this.commands,
      onLostData: () => {
        this.lostData += 1;
      },
      sysRoot: join(this.folder, 'sys'),
      mountInfoPath: this.namespace.mountInfoPath,
      config: {
        nodeName: 'node-1',
        initiatorNameFile: '/etc/iscsi/initiatorname.iscsi',
        maxVolumes: 40,
        loginConcurrency: 4,
        loginTimeoutMs: 1_000,
        replacementTimeoutSeconds: 900,
        flushTimeoutMs: 5_000,
        hostRoot: this.namespace.root,
        stateDir: join(this.folder, 'state'),
      },
    });
  }

  /** A volume with its target; `make` fills the disk. */
  volume(make: (loop: LoopDevice) => void, options: { content?: VolumeContent; sizeBytes?: number } = {}): BenchVolume {
    this.#count += 1;
    const loop = this.loops.make(options.sizeBytes ?? 16 * MIB);
    make(loop);
    return new BenchVolume(this, this.#count, loop, options.content ?? { kind: 'filesystem', fsType: 'ext4' });
  }

  ext4(sizeBytes = 16 * MIB): BenchVolume {
    return this.volume((loop) => run('mkfs.ext4', '-q', '-F', '-b', '4096', '-T', 'default', loop.path), { sizeBytes });
  }

  raw(): BenchVolume {
    return this.volume(() => undefined, { content: { kind: 'raw' } });
  }
}

export class BenchVolume {
  readonly bench: NodeBench;
  readonly id: string;
  loop: LoopDevice;
  readonly content: VolumeContent;
  readonly targetIqn: string;
  readonly serial: string;
  nonce: string;
  readonly stagingPath: string;

  constructor(bench: NodeBench, number: number, loop: LoopDevice, content: VolumeContent) {
    this.bench = bench;
    const digits = String(number).padStart(12, '0');
    this.id = `volume-00000000-0000-4000-8000-${digits}`;
    this.loop = loop;
    this.content = content;
    this.targetIqn = `iqn.2010-10.org.openstack:${this.id}`;
    this.serial = `0123456789abcdef0123${digits}`;
    this.nonce = `a${digits}`.padStart(32, '0');
    this.stagingPath = join(bench.folder, `stage ${number}`);
    run('mkdir', this.stagingPath);
    bench.initiator.targets.set(this.targetIqn, {
      targetIqn: this.targetIqn,
      name: loop.name,
      majorMinor: loop.majorMinor,
      serial: this.serial,
      sizeBytes: Number(run('blockdev', '--getsize64', loop.path)),
      readOnly: false,
    });
  }

  get target(): NonNullable<ReturnType<FakeInitiator['targets']['get']>> {
    const target = this.bench.initiator.targets.get(this.targetIqn);
    if (target === undefined) throw new Error('no target');
    return target;
  }

  /** The session ends by itself, and the next login brings the disk under another name, as the kernel does it. */
  loseSession(): void {
    const { initiator, loops } = this.bench;
    initiator.dropSession(this.targetIqn);
    this.loop = loops.attach(this.loop.image);
    this.target.name = this.loop.name;
    this.target.majorMinor = this.loop.majorMinor;
  }

  dispose(): void {
    this.bench.initiator.targets.delete(this.targetIqn);
    this.bench.loops.detach(this.loop);
  }

  get session(): MutableSession {
    const session = this.bench.initiator.live.find(({ targetIqn }) => targetIqn === this.targetIqn);
    if (session === undefined) throw new Error(`no session to ${this.targetIqn}`);
    return session;
  }

  get context(): PublishContext {
    const { targetIqn, serial, nonce, content } = this;
    return {
      targetIqn,
      witnessIqn: 'iqn.2010-10.org.openstack:portal-cinder-volumes',
      portals: [PORTAL],
      lun: 0,
      serial,
      nonce,
      content,
      sizeBytes: this.target.sizeBytes,
      authentication: 'derived',
      chap: { user: `user-${nonce.slice(-6)}`, password: 'not-to-be-seen-anywhere' },
      mutualChap: undefined,
    };
  }

  capability(mode: AccessMode = 'SINGLE_NODE_WRITER', mountFlags: readonly string[] = []): VolumeCapability {
    return {
      access: this.content.kind === 'raw' ? { kind: 'block' } : { kind: 'mount', fsType: '', mountFlags },
      mode,
    };
  }

  async stage(changes: Partial<StageRequest> = {}): Promise<void> {
    await this.bench.plugin.stage({
      volumeId: this.id,
      publishContext: this.context,
      stagingPath: this.stagingPath,
      capability: this.capability(),
      ...changes,
    });
  }

  async unstage(): Promise<void> {
    await this.bench.plugin.unstage(this.id, this.stagingPath);
  }

  targetPath(name = 'a'): string {
    return join(this.bench.folder, `target-${this.id.slice(-3)}-${name}`);
  }

  async publish(changes: Partial<NodePublishRequest> = {}): Promise<void> {
    await this.bench.plugin.publish({
      volumeId: this.id,
      stagingPath: this.stagingPath,
      targetPath: this.targetPath(),
      capability: this.capability(),
      readonly: false,
      ...changes,
    });
  }

  async unpublish(name = 'a'): Promise<void> {
    await this.bench.plugin.unpublish(this.id, this.targetPath(name));
  }

  sh(script: string): string {
    return this.bench.namespace.run('sh', '-c', script);
  }

  get recordPath(): string {
    return join(this.bench.folder, 'state/node', `${this.id}.json`);
  }

  get record(): Record<string, unknown> | undefined {
    return existsSync(this.recordPath) ? JSON.parse(readFileSync(this.recordPath, 'utf8')) : undefined;
  }

  /** Lines of the mount table that have to do with this volume. */
  get mounts(): string[] {
    const lines = readFileSync(this.bench.namespace.mountInfoPath, 'utf8').split('\n');
    const stage = this.stagingPath.replaceAll(' ', '\\040');
    return lines.filter((line) => line.includes(` ${stage} `) || line.includes(`/target-${this.id.slice(-3)}-`));
  }

  /** Of a publish nothing is left; the volume is still staged. */
  expectNothingLeftButStaging(): void {
    expect(this.record).to.deep.include({ targets: [] });
    expect(existsSync(this.targetPath())).to.equal(false);
  }

  /** Nothing of it is left on the node. */
  expectNothingLeft(): void {
    expect(this.bench.initiator.live.filter(({ targetIqn }) => targetIqn === this.targetIqn)).to.deep.equal([]);
    const records = [...this.bench.initiator.iscsiRecords].filter((record) => record.startsWith(this.targetIqn));
    expect(records, 'iSCSI records').to.deep.equal([]);
    expect(this.mounts).to.deep.equal([]);
    expect(this.record).to.equal(undefined);
    for (const name of ['a', 'b']) expect(existsSync(this.targetPath(name)), name).to.equal(false);
  }
}

export async function failure(action: Promise<unknown>, code: ErrorCode, words?: RegExp): Promise<DriverError> {
  const error = await action.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!(error instanceof DriverError)) throw new Error('no DriverError', { cause: error });
  expect(error.code, error.message).to.equal(code);
  if (words !== undefined) expect(error.message).to.match(words);
  expect(error.message).not.to.match(/not-to-be-seen/);
  expect(Buffer.byteLength(error.message), error.message).to.be.below(900);
  return error;
}
