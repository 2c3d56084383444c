import { expect } from 'chai';
import { CsiError } from '../integration/support/csi-client.ts';
import { type Deployment, deploy, startLab } from '../integration/support/deployment.ts';
import type { DriverUnit } from '../integration/support/driver-unit.ts';
import { untilDone } from '../integration/support/retry.ts';
import { nodeOf, useDeployment } from '../integration/support/suite.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';
import type { Machine } from '../lab/machine.ts';
import { createProgress } from '../lab/progress.ts';

const VOLUMES = 20;
const DOWN_MS = 180_000;

/**
 * On every volume: appends numbered blocks to a file, fsync after each, and notes the last number that was acknowledged
 * in memory of the node. Whole blocks, so that no later write repeats what an earlier one has lost. Ends with an error
 * at the first I/O error.
 */
const WRITER = `
import os, sys, threading, time
paths = sys.argv[1:]
def work(path, index):
    fd = os.open(path + '/journal', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while not os.path.exists('/run/stop-writer'):
        number += 1
        try:
            os.write(fd, b'%08d' % number + bytes(4088))
            os.fsync(fd)
        except OSError as error:
            print('volume', index, 'error', error, flush=True)
            open('/run/writer-failed', 'w').close()
            os._exit(1)
        with open('/run/acknowledged.%d.new' % index, 'w') as out: out.write(str(number))
        os.replace('/run/acknowledged.%d.new' % index, '/run/acknowledged.%d' % index)
        time.sleep(0.05)
threads = [threading.Thread(target=work, args=(path, index)) for index, path in enumerate(paths)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('clean', flush=True)
`;

/**
 * Arguments: file, last acknowledged number. Prints the first block that is not what was written, or that the file system
 * says that it is damaged; nothing when all is there. Exit code 1 when it could not look.
 */
const CHECK = `
import errno, os, sys
path, last = sys.argv[1], int(sys.argv[2])
if not os.path.ismount(os.path.dirname(path)): sys.exit('nothing is mounted there: ' + path)
number = 0
try:
    with open(path, 'rb') as file:
        while block := file.read(4096):
            number += 1
            if block[:8] != b'%08d' % number: sys.exit(print('block', number, 'holds', block[:8], 'acknowledged', last))
except FileNotFoundError:
    sys.exit(print('no file', last, 'acknowledged'))
except OSError as error:
    # ext4's own: a structure that is not as it must be, a checksum that does not fit. EIO may be the path to the disk.
    if error.errno not in (errno.EUCLEAN, errno.EBADMSG): raise
    sys.exit(print('file system damaged:', error.strerror, 'after', number, 'blocks', last, 'acknowledged'))
if number < last: print(number, 'blocks', last, 'acknowledged')
`;

/** What NodeStageVolume says of a disk on which the file system itself is broken. */
const REFUSED_AS_DAMAGED =
  /^NodeStageVolume: .*(must hold ext4, made by the controller, and does not|its ext4 file system does not fit its disk|has damage that e2fsck -p does not repair|could not be mounted as ext4 at .* the kernel refuses it)/s;

/** What a fresh attach shows of one volume; both are '' when every acknowledged block is there. */
interface Journal {
  /** What was read: blocks that are not there, or a file system that is damaged. */
  readonly found: string;
  /** What kept us from reading; it says nothing about the data. */
  readonly error: string;
}

interface Outcome {
  /** Last number that fsync acknowledged before the end, for each volume. */
  readonly acknowledged: readonly number[];
  /** The writer's own words: `clean`, or the first error. */
  readonly writer: string;
  /** File systems that went read-only. */
  readonly readOnly: string;
  /** What is wrong with each journal, read from the disk after a fresh attach. */
  readonly damage: readonly string[];
  /** Of each journal that could not be read. */
  readonly errors: readonly string[];
}

/**
 * Writers on every volume; the power of the storage host fails in the midst of it; the driver starts three minutes
 * later; the writers go on for a while, end, and every volume is attached anew and read.
 * @param lie the disk acknowledges flushes and forgets them, from before the writers start until the cut
 */
