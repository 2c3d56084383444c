/** What a client reads when LVM, a gate or a target fails: a code to act on, what was found, what to do, and no stderr. */
import { expect } from 'chai';
import { MAX_MESSAGE_BYTES } from '../../../src/csi/status.ts';
import { DriverError } from '../../../src/errors.ts';
import { GateError, type GateErrorReason, GateTimeoutError } from '../../../src/gate/errors.ts';
import { TargetError, type TargetErrorReason, TargetTimeoutError } from '../../../src/iscsi/target/errors.ts';
import { LvmError } from '../../../src/lvm/types.ts';
import { CommandError } from '../../../src/system/commands.ts';
import { FileTimeoutError } from '../../../src/system/files.ts';
import { explainExport, explainFence } from '../../../src/volumes/export-errors.ts';
import type { LvmBackend } from '../../../src/volumes/lvm-backend.ts';
import type { VolumeCapability } from '../../../src/volumes/model.ts';
import { isWipeName, volumeIdForName } from '../../../src/volumes/names.ts';
import { FakeHost, GIB } from './fake-host.ts';

const MOUNT: VolumeCapability = {
  access: { kind: 'mount', fsType: 'ext4', mountFlags: [] },
  mode: 'SINGLE_NODE_WRITER',
};
const NODE = 'node-1/iqn.1993-08.org.debian:01:one';
const ID = volumeIdForName('test', 'a');
const STDERR = '  Command failed: words of LVM';
const COMMAND = new CommandError({
  command: 'dmsetup create gate-x',
  shortMessage: 'dmsetup failed with exit code 1',
  exitCode: 1,
  stderr: STDERR,
  durationMs: 1,
});

async function failure(action: Promise<unknown>): Promise<DriverError> {
  const error = await action.then(
    () => expect.fail('it was to fail'),
    (caught: unknown) => caught,
  );
  if (!(error instanceof DriverError)) throw error;
  expect(Buffer.byteLength(error.message)).to.be.at.most(MAX_MESSAGE_BYTES);
  expect(error.message)
    .to.match(/; found: .+; to do: .+/s)
    .and.not.contain(STDERR.trim());
  expect(error.cause, 'the log has the cause').to.be.instanceOf(Error);
  return error;
}

async function backendWith(host: FakeHost): Promise<LvmBackend> {
  const backend = await host.boot();
  const capacity = { requiredBytes: GIB, limitBytes: 0 };
  await backend.createVolume({ name: 'a', capacity, capabilities: [MOUNT], parameters: {}, source: undefined });
  return backend;
}

const publish = (backend: LvmBackend) =>
  backend.publishVolume({ volumeId: ID, nodeId: NODE, capability: MOUNT, readonly: false, secrets: {} });

