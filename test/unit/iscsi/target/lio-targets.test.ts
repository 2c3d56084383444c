/** Order, leftovers and refusals of the target adapter, on a fake of LIO's configfs tree. */
import type { NetworkInterfaceInfo } from 'node:os';
import { expect } from 'chai';
import { TargetError, TargetTimeoutError } from '../../../../src/iscsi/target/errors.ts';
import { TargetLayout } from '../../../../src/iscsi/target/layout.ts';
import { LioTargets } from '../../../../src/iscsi/target/lio-targets.ts';
import { portalProblems } from '../../../../src/iscsi/target/portals.ts';
import type { AclSpec, TargetSpec } from '../../../../src/iscsi/target/types.ts';
import type { Commands } from '../../../../src/system/commands.ts';
import { FileTimeoutError } from '../../../../src/system/files.ts';
import { setStepHook } from '../../../../src/system/step.ts';
import { FakeLio } from './fake-lio.ts';

const PREFIX = 'iqn.2010-10.org.openstack';
const VG_UUID = 'Dtj4oS-IL2W-c3hO-kfCp-tn2M-sCYu-MhscW5';
const VOLUME = 'volume-00000001-0000-4000-8000-000000000000';
const IQN = `${PREFIX}:${VOLUME}`;
const NODE = 'iqn.1993-08.org.debian:01:node';
const OTHER = 'iqn.1993-08.org.debian:01:other';
const TPG = `iscsi/${IQN}/tpgt_1`;

const noCommands: Commands = {
  run: () => Promise.reject(new Error('no command is needed')),
};

function acl(initiatorIqn = NODE, changes: Partial<AclSpec> = {}): AclSpec {
  const auth = { kind: 'chap', user: 'user', password: 'secret-of-node', mutual: undefined } as const;
  return { initiatorIqn, readonly: false, auth, ...changes };
}

