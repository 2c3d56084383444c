/** A worker that is lost: its volumes move, and nothing that it still sends reaches them. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import type { Machine } from '../lab/machine.ts';
import { bench, driverReady, useCluster } from './support/bench.ts';
import type { Kube } from './support/kube.ts';
import { claim, pod } from './support/manifests.ts';
import { expectLines, writerPod, writesOn } from './support/writer.ts';

const OUT_OF_SERVICE = 'node.kubernetes.io/out-of-service';
/** Until the node is seen as lost (50 s), the pod evicted and the volume attached elsewhere. */
const MOVE_TIMEOUT_MS = 900_000;
/** The controller-manager's own 6 minutes, after the node was seen as lost and the pod deleted by force. */
const FORCE_DETACH_TIMEOUT_MS = 1_500_000;
/**
 * A worker that thaws: the old pod's process waits in the kernel for the volume that was taken from it, and cannot be killed
 * before its I/O ends. The node plugin sees to that (src/node/revocation.ts), before the replacement timeout of 15 minutes.
 */
const CLEAN_TIMEOUT_MS = 600_000;
/** Longer than a kernel keeps what is dirty (30 s) and a journal its transaction (5 s). */
const AT_REST_MS = 40_000;

describe('a worker is lost', () => {
  useCluster();

  afterEach('both workers are back', async function () {
    this.timeout(1_500_000);
    const { workers, kube } = bench();
    for (const worker of workers) {
      await taint(worker, false);
      await nodeIs(kube, worker, 'True');
    }
    await driverReady();
  });

  it('power cut, with the out-of-service taint: pod and volume move; when the worker is back it is clean', async () => {
    const { kube, workers } = bench();
    const [lost, other] = workers;
    const line = await beginWriting(kube, lost);
    await lost.powerCut();
    await nodeIs(kube, lost, 'Unknown');
    await taint(lost, true);
    await moved(kube, other, line, MOVE_TIMEOUT_MS);
    await lost.boot();
    await taint(lost, false);
    await nodeIs(kube, lost, 'True');
    await nothingOfTheVolume(lost);
  });

  it('frozen, still writing, with the taint: after it thaws, not one byte of it reaches the volume', async function () {
    this.timeout(CLEAN_TIMEOUT_MS + MOVE_TIMEOUT_MS + 900_000);
    const { kube, workers } = bench();
    const [lost, other] = workers;
    const line = await beginWriting(kube, lost);
    await lost.freeze();
    await nodeIs(kube, lost, 'Unknown');
    await taint(lost, true);
    const volume = await moved(kube, other, line, MOVE_TIMEOUT_MS);
    // Past every cache of the storage host, and once the other node's file system has nothing to write any more: it only
    // reads, so that what changes from then on, another has written.
    const checksum = () =>
      bench()
        .storage.exec(`dd if=${volume} bs=1M iflag=direct status=none | sha256sum`, { timeoutMs: 120_000 })
        .then(({ stdout }) => stdout);
    let before = await checksum();
    await kube.waitFor('the file system of the reader is at rest', async () => {
      await delay(AT_REST_MS);
      const earlier = before;
      before = await checksum();
      return before === earlier;
    });
    await lost.thaw();
    await taint(lost, false);
    await nodeIs(kube, lost, 'True');
    await nothingOfTheVolume(lost);
    await delay(AT_REST_MS);
    expect(await checksum(), 'the volume as the other node left it').to.equal(before);
  });

  it('power cut, without the taint: after 6 minutes the controller-manager detaches by force, and the pod moves', async () => {
    const { kube, workers } = bench();
    const [lost, other] = workers;
    const line = await beginWriting(kube, lost);
    await lost.powerCut();
    await nodeIs(kube, lost, 'Unknown');
    // What an administrator does, or a StatefulSet's owner: without it the pod would wait for its node for ever.
    await kube.deletePods(['writer'], 0);
    await moved(kube, other, line, FORCE_DETACH_TIMEOUT_MS);
    await lost.boot();
    await nodeIs(kube, lost, 'True');
    await nothingOfTheVolume(lost);
  });
});

async function beginWriting(kube: Kube, worker: Machine): Promise<number> {
  await kube.apply(claim('data', { size: '64Mi' }), writerPod('writer', 'data', { node: worker.name }));
  await kube.podReady('writer');
  return writesOn(kube, 'writer', 20);
}

/** Waits until a reader on the other node has the volume with every line. @returns path of its LV on the storage host */
async function moved(kube: Kube, other: Machine, line: number, timeoutMs: number): Promise<string> {
  await kube.apply(pod('reader', 'data', { node: other.name, readOnly: true }));
  await kube.podReady('reader', timeoutMs);
  await expectLines(kube, 'reader', line);
  const { metadata, spec } = await kube.claimBound('data');
  const { items } = await kube.storage.listVolumeAttachment();
  const nodes = items.filter((each) => each.spec.source.persistentVolumeName === metadata?.name);
  expect(nodes.map((each) => each.spec.nodeName)).to.deep.equal([other.name]);
  const handle = spec?.csi?.volumeHandle ?? '';
  const { stdout } = await bench().storage.exec(
    `lvs --noheadings -o lv_path,lv_name cinder-volumes | awk '{print $1}' | grep -F '${handle.split('/').at(-1)}'`,
  );
  return stdout.trim();
}

/** Neither session nor mount, and once kubelet and the node plugin have looked at what they find: no path, record or file. */
async function nothingOfTheVolume(worker: Machine): Promise<void> {
  await worker.waitFor(
    `for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && exit 1; done
    ! grep "kubernetes.io~csi" /proc/self/mountinfo &&
    [ -z "$(find /var/lib/kubelet/pods -path '*/kubernetes.io~csi/*'; ls -A /etc/iscsi/nodes /var/lib/lvm-iscsi-csi/node | grep -v ':$')" ]`,
    CLEAN_TIMEOUT_MS,
    2_000,
  );
}

async function taint(worker: Machine, present: boolean): Promise<void> {
  const how = present ? `${OUT_OF_SERVICE}=nodeshutdown:NoExecute` : `${OUT_OF_SERVICE}-`;
  const { exitCode, stderr } = await bench().cluster.kubectl(['taint', '--overwrite', 'node', worker.name, how]);
  if (exitCode !== 0 && !(stderr.includes('not found') && !present)) throw new Error(stderr);
}

async function nodeIs(kube: Kube, worker: Machine, status: 'True' | 'Unknown'): Promise<void> {
  await kube.waitFor(
    `Ready of ${worker.name} is ${status}`,
    async () => {
      const node = await kube.core.readNode({ name: worker.name });
      return node.status?.conditions?.find(({ type }) => type === 'Ready')?.status === status;
    },
    { timeoutMs: 900_000 },
  );
}