describe('error texts of exports', () => {
  const target = (reason: TargetErrorReason, message: string) => new TargetError(reason, message);
  const gate = (reason: GateErrorReason, message: string) => new GateError(reason, message, { cause: COMMAND });
  const enospc = Object.assign(new Error('ENOSPC: no space left on device'), {
    code: 'ENOSPC',
    syscall: 'mkdir',
    path: '/sys/kernel/config/x',
  });
  for (const [error, code, found, action] of [
    [target('portal', 'portal 192.0.2.9:3260: this host does not have the address'), 'UNAVAILABLE', '192.0.2.9', 'ip'],
    [target('kernel', 'LIO is not available: load the modules …'), 'UNAVAILABLE', 'load the modules', 'dmesg'],
    [
      target('device', '/dev/x cannot be exported: something else holds it open'),
      'FAILED_PRECONDITION',
      'holds',
      'lsof',
    ],
    [target('conflict', 'target t is wrong and in use by i'), 'FAILED_PRECONDITION', 'in use by i', 'detach'],
    [target('invalid', 'some initiators have CHAP'), 'FAILED_PRECONDITION', 'have CHAP', 'detach'],
    [target('foreign', 'target t is left alone'), 'FAILED_PRECONDITION', 'left alone', 'iqn-prefix'],
    [new TargetTimeoutError('mkdir of t: not done within 60000 ms'), 'ABORTED', '60000 ms', 'dmesg'],
    [gate('foreign', 'gate-x is not ours'), 'FAILED_PRECONDITION', 'not ours', 'dmsetup info'],
    [gate('in-use', `gate-x is held open (${'table '.repeat(300)})`), 'FAILED_PRECONDITION', 'held open', 'lsof'],
    [gate('backing', 'gate-x cannot be made over /dev/vg/x'), 'UNAVAILABLE', 'cannot be made', 'lvs'],
    [gate('failed', 'gate-x is a stale node'), 'UNAVAILABLE', 'stale node', 'dmesg'],
    [gate('cut-short', 'not consistent'), 'ABORTED', 'not consistent', 'retried'],
    [new GateTimeoutError('an earlier operation still waits'), 'ABORTED', 'still waits', 'retried'],
    [new FileTimeoutError('stat', '/dev/vg/x', 10_000), 'ABORTED', 'stat of /dev/vg/x', 'retried'],
    [COMMAND, 'UNAVAILABLE', 'dmsetup failed with exit code 1', 'log'],
    [enospc, 'UNAVAILABLE', 'the kernel answered ENOSPC to mkdir of /sys/kernel/config/x', 'log'],
  ] as const) {
    it(`${error.name}: ${error.message.slice(0, 60).split('\n')[0]} is ${code}`, async () => {
      const explained = await failure(explainExport(`volume ${ID} could not be exported`, () => Promise.reject(error)));
      expect(explained.code).to.equal(code);
      expect(explained.cause).to.equal(error);
      expect(explained.message.split('; to do: ')[0]).to.contain(found);
      expect(explained.message.split('; to do: ')[1]).to.contain(action);
      const fenced = await failure(explainFence(ID, () => Promise.reject(error)));
      expect(fenced.code).to.equal('ABORTED');
      expect(fenced.message).to.contain(found);
    });
  }

  it('names the package of a program that is not there', async () => {
    const missing = new CommandError({ command: 'dmsetup', shortMessage: 'not found', missing: true, durationMs: 1 });
    expect((await failure(explainExport('x', () => Promise.reject(missing)))).message).to.contain('install');
  });

  it('a bug stays a bug, but no fence ever ends in anything but ABORTED', async () => {
    const bug = new TypeError('undefined is not a function');
    expect(await explainExport('x', () => Promise.reject(bug)).catch((error: unknown) => error)).to.equal(bug);
    const fenced = await failure(explainFence(ID, () => Promise.reject(bug)));
    expect(fenced.code).to.equal('ABORTED');
    expect(fenced.message).not.to.contain(bug.message);
    const clear = new DriverError('NOT_FOUND', 'clear already');
    expect(await explainFence(ID, () => Promise.reject(clear)).catch((error: unknown) => error)).to.equal(clear);
  });
});

describe('a volume that cannot be used as it was asked for', () => {
  it('is told with what to do: not there, or with another file system', async () => {
    const host = new FakeHost();
    const backend = await backendWith(host);
    const messageOf = async (volumeId: string, fsType: string): Promise<string> => {
      const capability: VolumeCapability = { ...MOUNT, access: { kind: 'mount', fsType, mountFlags: [] } };
      const call = backend.publishVolume({ volumeId, nodeId: NODE, capability, readonly: false, secrets: {} });
      return await call.then(
        () => expect.fail('it was to fail'),
        (error: Error) => error.message,
      );
    };
    expect(await messageOf(volumeIdForName('test', 'none'), 'ext4')).to.match(/to do: .*lvs .*cinder-volumes/);
    expect(await messageOf(ID, 'xfs')).to.match(/holds ext4, and xfs was asked for; ask for ext4 .*create a volume/);
  });
});