function spec(changes: Partial<TargetSpec> = {}): TargetSpec {
  const serial = '0123456789abcdef0123456789abcdef';
  const fixed = { volumeId: VOLUME, targetIqn: IQN, serial, devicePath: '/dev/mapper/gate-1', discard: true };
  return { ...fixed, acls: [acl()], ...changes };
}

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('targets', () => {
  let lio: FakeLio;
  let targets: LioTargets;
  const fresh = (): LioTargets =>
    new LioTargets({
      files: lio.files(),
      commands: noCommands,
      configfsRoot: lio.root,
      iqnPrefix: PREFIX,
      portals: ['10.0.0.1:3260'],
      vgName: 'cinder_volumes',
    });

  beforeEach(() => {
    lio = new FakeLio();
    targets = fresh();
  });

  afterEach(() => setStepHook(undefined));

  const position = (pattern: RegExp): number => lio.changes.findIndex((change) => pattern.test(change));

  it('are built in the safe order', async () => {
    await targets.ensure(spec());
    const order = [
      /^mkdir core\/iblock_10000$/,
      /control udev_path=\/dev\/mapper\/gate-1$/,
      /vpd_unit_serial 0123/,
      /^write core\/.*\/enable 1$/,
      /emulate_tpu 1$/,
      /^mkdir .*tpgt_1$/,
      /^link .*\/lun\/lun_0\//,
      /^mkdir .*\/acls\/[^/]+$/,
      /^link .*\/acls\/.*\/lun_0\//,
      /auth\/userid user$/,
      /auth\/password secret-of-node$/,
      /^mkdir .*\/np\//,
      /tpgt_1\/enable 1$/,
    ].map(position);
    expect(order).to.not.include(-1);
    expect(order).to.deep.equal(order.toSorted((a, b) => a - b));
    expect(lio.changes.join('|')).to.not.match(/\n/);
  });

  it('are only read when they are right', async () => {
    await targets.ensure(spec());
    lio.sessions.add(NODE);
    lio.changes.length = 0;
    await targets.ensure(spec());
    await fresh().ensure(spec());
    expect(lio.changes).to.deep.equal([]);
  });

  it('are completed and removed from whatever a crash has left, one step after the other', async () => {
    const steps: string[] = [];
    setStepHook(async (point) => {
      if (point.startsWith('after:')) steps.push(point);
    });
    await targets.ensure(spec());
    const built = steps.splice(0).length;
    await targets.remove(VOLUME, IQN, { timeoutMs: 1000 });
    const removed = steps.splice(0).length;
    expect(lio.nodes.size, 'nothing is left').to.equal(2);
    const dieAfter = (count: number): void => {
      let passed = 0;
      setStepHook(async (point) => {
        if (point.startsWith('after:')) passed += 1;
        if (passed === count) throw new Error('crash');
      });
    };
    for (let count = 1; count <= built; count += 1) {
      dieAfter(count);
      expect(await errorOf(fresh().ensure(spec()))).to.have.property('message', 'crash');
      setStepHook(undefined);
      if (count % 2 === 0) await fresh().ensure(spec());
      await fresh().remove(VOLUME, IQN, { timeoutMs: 1000 });
      expect([...lio.nodes.keys()], `after step ${count}`).to.have.lengthOf(2);
    }
    for (let count = 1; count <= removed; count += 1) {
      await fresh().ensure(spec());
      dieAfter(count);
      expect(await errorOf(fresh().remove(VOLUME, IQN, { timeoutMs: 1000 }))).to.have.property('message', 'crash');
      setStepHook(undefined);
      if (count % 2 === 0) await fresh().ensure(spec());
      await fresh().remove(VOLUME, IQN, { timeoutMs: 1000 });
      expect([...lio.nodes.keys()], `after step ${count}`).to.have.lengthOf(2);
    }
  });

  it('get our smallest free HBA, also one that a crash has left empty; others keep theirs', async () => {
    const files = lio.files();
    for (const path of ['core/iblock_0', 'core/iblock_10000', 'core/iblock_10000/foreign', 'core/iblock_10001'])
      await files.mkdir(`${lio.root}/target/${path}`);
    await targets.ensure(spec());
    expect(position(new RegExp(`^mkdir core/iblock_10001/${VOLUME}$`))).to.be.greaterThan(-1);
    await targets.remove(VOLUME, IQN, { timeoutMs: 1000 });
    expect(await files.readdir(`${lio.root}/target/core`)).to.deep.equal(['iblock_0', 'iblock_10000']);
  });

  it('with a wrong serial are rebuilt, but not under a session', async () => {
    await targets.ensure(spec());
    lio.sessions.add(NODE);
    lio.changes.length = 0;
    const wrong = await errorOf(targets.ensure(spec({ serial: 'f'.repeat(32) })));
    expect(wrong).to.be.instanceOf(TargetError).and.have.property('reason', 'conflict');
    expect(lio.changes).to.deep.equal([]);
    lio.sessions.clear();
    await targets.ensure(spec({ serial: 'f'.repeat(32) }));
    expect(lio.text(`core/iblock_10000/${VOLUME}/wwn/vpd_unit_serial`)).to.match(/f{32}/);
  });

  it('cut off who is not in the spec: bar, cut, and only then the LUN', async () => {
    await targets.ensure(spec({ acls: [acl(), acl(OTHER)] }));
    lio.sessions.add(OTHER).add(NODE);
    lio.changes.length = 0;
    await targets.ensure(spec());
    const shown = lio.changes.map((change) => change.replace(`${TPG}/acls/${OTHER}`, '…'));
    expect(shown[0]).to.match(/^write …\/auth\/password [0-9a-f]{48}$/);
    expect(shown.slice(1)).to.deep.equal(['write …/cmdsn_depth 63', 'unlink …/lun_0/lun', 'rmdir …/lun_0', 'rmdir …']);
    expect([...lio.sessions]).to.deep.equal([NODE]);
  });

  it('without CHAP are barred by asking everybody for a moment', async () => {
    const open = { auth: { kind: 'none' } } as const;
    await targets.ensure(spec({ acls: [acl(NODE, open), acl(OTHER, open)] }));
    lio.changes.length = 0;
    await targets.revoke(IQN, OTHER, { timeoutMs: 1000 });
    expect(lio.changes[0]).to.equal(`write ${TPG}/attrib/authentication 1`);
    expect(lio.changes.at(-1)).to.equal(`write ${TPG}/attrib/authentication 0`);
  });

  it('without CHAP let the others in again when a fence is not through, whichever step it was', async () => {
    const open = { auth: { kind: 'none' } } as const;
    for (const step of [/^write .*cmdsn_depth/, /^unlink .*acls/, /^rmdir .*acls\/[^/]+$/]) {
      lio = new FakeLio();
      targets = fresh();
      await targets.ensure(spec({ acls: [acl(NODE, open), acl(OTHER, open)] }));
      lio.sessions.add(OTHER);
      lio.intercept = (change) => {
        if (step.test(change)) throw new FileTimeoutError('batch', change, 50);
      };
      expect(await errorOf(targets.revoke(IQN, OTHER, { timeoutMs: 50 }))).to.be.instanceOf(TargetTimeoutError);
      expect(lio.text(`${TPG}/attrib/authentication`), String(step)).to.equal('0\n');
    }
  });

  it('keep credentials that are not known, and give none', async () => {
    await targets.ensure(spec());
    lio.changes.length = 0;
    const keep = { auth: { kind: 'keep' } } as const;
    await targets.ensure(spec({ acls: [acl(NODE, keep), acl(OTHER, keep)] }));
    expect(lio.changes).to.deep.equal([]);
  });

  it('never call a fence done while a session is there', async () => {
    await targets.ensure(spec());
    lio.sessions.add(NODE);
    lio.intercept = (change) => {
      if (change.endsWith('enable 0')) throw new FileTimeoutError('batch', change, 50);
    };
    expect(await errorOf(targets.disable(IQN, { timeoutMs: 50 }))).to.be.instanceOf(TargetTimeoutError);
    // The kernel has begun: enable reads 0, the session is still there.
    lio.intercept = () => undefined;
    lio.nodes.set(`${lio.root}/target/${TPG}/enable`, { kind: 'attribute', text: '0\n' });
    expect(await errorOf(targets.disable(IQN, { timeoutMs: 50 }))).to.be.instanceOf(TargetTimeoutError);
    expect(position(/^unlink .*acls/)).to.equal(-1);
    lio.sessions.clear();
    await targets.disable(IQN, { timeoutMs: 1000 });
    expect(position(/^rmdir .*acls\/[^/]+$/)).to.be.greaterThan(-1);
  });

  it('take no error for an absence', async () => {
    await targets.ensure(spec());
    const files = lio.files();
    const failing = new LioTargets({
      files: { ...files, readdir: () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })) },
      commands: noCommands,
      configfsRoot: lio.root,
      iqnPrefix: PREFIX,
      portals: [],
      vgName: 'cinder_volumes',
    });
    expect(await errorOf(failing.list())).to.have.property('code', 'EIO');
    expect(await errorOf(failing.remove(VOLUME, IQN, { timeoutMs: 100 }))).to.have.property('code', 'EIO');
  });

  it('have a witness, the holder of the portals: enabled without access for anybody, and silent until then', async () => {
    const holder = targets.witnessIqn(VG_UUID);
    const enable = `iscsi/${holder}/tpgt_1/enable`;
    await targets.setWitness(undefined);
    expect(lio.changes).to.deep.equal([]);
    expect(await errorOf(targets.setWitness(VG_UUID))).to.be.instanceOf(TargetError);
    await targets.holdPortals(VG_UUID);
    expect(lio.text(enable)).to.equal('0\n');
    await targets.setWitness(VG_UUID);
    const attributes = `iscsi/${holder}/tpgt_1/attrib`;
    expect(lio.text(enable)).to.equal('1\n');
    for (const [name, value] of [
      ['authentication', '1'],
      ['generate_node_acls', '0'],
      ['demo_mode_discovery', '0'],
    ])
      expect(lio.text(`${attributes}/${name}`), name).to.equal(`${value}\n`);
    expect(lio.changes.at(-1)).to.equal(`write ${enable} 1`);
    lio.changes.length = 0;
    await targets.setWitness(VG_UUID);
    await targets.holdPortals(VG_UUID);
    expect(lio.changes).to.deep.equal([]);
    await targets.setWitness(undefined);
    await targets.setWitness(undefined);
    expect(lio.changes).to.deep.equal([`write ${enable} 0`]);
    expect(await targets.list()).to.deep.equal([]);
  });

  it('tell who can really log in: with the mapped LUN, and with credentials where they are asked for', async () => {
    await targets.ensure(spec({ acls: [acl(), acl(OTHER)] }));
    const admitted = async (): Promise<readonly string[] | undefined> => (await targets.list())[0]?.admittedInitiators;
    expect(await admitted()).to.deep.equal([NODE, OTHER]);
    lio.nodes.set(`${lio.root}/target/${TPG}/acls/${OTHER}/auth/userid`, { kind: 'attribute', text: 'NULL\n' });
    expect(await admitted()).to.deep.equal([NODE]);
    lio.nodes.set(`${lio.root}/target/${TPG}/attrib/authentication`, { kind: 'attribute', text: '0\n' });
    expect(await admitted()).to.deep.equal([NODE, OTHER]);
    for (const path of lio.nodes.keys())
      if (path.includes(`/acls/${NODE}/lun_0/`) && path.endsWith('/lun')) lio.nodes.delete(path);
    expect(await admitted()).to.deep.equal([OTHER]);
  });

  it('have a holder that keeps the portals, is not enabled with it, and is no target of a volume', async () => {
    await targets.holdPortals(VG_UUID);
    const holder = `iscsi/${targets.witnessIqn(VG_UUID)}`;
    expect(lio.changes).to.deep.equal([
      `mkdir ${holder}`,
      `mkdir ${holder}/tpgt_1`,
      `mkdir ${holder}/tpgt_1/np/10.0.0.1:3260`,
    ]);
    expect(await targets.list()).to.deep.equal([]);
    lio.changes.length = 0;
    await targets.holdPortals(VG_UUID);
    await fresh().holdPortals(VG_UUID);
    expect(lio.changes).to.deep.equal([]);
  });

  it('have a holder that stands for one volume group: not for another of that name, which it replaces, nor for others', async () => {
    expect(targets.witnessIqn(VG_UUID)).to.match(/^iqn[^:]*:portal-cinder-volumes\.[0-9a-f]{8}\.[0-9a-f]{12}$/);
    const longest = new TargetLayout('/', 'i'.repeat(178)).portalHolder('v'.repeat(127), VG_UUID);
    expect(longest).to.have.length(223);
    const foreign = new TargetLayout('/', PREFIX).portalHolder('cinder-volumes', VG_UUID);
    await lio.files().mkdir(`${lio.root}/target/iscsi/${foreign}`);
    await targets.holdPortals('the-old-uuid');
    await targets.setWitness('the-old-uuid');
    const [now, old] = [targets.witnessIqn(VG_UUID), targets.witnessIqn('the-old-uuid')];
    expect(now).to.not.equal(old);
    lio.changes.length = 0;
    // Read anew before it speaks: the volumes of the old one are not exported.
    await targets.setWitness(undefined);
    expect(lio.changes).to.deep.equal([`write iscsi/${old}/tpgt_1/enable 0`]);
    await targets.setWitness('the-old-uuid');
    lio.changes.length = 0;
    await targets.holdPortals(VG_UUID);
    expect(lio.changes).to.deep.equal([
      `mkdir iscsi/${now}`,
      `mkdir iscsi/${now}/tpgt_1`,
      `mkdir iscsi/${now}/tpgt_1/np/10.0.0.1:3260`,
      `write iscsi/${old}/tpgt_1/enable 0`,
      `rmdir iscsi/${old}/tpgt_1/np/10.0.0.1:3260`,
      `rmdir iscsi/${old}/tpgt_1`,
      `rmdir iscsi/${old}`,
    ]);
  });

  it('of others are never touched', async () => {
    for (const iqn of ['iqn.2003-01.org.x:y', `${PREFIX}:something`, `${PREFIX}.${VOLUME}`, `${PREFIX}:${VOLUME}/..`]) {
      expect(await errorOf(targets.disable(iqn, { timeoutMs: 10 }))).to.have.property('reason', 'foreign');
      expect(await errorOf(targets.ensure(spec({ targetIqn: iqn })))).to.have.property('reason', 'foreign');
    }
    expect(lio.changes).to.deep.equal([]);
  });

  describe('of others with the name of one of ours', () => {
    /** As cinder-rtstool makes them: the backstore is called as the target. */
    async function cinders(hba: string, backstore: string, info: string): Promise<void> {
      const files = lio.files();
      const root = `${lio.root}/target`;
      const place = `${root}/core/${hba}/${backstore}`;
      lio.nodes.set(`${root}/core/${hba}`, { kind: 'folder', made: true });
      await files.mkdir(place);
      lio.nodes.set(`${place}/info`, { kind: 'attribute', text: info });
      await files.mkdir(`${root}/iscsi/${IQN}`);
      await files.mkdir(`${root}/${TPG}`);
      await files.mkdir(`${root}/${TPG}/lun/lun_0`);
      await files.symlink(place, `${root}/${TPG}/lun/lun_0/5f0c`);
      await files.mkdir(`${root}/${TPG}/acls/${OTHER}`);
      await files.mkdir(`${root}/${TPG}/np/10.0.0.1:3260`);
      lio.sessions.add(OTHER);
      lio.changes.length = 0;
    }

    for (const [what, hba, backstore, info, backing] of [
      ['an LV', 'iblock_0', IQN, 'iBlock device: dm-3  UDEV PATH: /dev/cinder/x  readonly: 0\n', '/dev/cinder/x'],
      ['an LV by our name for it', 'iblock_0', VOLUME, 'UDEV PATH: /dev/cinder/x  readonly: 0\n', '/dev/cinder/x'],
      ['a file', 'fileio_0', 'any', 'TCM FILEIO ID: 0        File: /srv/x  Size: 1\n', '/srv/x'],
      ['something else', 'pscsi_0', 'any', 'SCSI Device Bus Location\n', 'pscsi_0/any'],
    ] as const) {
      it(`backed by ${what}: they are shown with that, and refused without a change`, async () => {
        await cinders(hba, backstore, info);
        const [listed] = await targets.list();
        expect(listed).to.deep.include({ backings: [backing], hasOwnBackstore: false });
        expect(await targets.find(IQN, { timeoutMs: 1000 })).to.deep.equal(listed);
        const error = await errorOf(targets.ensure(spec()));
        expect(error).to.be.instanceOf(TargetError).and.have.property('reason', 'foreign');
        expect(String(error)).to.contain(`backed by ${backing} instead of /dev/mapper/gate-1`);
        expect(lio.changes).to.deep.equal([]);
        expect([...lio.sessions]).to.deep.equal([OTHER]);
      });
    }

    it('are not taken for ours because of a backstore that a crash of ours has left', async () => {
      await targets.ensure(spec());
      await targets.remove(VOLUME, IQN, { timeoutMs: 1000 });
      await cinders('iblock_0', IQN, 'UDEV PATH: /dev/cinder/x  readonly: 0\n');
      await lio.files().mkdir(`${lio.root}/target/core/iblock_10000`);
      await lio.files().mkdir(`${lio.root}/target/core/iblock_10000/${VOLUME}`);
      const info = { kind: 'attribute', text: 'UDEV PATH: /dev/mapper/gate-1  readonly: 0\n' } as const;
      lio.nodes.set(`${lio.root}/target/core/iblock_10000/${VOLUME}/info`, info);
      lio.changes.length = 0;
      expect((await targets.list())[0]).to.deep.include({ backings: ['/dev/cinder/x'], hasOwnBackstore: false });
      expect(await errorOf(targets.ensure(spec()))).to.have.property('reason', 'foreign');
      expect(lio.changes).to.deep.equal([]);
    });

    it('are ours all the same when somebody has put our backstore on another device: built anew, but not under a session', async () => {
      await targets.ensure(spec());
      const info = { kind: 'attribute', text: 'UDEV PATH: /dev/x  readonly: 0\nMajor: 1 Minor: 1' } as const;
      lio.nodes.set(`${lio.root}/target/core/iblock_10000/${VOLUME}/info`, info);
      lio.sessions.add(NODE);
      expect((await targets.list())[0]).to.deep.include({ backings: ['/dev/x'], hasOwnBackstore: true });
      expect(await errorOf(targets.ensure(spec()))).to.have.property('reason', 'conflict');
      lio.sessions.clear();
      await targets.ensure(spec());
      expect((await targets.list())[0]?.backings).to.deep.equal(['/dev/mapper/gate-1']);
    });

    it('and no LUN yet are known by the backstore that is called as they are', async () => {
      await cinders('iblock_0', IQN, 'UDEV PATH: /dev/cinder/x  readonly: 0\n');
      lio.nodes.delete(`${lio.root}/target/${TPG}/lun/lun_0/5f0c`);
      expect((await targets.list())[0]?.backings).to.deep.equal(['/dev/cinder/x']);
      expect(await errorOf(targets.ensure(spec()))).to.have.property('reason', 'foreign');
      expect(lio.changes).to.deep.equal([]);
    });
  });

  it('take persistent reservations only for those who share the volume, whichever it was before', async () => {
    const attribute = `core/iblock_10000/${VOLUME}/attrib/emulate_pr`;
    await targets.ensure(spec());
    expect(lio.text(attribute)).to.equal('0\n');
    await targets.ensure(spec({ reservations: true }));
    expect(lio.text(attribute)).to.equal('1\n');
    await targets.ensure(spec());
    expect(lio.text(attribute)).to.equal('0\n');
  });

  it('of another prefix that export our backstores are found', async () => {
    await targets.ensure(spec());
    const other = new LioTargets({
      files: lio.files(),
      commands: noCommands,
      configfsRoot: lio.root,
      iqnPrefix: 'iqn.2026-01.org.example',
      portals: [],
      vgName: 'cinder_volumes',
    });
    expect(await other.list()).to.deep.equal([
      {
        ...(await targets.list())[0],
        targetIqn: `iqn.2026-01.org.example:${VOLUME}`,
        enabled: false,
        portals: [],
        aclInitiators: [],
        admittedInitiators: [],
      },
    ]);
    expect(await other.listForeign()).to.deep.equal([{ targetIqn: IQN, volumeId: VOLUME }]);
    expect(await targets.listForeign()).to.deep.equal([]);
  });

  it('are listed, also what is left of them', async () => {
    await targets.ensure(spec());
    lio.sessions.add(NODE);
    const other = VOLUME.replace('00000001', '00000002');
    await lio.files().mkdir(`${lio.root}/target/core/iblock_7`);
    await lio.files().mkdir(`${lio.root}/target/core/iblock_7/${other}`);
    const [first, second] = await targets.list();
    expect(first).to.deep.equal({
      volumeId: VOLUME,
      targetIqn: IQN,
      enabled: true,
      portals: ['10.0.0.1:3260'],
      aclInitiators: [NODE],
      admittedInitiators: [NODE],
      backstoreDevice: '/dev/mapper/gate-1',
      backings: ['/dev/mapper/gate-1'],
      hasOwnBackstore: true,
      sessions: [{ initiatorIqn: NODE }],
    });
    expect(await targets.find(IQN, { timeoutMs: 1000 })).to.deep.equal(first);
    expect(await targets.find(`${PREFIX}:${other}`, { timeoutMs: 1000 })).to.deep.equal(second);
    expect(await targets.find(`${PREFIX}:${other.replace('2', '3')}`, { timeoutMs: 1000 })).to.equal(undefined);
    expect(second).to.include({ volumeId: other, targetIqn: `${PREFIX}:${other}`, enabled: false });
  });

  for (const [what, changes] of [
    [
      'a secret with a newline',
      { acls: [acl(NODE, { auth: { kind: 'chap', user: 'u', password: 'p\n', mutual: undefined } })] },
    ],
    [
      'a secret that LIO takes as "clear"',
      { acls: [acl(NODE, { auth: { kind: 'chap', user: 'u', password: 'NULL1', mutual: undefined } })] },
    ],
    ['an initiator that is a path', { acls: [acl('iqn.2000-01.x:../..')] }],
    ['an initiator twice', { acls: [acl(), acl()] }],
    ['CHAP for some only', { acls: [acl(), acl(OTHER, { auth: { kind: 'none' } })] }],
    ['a serial of another length', { serial: 'abc' }],
    ['a device path with a comma', { devicePath: '/dev/a,udev_path=/dev/b' }],
  ] as const) {
    it(`refuse ${what}, without showing it`, async () => {
      const error = await errorOf(targets.ensure(spec(changes)));
      expect(error).to.be.instanceOf(TargetError).and.have.property('reason', 'invalid');
      expect(String(error)).not.to.match(/NULL1|p\n/);
      expect(lio.changes).to.deep.equal([]);
    });
  }

  it('are told when a portal is on an address that this host does not have, whichever way it is written', () => {
    const address = (text: string, family: 'IPv4' | 'IPv6', internal = false) =>
      ({ address: text, family, internal }) as NetworkInterfaceInfo;
    const interfaces = {
      lo: [address('127.0.0.1', 'IPv4', true)],
      eth0: [address('10.0.0.1', 'IPv4'), address('2001:db8::a', 'IPv6'), address('fe80::1', 'IPv6')],
    };
    expect(portalProblems(['10.0.0.1:3260', '[2001:DB8:0:0::A]:3260', '127.0.0.1:3260'], interfaces)).to.deep.equal([]);
    const [v4, v6, ...none] = portalProblems(['10.0.0.2:3260', '[2001:db8::b]:3260', '10.0.0.1:1'], interfaces);
    expect(none).to.deep.equal([]);
    expect(v4)
      .to.match(/portal 10\.0\.0\.2:3260.*has 10\.0\.0\.1, 2001:db8::a/)
      .and.not.contain('127.0.0.1');
    expect(v6).to.contain('portal [2001:db8::b]:3260');
    expect(portalProblems(['10.0.0.1:3260'], {})[0]).to.contain('no address');
  });
});
