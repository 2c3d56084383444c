import { expect } from 'chai';
import { nodeOf, useDeployment } from '../integration/support/suite.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';
import { Lab } from '../lab/lab.ts';
import type { Machine } from '../lab/machine.ts';

const VOLUMES = 20;
const DOWN_MS = 180_000;

/**
 * On every volume: appends numbered lines to a file, fsync after each, and notes the last number that was acknowledged
 * in memory of the node. Ends with an error at the first I/O error.
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
            os.write(fd, b'%08d\\n' % number)
            os.fsync(fd)
        except OSError as error:
            print('volume', index, 'error', error, flush=True)
            os._exit(1)
        with open('/run/acknowledged.%d' % index, 'w') as out: out.write(str(number))
        time.sleep(0.05)
threads = [threading.Thread(target=work, args=(path, index)) for index, path in enumerate(paths)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('clean', flush=True)
`;

describe('power cut of the storage host', () => {
  it('control run: where the disk ignores flushes, a power cut loses acknowledged data (so the test below can fail)', async function () {
    this.timeout(900_000);
    await using lab = await Lab.start({ nodes: 0, storage: { disks: [{ name: 'vg', dropFlushes: true }] } });
    expect(await survivesCut(lab.storage), 'flushes dropped').to.equal(false);
    await using honest = await Lab.start({ nodes: 0 });
    expect(await survivesCut(honest.storage), 'flushes honoured').to.equal(true);
  });

  async function survivesCut(storage: Machine): Promise<boolean> {
    await storage.exec(
      `dd if=/dev/urandom of=/root/block bs=1M count=1 status=none && dd if=/root/block of=${storage.disks[0]} bs=1M oflag=direct conv=fsync status=none`,
    );
    const { stdout: written } = await storage.exec('sha256sum < /root/block');
    await storage.powerCut();
    await storage.boot();
    const { stdout: found } = await storage.exec(
      `dd if=${storage.disks[0]} bs=1M count=1 iflag=direct status=none | sha256sum`,
    );
    return found === written;
  }

  describe('under a verified write load', () => {
    // A disk that loses what was never flushed; scrubbing it whole would take minutes.
    const suite = useDeployment({ nodes: 1, scrub: false, storage: { disks: [{ name: 'vg' }] } });

    it(`${VOLUMES} volumes: I/O waits, and goes on without an error after ${DOWN_MS / 60_000} minutes; every acknowledged fsync is there`, async function () {
      this.timeout(1_800_000);
      const { deployment } = suite;
      const node = nodeOf(deployment, 0);
      const volumes = Array.from(
        { length: VOLUMES },
        (_, index) => new TestVolume(deployment, { name: `power-${index}`, sizeBytes: 32 * MIB }),
      );
      await Promise.all(volumes.map((volume) => volume.up(node)));
      await node.machine.writeFile('/root/writer.py', WRITER);
      const writer = await node.machine.spawn(
        `python3 /root/writer.py ${volumes.map((volume) => volume.targetPath()).join(' ')}`,
      );
      await node.machine.waitFor(`[ "$(cat /run/acknowledged.${VOLUMES - 1} 2>/dev/null || echo 0)" -ge 5 ]`, 120_000);
      const cutAt = performance.now();
      await deployment.lab.storage.powerCut();
      const acknowledged = (
        await node.machine.exec(`for i in $(seq 0 ${VOLUMES - 1}); do cat /run/acknowledged.$i; echo; done`)
      ).stdout
        .split('\n')
        .filter((line) => line !== '')
        .map(Number);
      await deployment.lab.storage.boot();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, DOWN_MS - (performance.now() - cutAt))));
      expect(writer.running, writer.lines.join('\n')).to.equal(true);
      await deployment.controller.start();
      // Goes on: every volume gets further than it was.
      for (const [index, number] of acknowledged.entries()) {
        await node.machine.waitFor(`[ "$(cat /run/acknowledged.${index})" -gt ${number + 2} ]`, 240_000);
      }
      await node.machine.exec('touch /run/stop-writer');
      expect(await writer.wait(60_000), writer.lines.join('\n')).to.equal(0);
      await node.machine.exec('rm /run/stop-writer');
      const readOnly = await node.machine.exec(
        `grep ' /var/lib/kubelet/' /proc/self/mountinfo | awk '$6 ~ /^ro/ || $NF ~ /^ro,/ {print}'`,
      );
      expect(readOnly.stdout).to.equal('');
      // Every number from 1 to the last one, without a hole, read from the disk after a fresh attach.
      for (const volume of volumes) {
        await volume.takeFrom(node);
        await volume.bringTo(node);
        await node.machine.exec(`awk '$1 + 0 != NR { exit 1 } END { exit NR < 3 }' ${volume.targetPath()}/journal`);
      }
      await Promise.all(volumes.map((volume) => volume.down(node)));
      console.log(`      acknowledged at the cut: ${acknowledged.join(' ')}`);
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
