import { mkdir, readdir, readFile, stat, symlink } from 'node:fs/promises';
import { expect } from 'chai';
import { DatabaseLock } from '../../../../src/iscsi/initiator/database-lock.ts';
import { Iscsiadm } from '../../../../src/iscsi/initiator/iscsiadm.ts';
import { NodeRecords } from '../../../../src/iscsi/initiator/records.ts';
import { FakeHost } from './support/host.ts';

const IQN = 'iqn.2010-10.org.openstack:vol1';
const PORTAL = { address: '10.77.0.10', port: 3260 };
const FILE = `nodes/${IQN}/10.77.0.10,3260`;

describe('initiator: node records', () => {
  let host: FakeHost;
  let records: NodeRecords;
  let database: string;
  beforeEach(async () => {
    host = await FakeHost.make();
    database = 'etc/iscsi';
    const lock = new DatabaseLock({ files: host.files, hostRoot: host.root, waitMs: 300 });
    records = new NodeRecords({ files: host.files, hostRoot: host.root, iscsiadm: new Iscsiadm(host.commands), lock });
    host.commands.script = async (line) => {
      // As 2.1.8 does (sample taken in the lab): a file named by address and port, since the group is not known.
      if (line.endsWith('-o new')) await host.write(`${database}/${FILE}`, '# BEGIN RECORD 2.1.8\n');
      return {};
    };
  });
  afterEach(() => host.remove());

  it("follows an absolute link of the host within the host's root", async () => {
    await mkdir(host.path('etc'), { recursive: true });
    await symlink('/data/iscsi', host.path('etc/iscsi'));
    database = 'data/iscsi';
    await records.write(IQN, PORTAL, 'text\n');
    expect(await readFile(host.path(`data/iscsi/${FILE}`), 'utf8')).to.equal('text\n');
    await records.delete(IQN, undefined);
    expect(await readdir(host.path('data/iscsi/nodes'))).to.deep.equal([]);
  });

  for (const place of ['etc/iscsi', 'var/lib/iscsi']) {
    it(`finds the database in /${place}, asks iscsiadm once only, writes 0600`, async () => {
      database = place;
      await host.write('etc/iscsi/iscsid.conf', '');
      await records.write(IQN, PORTAL, 'first\n');
      await records.write(IQN, PORTAL, 'second\n');
      expect(await readFile(host.path(`${place}/${FILE}`), 'utf8')).to.equal('second\n');
      expect((await stat(host.path(`${place}/${FILE}`))).mode & 0o777).to.equal(0o600);
      expect(host.commands.lines).to.deep.equal([`iscsiadm -m node -T ${IQN} -p 10.77.0.10:3260 -o new`]);
      expect(await readdir(host.path(place))).to.not.include('.lvm-iscsi-csi.record');
    });
  }

  it('is not misled by a record of old in the other database', async () => {
    database = 'var/lib/iscsi';
    await host.write(`etc/iscsi/${FILE}`, 'left by an older open-iscsi\n');
    await records.write(IQN, PORTAL, 'mine\n');
    expect(await readFile(host.path(`var/lib/iscsi/${FILE}`), 'utf8')).to.equal('mine\n');
    expect(await readdir(host.path('etc/iscsi/nodes'))).to.deep.equal([]);
  });

  it('says so when the record is in neither place', async () => {
    database = 'opt/iscsi';
    const error = await records.write(IQN, PORTAL, 'x\n').catch((caught: unknown) => caught);
    expect(String(error)).to.include('neither in /etc/iscsi/nodes nor in /var/lib/iscsi/nodes');
  });

  it('repeats iscsiadm after a database error (6), not after others', async () => {
    const script = host.commands.script;
    host.commands.script = (line) => (host.commands.lines.length < 3 ? { exitCode: 6 } : script(line));
    await records.write(IQN, PORTAL, 'x\n');
    expect(host.commands.lines).to.have.length(3);
    host.commands.script = () => ({ missing: true });
    await host.write(`etc/iscsi/nodes/${IQN}/10.77.0.10,3260,1/default`, '');
    const error = await records.delete(IQN, PORTAL).catch((caught: unknown) => caught);
    expect(error).to.have.property('kind', 'missing');
    expect(String(error)).to.include('open-iscsi (Debian');
  });

  it("lets iscsiadm delete a discovery's record for this portal, and leaves other portals alone", async () => {
    await host.write(`etc/iscsi/nodes/${IQN}/10.77.0.10,3260,1/default`, '');
    await host.write(`etc/iscsi/nodes/${IQN}/10.77.0.11,3260`, 'of another portal\n');
    await records.delete(IQN, PORTAL);
    expect(host.commands.lines).to.deep.equal([`iscsiadm -m node -T ${IQN} -p 10.77.0.10:3260 -o delete`]);
    expect(await readdir(host.path(`etc/iscsi/nodes/${IQN}`))).to.include('10.77.0.11,3260');
  });

  it('deletes all of a target, twice, with what a crash left, and needs no lock when there is nothing', async () => {
    await records.write(IQN, PORTAL, 'x\n');
    await records.write(IQN, { address: 'fd00::1', port: 3260 }, 'y\n');
    await host.write('etc/iscsi/.lvm-iscsi-csi.record', 'half a record, with a secret');
    await records.delete(IQN, undefined);
    expect(await readdir(host.path('etc/iscsi'))).to.deep.equal(['nodes']);
    expect(await readdir(host.path('etc/iscsi/nodes'))).to.deep.equal([]);
    await host.write('run/lock/iscsi/lock.write', '');
    await records.delete(IQN, undefined);
  });
});