async function underLoad(deployment: Deployment, lie: boolean): Promise<Outcome> {
  const node = nodeOf(deployment, 0);
  const { storage } = deployment.lab;
  const volumes = Array.from(
    { length: VOLUMES },
    (_, index) => new TestVolume(deployment, { name: `power-${index}`, sizeBytes: 64 * MIB }),
  );
  // All at once on emulated machines: a call that takes longer than its deadline is repeated, as a CO does.
  const progress = createProgress('power');
  await progress.step(`${VOLUMES} volumes up to a mounted file system`, () =>
    Promise.all(volumes.map((volume) => untilDone(() => volume.up(node)))),
  );
  if (lie) {
    progress.line('the storage host starts again, its disk lies from now on');
    // What there is so far, the attachments too, is safe; only what the writers are told is a lie.
    await node.machine.exec('sync');
    await deployment.controller.stop();
    await storage.powerCut();
    for (const disk of storage.power.disks) disk.dropFlushes = true;
    await storage.boot();
    await deployment.controller.start();
  }
  await node.machine.writeFile('/root/writer.py', WRITER);
  await node.machine.writeFile('/root/check.py', CHECK);
  const writer = await node.machine.spawn(
    `python3 /root/writer.py ${volumes.map((volume) => volume.targetPath()).join(' ')}`,
  );
  progress.line('writers begin');
  for (const index of volumes.keys()) await node.machine.waitFor(acknowledgedAtLeast(index, 5), 240_000);

  progress.line('power cut');
  const cutAt = performance.now();
  await storage.powerCut();
  const atCut = await acknowledgedNumbers(node.machine);
  for (const disk of storage.power.disks) disk.dropFlushes = false;
  await storage.boot();
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, DOWN_MS - (performance.now() - cutAt))));
  await deployment.controller.start();
  progress.line('the driver runs again');
  // Every volume gets further than it was; a writer that has met an error never does.
  for (const [index, number] of atCut.entries()) {
    if (writer.running)
      await node.machine.waitFor(`${acknowledgedAtLeast(index, number + 3)} || [ -e /run/writer-failed ]`, 300_000);
  }
  await node.machine.exec('touch /run/stop-writer');
  await writer.wait(120_000);
  await node.machine.exec('rm /run/stop-writer');
  const acknowledged = await acknowledgedNumbers(node.machine);
  const readOnly = await readOnlyMounts(node.machine);
  const [first] = volumes;
  if (!lie && readOnly === '' && first !== undefined) await proveReadOnlyIsSeen(first, node.machine);
  const damage: string[] = [];
  const errors: string[] = [];
  for (const [index, volume] of volumes.entries()) {
    progress.line(`reading volume ${index + 1} of ${VOLUMES} after a fresh attach`);
    const { found, error } = await journalAfterFreshAttach(volume, node, acknowledged[index] ?? 0);
    if (found !== '') damage.push(`volume ${index}: ${found}`);
    if (error !== '') errors.push(`volume ${index}: ${error}`);
  }
  console.log(`      acknowledged at the cut: ${atCut.join(' ')}; at the end: ${acknowledged.join(' ')}`);
  return { acknowledged, writer: writer.lines.join('\n'), readOnly, damage, errors };
}

/**
 * Mounts that cannot be written through. A file system that turns read-only after an error says so in the options of its
 * superblock alone, the last field; those of its mounts stay as they were.
 */
async function readOnlyMounts(node: Machine): Promise<string> {
  const { stdout } = await node.exec(
    `grep ' /var/lib/kubelet/' /proc/self/mountinfo | awk '$6 ~ /^ro(,|$)/ || $NF ~ /^ro(,|$)/ || $NF ~ /,(emergency_ro|shutdown)(,|$)/'`,
  );
  return stdout;
}

/** A superblock made read-only by hand, by way of the staging mount, is seen at the target too. Nobody writes any more. */
async function proveReadOnlyIsSeen(volume: TestVolume, node: Machine): Promise<void> {
  await node.exec(`mount -o remount,ro ${volume.stagingPath}`);
  const seen = (await readOnlyMounts(node)).split('\n').map((line) => line.split(' '));
  await node.exec(`mount -o remount,rw ${volume.stagingPath}`);
  const atTarget = seen.find((fields) => fields[4] === volume.targetPath());
  expect(atTarget?.[5], 'a superblock that is read-only, under a mount that is not').to.match(/^rw(,|$)/);
  expect(await readOnlyMounts(node), 'writable again').to.equal('');
}

