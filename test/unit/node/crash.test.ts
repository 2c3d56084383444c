import { existsSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { setStepHook } from '../../../src/system/step.ts';
import { commandError } from '../filesystem/support/direct-commands.ts';
import { type BenchVolume, failure, type NodeBench, useNodeBench } from './support/node-bench.ts';

/** Records the steps that an action passes, as "before:…" and "after:…". */
async function stepsOf(action: () => Promise<void>): Promise<string[]> {
  const points: string[] = [];
  setStepHook(async (point) => {
    points.push(point);
  });
  await action();
  setStepHook(undefined);
  return points;
}

describe('crashes and earlier lives: real mounts on loop devices, FAKE initiator', () => {
  const suite = useNodeBench();
  let bench: NodeBench;
  before(() => {
    bench = suite.bench;
  });
  afterEach(() => {
    bench?.restart();
  });

  interface Scenario {
    readonly name: string;
    readonly kind: 'ext4' | 'raw';
    readonly prepare: (volume: BenchVolume) => Promise<void>;
    readonly act: (volume: BenchVolume) => Promise<void>;
  }
  const scenarios: Scenario[] = (['ext4', 'raw'] as const).flatMap((kind) => [
    { name: `stage ${kind}`, kind, prepare: async () => undefined, act: (volume) => volume.stage() },
    { name: `unstage ${kind}`, kind, prepare: (volume) => volume.stage(), act: (volume) => volume.unstage() },
    { name: `publish ${kind}`, kind, prepare: (volume) => volume.stage(), act: (volume) => volume.publish() },
    {
      name: `unpublish ${kind}`,
      kind,
      prepare: async (volume) => {
        await volume.stage();
        await volume.publish();
      },
      act: (volume) => volume.unpublish(),
    },
    {
      name: `stage ${kind} over the session of an earlier attachment`,
      kind,
      prepare: async (volume) => {
        await volume.stage();
        await volume.publish();
        volume.nonce = volume.nonce.replace('a', 'b');
      },
      act: (volume) => volume.stage(),
    },
  ]);
  const volumeOf = (scenario: Scenario): BenchVolume => (scenario.kind === 'ext4' ? bench.ext4() : bench.raw());

  for (const scenario of scenarios) {
    it(`${scenario.name}: a death before or after any step is repaired by the retry, or by an unstage`, async function () {
      this.timeout(120_000);
      const model = volumeOf(scenario);
      await scenario.prepare(model);
      const points = await stepsOf(() => scenario.act(model));
      expect(points.length).to.be.above(1);
      await cleanUp(model);
      for (const point of new Set(points)) {
        for (const remedy of ['retry', 'unstage'] as const) {
          const volume = volumeOf(scenario);
          await scenario.prepare(volume);
          bench.dieAt(point);
          const died = await scenario.act(volume).then(
            () => false,
            () => true,
          );
          expect(died, point).to.equal(true);
          bench.restart();
          await bench.plugin.recover();
          if (remedy === 'retry') {
            await scenario.act(volume);
            await scenario.act(volume);
          }
          await cleanUp(volume);
          volume.dispose();
        }
      }
    });
  }

  async function cleanUp(volume: BenchVolume): Promise<void> {
    await volume.unpublish();
    await volume.unstage();
    volume.expectNothingLeft();
  }

  describe('what is stale', () => {
    it('the session of an earlier attachment: failed, logged out, unmounted everywhere, never flushed, and a new one made', async () => {
      const volume = bench.ext4();
      await volume.stage();
      await volume.publish();
      volume.sh(`echo old > '${volume.targetPath()}/unwritten'`);
      const { sid } = volume.session;
      volume.nonce = 'c'.repeat(32);
      bench.initiator.calls.length = 0;
      const programs = bench.commands.requests.length;
      await volume.stage();
      expect(bench.initiator.calls).to.deep.equal(['logout offline', 'delete record', 'login 10.0.0.1:3260']);
      expect(bench.commands.programs.slice(programs)).not.to.include('sync');
      expect(volume.session.sid).to.be.above(sid);
      expect(volume.record).to.deep.include({ nonce: volume.nonce, targets: [] });
      expect(volume.mounts).to.have.length(1);
      await volume.unpublish();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a session that no record explains', async () => {
      const volume = bench.ext4();
      bench.initiator.addSession(volume.targetIqn);
      bench.initiator.calls.length = 0;
      await volume.stage();
      expect(bench.initiator.calls).to.deep.equal(['logout offline', 'delete record', 'login 10.0.0.1:3260']);
      await volume.unstage();
    });

    it('a session with the credentials of another attachment; one whose user cannot be read is not cut', async () => {
      const volume = bench.ext4();
      await volume.stage();
      bench.initiator.calls.length = 0;
      volume.session.chapUser = undefined;
      await volume.stage();
      expect(bench.initiator.calls).to.deep.equal([`rescan ${volume.loop.name}`]);
      volume.session.chapUser = 'somebody';
      await volume.stage();
      expect(bench.initiator.calls).to.include('logout offline');
      await volume.unstage();
    });

    it("the user's own credentials may change under a staged volume", async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.session.chapUser = 'before';
      bench.initiator.calls.length = 0;
      const publishContext = {
        ...volume.context,
        authentication: 'user',
        chap: { user: 'after', password: 'x' },
      } as const;
      await volume.stage({ publishContext });
      expect(bench.initiator.calls).not.to.include('logout offline');
      await volume.unstage();
    });

    it('a session that ended under a published volume: dead mounts go, a new session is made', async () => {
      const volume = bench.ext4();
      await volume.stage();
      await volume.publish();
      const user = await bench.namespace.enter(volume.targetPath());
      volume.loseSession();
      await volume.stage();
      expect(volume.mounts).to.have.length(1);
      await user.leave();
      await volume.publish();
      await volume.unpublish();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a session that somebody made anew under a staged volume is not reused', async () => {
      const volume = bench.raw();
      await volume.stage();
      bench.initiator.dropSession(volume.targetIqn);
      bench.initiator.addSession(volume.targetIqn);
      await failure(volume.publish(), 'FAILED_PRECONDITION', /has ended/);
      bench.initiator.calls.length = 0;
      await volume.stage();
      expect(bench.initiator.calls).to.deep.equal(['logout offline', 'delete record', 'login 10.0.0.1:3260']);
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('its I/O cannot be failed: nothing is torn down, since an unmount would flush', async () => {
      const volume = bench.ext4();
      await volume.stage();
      volume.nonce = 'd'.repeat(32);
      const { writeAttribute } = bench.files;
      bench.files.writeAttribute = () =>
        Promise.reject(Object.assign(new Error('EIO: fake'), { code: 'EIO', syscall: 'write' }));
      bench.initiator.calls.length = 0;
      await failure(volume.stage(), 'UNAVAILABLE', /EIO/);
      bench.files.writeAttribute = writeAttribute;
      expect(bench.initiator.calls).to.deep.equal([]);
      await volume.stage();
      await volume.unstage();
      volume.expectNothingLeft();
    });
  });

  describe('at start', () => {
    it('forgets records of earlier boots without a session, and touches nothing else', async () => {
      const [gone, live, broken, current] = [bench.ext4(), bench.ext4(), bench.ext4(), bench.ext4()];
      for (const volume of [gone, live, broken, current]) await volume.stage();
      const foreign = 'iqn.2010-10.org.openstack:volume-11111111-2222-3333-4444-555555555555';
      bench.initiator.targets.set(foreign, { ...current.target, targetIqn: foreign });
      const stranger = bench.initiator.addSession(foreign);
      for (const volume of [gone, live]) {
        volume.sh(`sed -i 's/"bootId": "[^"]*"/"bootId": "before"/' '${volume.recordPath}'`);
      }
      broken.sh(`echo '{' > '${broken.recordPath}'`);
      const leftover = `${bench.folder}/state/node/.${gone.id}.json.11111111-2222-3333-4444-555555555555.tmp`;
      writeFileSync(leftover, '{');
      bench.initiator.dropSession(gone.targetIqn);
      bench.initiator.calls.length = 0;
      expect(await bench.restart().recover()).to.deep.equal({
        forgotten: [gone.id],
        attached: [live.id, current.id].sort(),
        unexplained: [foreign],
      });
      expect(bench.initiator.calls).to.deep.equal(['release left', 'delete record']);
      expect(existsSync(leftover)).to.equal(false);
      expect(gone.record).to.equal(undefined);
      expect(live.record).not.to.equal(undefined);
      // What an earlier boot made is never reused, even if it is there.
      await live.stage();
      expect(bench.initiator.calls).to.include('logout offline');
      await gone.unstage();
      await live.unstage();
      await current.unstage();
      bench.initiator.live.splice(bench.initiator.live.indexOf(stranger), 1);
      broken.sh(`rm '${broken.recordPath}'`);
      await broken.unstage();
      for (const volume of [gone, live, current, broken]) volume.expectNothingLeft();
    });

    it('probe and info', async () => {
      expect(await bench.plugin.probe()).to.deep.equal({ ready: true, reasons: [] });
      expect(await bench.plugin.info()).to.deep.equal({
        nodeId: 'node-1/iqn.1993-08.org.debian:01:abcdef',
        maxVolumes: 40,
      });
      bench.initiator.problemList = ['iscsid is not running'];
      expect(await bench.plugin.probe()).to.deep.equal({ ready: false, reasons: ['iscsid is not running'] });
      bench.initiator.problemList = [];
      const name = bench.initiator.initiatorIqn;
      bench.initiator.initiatorIqn = async () => `iqn.2020-01.x:${'y'.repeat(200)}`;
      expect((await bench.plugin.probe()).reasons.join()).to.match(/do not make a node id/);
      bench.initiator.initiatorIqn = name;
    });
  });

  describe('a step that hangs', () => {
    it('is answered at its deadline, forbids every further step of that volume, and undoes nothing', async () => {
      const volume = bench.ext4();
      const { findDisk } = bench.initiator;
      let release: () => void = () => undefined;
      const hang = new Promise<void>((resolve) => {
        release = resolve;
      });
      bench.initiator.findDisk = async (session, lun) => {
        await hang;
        return await findDisk.call(bench.initiator, session, lun);
      };
      const restore = shortenTimers(50);
      try {
        await failure(volume.stage(), 'ABORTED', /finding LUN 0.*has not come to an end/);
      } finally {
        restore();
      }
      bench.initiator.findDisk = findDisk;
      expect(volume.record).to.deep.include({ phase: 'attaching' });
      await failure(volume.stage(), 'ABORTED', /finding LUN/);
      await failure(volume.unstage(), 'ABORTED', /finding LUN/);
      release();
      await new Promise((resolve) => setTimeout(resolve, 50));
      await volume.stage();
      await volume.unstage();
      volume.expectNothingLeft();
    });

    it('a lazy unmount too has a deadline', async function () {
      this.timeout(60_000);
      const volume = bench.ext4();
      await volume.stage();
      bench.initiator.dropSession(volume.targetIqn);
      const hang = Promise.withResolvers<void>();
      bench.commands.overrides.set('umount', async ({ args }) => {
        if (args.includes('-l')) await hang.promise;
        throw commandError('umount', { exitCode: 32, stderr: 'target is busy' });
      });
      const restore = shortenTimers(3_000, 30_000);
      try {
        await failure(volume.unstage(), 'ABORTED', /lazily has not come to an end/);
      } finally {
        restore();
        bench.commands.overrides.clear();
        hang.resolve();
      }
      await volume.unstage();
      volume.expectNothingLeft();
    });
  });
});

/** Timers of a minute or more (or `fromMs`) end after that many milliseconds, so that a deadline can be seen passing. */
function shortenTimers(milliseconds: number, fromMs = 60_000): () => void {
  const real = globalThis.setTimeout;
  const short = (callback: () => void, delay?: number): NodeJS.Timeout =>
    real(callback, delay !== undefined && delay >= fromMs ? milliseconds : delay);
  globalThis.setTimeout = Object.assign(short, real) as typeof globalThis.setTimeout;
  return () => {
    globalThis.setTimeout = real;
  };
}
