/**
 * The LVM adapter on a real kernel and a real LVM: the scenarios of lvm/ run in the storage host, each on a VG of its
 * own over two disks. What they print (times, figures) is shown.
 */
import path from 'node:path';
import { Lab } from '../lab/lab.ts';
import { installBundle } from './support/install-bundle.ts';

const GUEST = '/opt/lvm-adapter-test/guest.mjs';
const SCENARIOS: Readonly<Record<string, string>> = {
  life: 'creates, tags, extends, renames, activates and removes, each idempotent and in one process',
  tags: 'keeps any text in tags, byte for byte',
  concurrency: 'queues mutations, shares reads, and always reads its own writes',
  otherTypes: 'reads pools and snapshots, and never removes them along with something else',
  full: 'says when the VG is full',
  metadataFull: 'says when the metadata area is full',
  absent: 'says when the VG is absent, and finds it when it comes late',
  vgextend: 'finds a PV that was added by hand, and never writes metadata without it',
  partial: 'says when a PV is missing, changes nothing then, and recovers when it is back',
  notOurs: 'says when the VG is exported or of another host',
  gates: 'never waits for a suspended gate, and says when an LV is in use',
  zero: 'zeroes exactly a range, within a rate, stoppable, never beside a left-over',
  wipe: 'wipes deleted LVs whole and removes them',
  wipeInterrupted: 'goes on with a wipe that was stopped, or that somebody was in the way of',
  scrubbing: 'blanks all free extents, and gives up trust at any sign of others',
  moved: 'gives up trust when an LV was moved to other extents (pvmove)',
};

describe('LVM adapter', function () {
  this.timeout(1_600_000);
  let lab: Lab | undefined;

  before(async () => {
    const gib = 2 ** 30;
    lab = await Lab.start({
      nodes: 0,
      storage: {
        disks: [
          { name: 'first', sizeBytes: 2 * gib },
          { name: 'second', sizeBytes: 2 * gib },
        ],
      },
    });
    await installBundle(lab.storage, path.join(import.meta.dirname, 'lvm/guest.ts'), GUEST);
  });

  after(() => lab?.stop());

  for (const [scenario, title] of Object.entries(SCENARIOS)) {
    it(title, async () => {
      if (lab === undefined) throw new Error('no lab');
      const { storage } = lab;
      const { stdout, stderr, exitCode } = await storage.exec(`node ${GUEST} ${scenario} ${storage.disks.join(' ')}`, {
        timeoutMs: 1_500_000,
        check: false,
      });
      for (const line of stdout.split('\n').filter((text) => text.startsWith('  '))) console.log(`      ${line}`);
      if (exitCode !== 0) throw new Error(`${scenario} failed:\n${stdout}\n${stderr}`);
    });
  }
});