function acknowledgedAtLeast(index: number, number: number): string {
  return `[ "$(cat /run/acknowledged.${index} 2>/dev/null || echo 0)" -ge ${number} ]`;
}

async function acknowledgedNumbers(node: Machine): Promise<number[]> {
  const { stdout } = await node.exec(`for i in $(seq 0 ${VOLUMES - 1}); do cat /run/acknowledged.$i; echo; done`);
  const numbers = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);
  // One that is missing would give its place to the next.
  expect(numbers, 'acknowledged numbers').to.have.length(VOLUMES);
  return numbers;
}

/** Every number from 1 to the last acknowledged one, without a hole? The volume is left detached when all goes well. */
async function journalAfterFreshAttach(volume: TestVolume, node: DriverUnit, last: number): Promise<Journal> {
  let found = '';
  try {
    await volume.takeFrom(node);
    await volume.bringTo(node);
    found = (await node.machine.exec(`python3 /root/check.py ${volume.targetPath()}/journal ${last}`)).stdout;
    await volume.takeFrom(node);
    return { found, error: '' };
  } catch (error) {
    if (error instanceof CsiError && REFUSED_AS_DAMAGED.test(error.message)) return { found: error.message, error: '' };
    return { found, error: String(error) };
  }
}

describe('power cut of the storage host, under a verified write load', () => {
  // A disk that loses what was never flushed; scrubbing it whole would take minutes.
  const disks = { nodes: 1, scrub: false, storage: { disks: [{ name: 'vg' }] } } as const;

  describe('control: the disk acknowledges flushes and forgets them', () => {
    it('acknowledged data is lost, and the check below sees it', async function () {
      this.timeout(1_800_000);
      // Not by useDeployment: after this nothing can be in order.
      await using lab = await startLab(disks);
      const outcome = await underLoad(await deploy(lab, disks), true);
      // What could not be looked at is no proof.
      expect(outcome.damage, `lost or damaged; not readable: ${outcome.errors.join('\n')}`).not.to.deep.equal([]);
      console.log(
        `      lost, as it must be: ${outcome.damage.length} of ${VOLUMES} volumes; ${outcome.damage[0]}; not readable: ${outcome.errors.length}`,
      );
    });
  });

  describe('the disk is honest', () => {
    const suite = useDeployment(disks);

    it(`${VOLUMES} volumes: I/O waits, and goes on without an error ${DOWN_MS / 60_000} minutes later; every acknowledged fsync is there`, async function () {
      this.timeout(1_800_000);
      const { deployment } = suite;
      const outcome = await underLoad(deployment, false);
      expect(outcome.writer).to.match(/^clean$/m);
      expect(outcome.readOnly).to.equal('');
      expect(outcome.errors).to.deep.equal([]);
      expect(outcome.damage).to.deep.equal([]);
      const client = await deployment.controller.client();
      const { entries } = await client.call<{ entries: { volume: { volume_id: string } }[] }>(
        'Controller',
        'ListVolumes',
        {},
      );
      expect(entries).to.have.length(VOLUMES);
      for (const { volume } of entries) await client.call('Controller', 'DeleteVolume', volume);
    });
  });
});

describe('reboot of a node with staged volumes', () => {
  const suite = useDeployment({ nodes: 1 });

  it('ends without a hang, and the volumes come back by the calls that kubelet makes', async function () {
    this.timeout(900_000);
    const { deployment } = suite;
    const node = nodeOf(deployment, 0);
    const volumes = [];
    for (const [index, kind] of (['ext4', 'xfs', 'block'] as const).entries()) {
      volumes.push(await new TestVolume(deployment, { name: `reboot-${index}`, kind, sizeBytes: 320 * MIB }).up(node));
    }
    const [ext4] = volumes;
    await node.machine.exec(`echo kept > ${ext4?.targetPath()}/file && sync -f ${ext4?.targetPath()}/file`);
    const { downMs } = await node.machine.reboot(600_000);
    console.log(`      down after ${(downMs / 1000).toFixed(0)} s`);
    expect(downMs).to.be.lessThan(120_000);
    await node.start();
    for (const volume of volumes) {
      await volume.stage(node);
      await volume.publish(node);
    }
    await node.machine.exec(`[ "$(cat ${ext4?.targetPath()}/file)" = kept ]`);
    for (const volume of volumes) await volume.down(node);
  });
});