describe('an adapter that fails', () => {
  let host: FakeHost;
  beforeEach(() => {
    host = new FakeHost();
  });

  it('in ControllerPublishVolume is told with its meaning, and the retry goes on', async () => {
    const backend = await backendWith(host);
    host.failures.set('target-ensure', new TargetError('portal', 'portal 192.0.2.1:3260: no such address'));
    const error = await failure(publish(backend));
    expect(error.code).to.equal('UNAVAILABLE');
    expect(error.message).to.contain(`volume ${ID} could not be exported; found: portal 192.0.2.1:3260`);
    host.failures.set('gate-ensure', new GateTimeoutError('still waits'));
    expect((await failure(publish(backend))).code).to.equal('ABORTED');
    host.failures.clear();
    await publish(backend);
  });

  it('in ControllerExpandVolume is told with its meaning, and the retry shows the new size', async () => {
    const backend = await backendWith(host);
    await publish(backend);
    host.failures.set('gate-ensure', new GateError('in-use', 'gate-x is held open'));
    const expand = () => backend.expandVolume(ID, { requiredBytes: 2 * GIB, limitBytes: 0 }, undefined);
    const error = await failure(expand());
    expect(error.code).to.equal('FAILED_PRECONDITION');
    expect(error.message).to.contain('was expanded, but');
    host.failures.clear();
    await expand();
    expect(host.gates.get(ID)?.sizeBytes).to.equal(2 * GIB);
  });

  it('in zeroing gives a code that is retried, and leaves nothing of the volume', async () => {
    for (const [kind, code] of [
      ['write-failed', 'UNAVAILABLE'],
      ['in-use', 'FAILED_PRECONDITION'],
    ] as const) {
      host = new FakeHost();
      host.failures.set('zero', new LvmError(kind, STDERR, { cause: COMMAND }));
      const error = await failure(backendWith(host));
      expect(error.code).to.equal(code);
      expect(error.message).to.contain(`volume ${ID} could not be zeroed`);
      expect([...host.lvs.keys()].map(isWipeName)).to.deep.equal([true]);
    }
  });

  it('in DeleteVolume or ControllerUnpublishVolume is ABORTED with what was found', async () => {
    const backend = await backendWith(host);
    await publish(backend);
    host.failures.set('target-disable', new TargetTimeoutError('the sessions of i have to end: not done in time'));
    const error = await failure(backend.unpublishVolume(ID, NODE));
    expect(error.code).to.equal('ABORTED');
    expect(error.message).to.contain('could not be cut off from its node in time; found: the sessions of i');
    host.failures.clear();
    host.failures.set('gate-remove', new GateError('in-use', 'gate-x is held open 1 times'));
    expect((await failure(backend.unpublishVolume(ID, NODE))).message).to.contain('held open 1 times');
  });

  it('in a comparison makes no call fail; Probe says what is wrong and what to do', async () => {
    host.failures.set('target-hold', new TargetError('portal', 'portal 192.0.2.1:3260: no such address'));
    const backend = await backendWith(host);
    const { ready, reasons } = await backend.probe();
    expect(ready).to.equal(false);
    expect(reasons).to.have.length(1);
    expect(reasons[0]).to.match(/^the portals cannot be opened; found: portal 192.*; to do: /);
  });

  it('at the start keeps the controller closed, with its words', async () => {
    const { LvmBackend: Fresh } = await import('../../../src/volumes/lvm-backend.ts');
    const deps = host.dependencies();
    const list = () => Promise.reject(new TargetTimeoutError('readdir of targets: not done within 60000 ms'));
    const starting = new Fresh({ ...deps, targets: { ...deps.targets, list } });
    expect((await failure(starting.reconcile())).code).to.equal('ABORTED');
    const refused = await starting.listVolumes().catch((error: DriverError) => error);
    expect(refused).to.have.property('code', 'UNAVAILABLE');
    expect(refused).to.have.property('message').that.contains('readdir of targets');
  });

  it('in Probe is a reason, not a failure', async () => {
    await host.boot();
    const { LvmBackend: Fresh } = await import('../../../src/volumes/lvm-backend.ts');
    const deps = host.dependencies();
    const problems = () => Promise.reject(new FileTimeoutError('readText', '/proc/self/mounts', 10_000));
    const backend = new Fresh({ ...deps, targets: { ...deps.targets, problems } });
    await backend.reconcile();
    expect((await backend.probe()).reasons[0]).to.match(/^the iSCSI target .* cannot be examined; found: readText/);
  });

  it('in Probe names the package that is missing', async () => {
    const backend = await host.boot();
    host.lvm.read = () => Promise.reject(new LvmError('lvm-missing', 'program "lvm" not found on this host'));
    const { ready, reasons } = await backend.probe();
    expect(ready).to.equal(false);
    expect(reasons.join()).to.include('to do: install the package lvm2');
  });
});
