import { expect } from 'chai';
import { parseInitiatorName } from '../../../../src/iscsi/initiator/initiator-name.ts';
import { findProblems } from '../../../../src/iscsi/initiator/problems.ts';
import { FakeHost } from './support/host.ts';

const FILE = '/etc/iscsi/initiatorname.iscsi';
/** Sample: /proc/1/net/unix of Debian 12 (Linux 6.1), with iscsid listening and two other sockets. */
const SOCKETS = `Num       RefCount Protocol Flags    Type St Inode Path
00000000ba4c0a5d: 00000003 00000000 00000000 0001 03 17012 /run/systemd/journal/stdout
00000000374c7ef9: 00000002 00000000 00010000 0001 01 17471 @ISCSIADM_ABSTRACT_NAMESPACE
0000000011a8bd2c: 00000002 00000000 00000000 0002 01 12873
`;

describe('initiator: problems of a node', () => {
  let host: FakeHost;
  beforeEach(async () => {
    host = await FakeHost.make();
    await host.write('proc/1/net/unix', SOCKETS);
    await host.write(FILE, 'InitiatorName=iqn.1993-08.org.debian:01:lab-node-1\n');
    host.commands.script = (line) => ({ stdout: line.startsWith('sh ') ? 'complete\n' : 'iscsiadm version 2.1.8\n' });
  });
  afterEach(() => host.remove());

  const problems = (): Promise<string[]> =>
    findProblems({ files: host.files, commands: host.commands, hostRoot: host.root, initiatorNameFile: FILE });

  it('has none on a node that is ready, the module loaded or only there to be loaded', async () => {
    expect(await problems()).to.deep.equal([]);
    expect(host.commands.lines).to.include('modprobe --dry-run iscsi_tcp');
    host.commands.lines.length = 0;
    await host.write('sys/class/iscsi_transport/tcp/handle', '1\n');
    expect(await problems()).to.deep.equal([]);
    expect(host.commands.lines).to.have.length(2);
    expect(host.commands.lines).to.include('iscsiadm --version');
  });

  it('names the package, the service, the module and the file that are missing, all at once', async () => {
    await host.write('proc/1/net/unix', SOCKETS.replace('00010000 0001 01 17471', '00000000 0001 03 17471'));
    await host.files.unlink(host.path(FILE));
    host.commands.script = (line) => {
      if (line.startsWith('sh ')) return { stdout: 'blkid\nxfs_growfs\ncomplete\n' };
      return line.startsWith('modprobe') ? { exitCode: 1 } : { missing: true };
    };
    const found = await problems();
    expect(found).to.have.length(6);
    expect(found[0]).to.include('open-iscsi (Debian').and.include('iscsi-initiator-utils (RHEL');
    expect(found[1]).to.include('systemctl enable --now iscsid.socket');
    expect(found[2]).to.include('iscsi_tcp');
    expect(found[3]).to.include(FILE);
    expect(found.slice(4)).to.deep.equal([
      'blkid is not installed on this node; to do: install the package util-linux',
      'xfs_growfs is not installed on this node; to do: install the package xfsprogs',
    ]);
  });

  it('looks in one shell for all that staging and growing need', async () => {
    await problems();
    const look = host.commands.lines.filter((line) => line.startsWith('sh '));
    expect(look).to.have.length(1);
    expect(look[0]).to.match(/ sh blkid mount umount e2fsck resize2fs xfs_growfs$/);
  });

  it('reads the name as open-iscsi does', () => {
    const name = 'iqn.1993-08.org.debian:01:abc';
    // Sample: the file as Debian's package writes it.
    const text = `## DO NOT EDIT OR REMOVE THIS FILE!\n## If you remove this file, the iSCSI daemon will not start.\nInitiatorName=${name}\n`;
    expect(parseInitiatorName(text, FILE)).to.equal(name);
    expect(parseInitiatorName(`InitiatorName = ${name} \nInitiatorAlias=x\n`, FILE)).to.equal(name);
    expect(parseInitiatorName(`${text}${text}`, FILE)).to.equal(name);
  });

  for (const [text, what] of [
    ['GenerateName=yes\n', 'to do: systemctl start iscsid'],
    ['#InitiatorName=iqn.x:y\n', 'holds no InitiatorName'],
    ['InitiatorName=iqn.a:b\nInitiatorName=iqn.a:c\n', 'several names'],
    ['InitiatorName=node one\n', 'malformed'],
    ['InitiatorName=\n', 'malformed'],
  ] as const) {
    it(`explains ${JSON.stringify(text)}`, () => {
      expect(() => parseInitiatorName(text, FILE)).to.throw(what);
    });
  }
});
