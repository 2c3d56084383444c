import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Fixture, removeFolder, startFixture, temporaryFolder, until } from './support.ts';

const ALL = ['before:first', 'after:first', 'before:second', 'after:second', 'before:first', 'after:first'];

describe('test hooks', () => {
  let folder: string;
  let steps: string;
  let marker: string;

  beforeEach(() => {
    folder = temporaryFolder();
    steps = join(folder, 'steps');
    marker = join(folder, 'marker');
    mkdirSync(steps);
    writeFileSync(marker, '');
  });
  afterEach(() => removeFolder(folder));

  const start = (variable = steps): Fixture =>
    startFixture('stepper', [marker], { LVM_ISCSI_CSI_TEST_STEPS: variable });
  const passed = (): string[] => readFileSync(join(steps, 'steps.log'), 'utf8').trim().split('\n');

  it('are not there unless asked for', async () => {
    const run = startFixture('stepper', [marker]);
    expect(await run.ended).to.equal(0);
    expect(run.stdout()).to.equal('not installed\nfirst\nsecond\nfirst\nend\n');
  });

  it('refuse a machine that is no lab', async () => {
    rmSync(marker);
    const run = start();
    expect(await run.ended).to.equal(2);
    expect(run.stderr()).to.contain('LVM_ISCSI_CSI_TEST_STEPS').and.contain('no lab machine').and.contain(marker);
    expect(run.stdout()).to.equal('');
  });

  it('refuse a folder that is not there', async () => {
    const run = start(join(folder, 'absent'));
    expect(await run.ended).to.equal(2);
    expect(run.stderr()).to.contain('must name a folder');
  });

  it('log each point', async () => {
    const run = start();
    expect(await run.ended).to.equal(0);
    expect(passed()).to.deep.equal(ALL);
  });

  for (const [point, count] of [
    ['before:first', 1],
    ['after:second', 4],
    ['before:first#2', 5],
    ['after:first#2', 6],
  ] as const) {
    it(`die at ${point}, once`, async () => {
      writeFileSync(join(steps, 'crash-at'), `${point}\n`);
      expect(await start().ended).to.equal('SIGKILL');
      expect(passed()).to.deep.equal(ALL.slice(0, count));
      expect(readFileSync(join(steps, 'crashed'), 'utf8')).to.equal(`${point}\n`);
      expect(await start().ended).to.equal(0);
    });
  }

  it('wait at a point until the file is removed', async () => {
    writeFileSync(join(steps, 'pause-at'), 'before:second');
    const run = start();
    await until('it has paused', () => existsSync(join(steps, 'paused')));
    expect(readFileSync(join(steps, 'paused'), 'utf8')).to.equal('before:second\n');
    expect(run.stdout()).to.equal('installed\nfirst\n');
    rmSync(join(steps, 'pause-at'));
    expect(await run.ended).to.equal(0);
    expect(existsSync(join(steps, 'paused'))).to.equal(false);
    expect(passed()).to.deep.equal(ALL);
  });

  it('refuse a point that is none', async () => {
    writeFileSync(join(steps, 'crash-at'), 'lv-create');
    const run = start();
    expect(await run.ended).to.equal(1);
    expect(run.stderr()).to.contain('must hold a point');
  });
});
