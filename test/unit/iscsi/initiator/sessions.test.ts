import { expect } from 'chai';
import { Sessions } from '../../../../src/iscsi/initiator/sessions.ts';
import { Sysfs } from '../../../../src/iscsi/initiator/sysfs.ts';
import { BlockingFiles } from '../../../../src/system/blocking-files.ts';
import { FakeHost } from './support/host.ts';

const IQN = 'iqn.2010-10.org.openstack:vol1';

describe('initiator: sessions in sysfs', () => {
  let host: FakeHost;
  let sessions: Sessions;
  beforeEach(async () => {
    host = await FakeHost.make();
    sessions = new Sessions(new Sysfs(host.files, host.root));
  });
  afterEach(() => host.remove());

  it('is empty while the module is not loaded', async () => {
    expect(await sessions.list()).to.deep.equal([]);
  });

  it('reads sessions with and without CHAP, IPv4 and IPv6, up and down, in order', async () => {
    await host.session({ sid: 12, host: 7, targetIqn: `${IQN}b`, state: 'FAILED', address: 'fd00::1', port: 3261 });
    await host.session({ sid: 2, host: 6, targetIqn: IQN, username: 'user1', password: 'secret' });
    await host.session({ sid: 13, host: 8, targetIqn: `${IQN}c`, state: 'RECOVERING' });
    expect(await sessions.list()).to.deep.equal([
      { sid: 2, hostNumber: 6, targetIqn: IQN, portal: '10.77.0.10:3260', state: 'LOGGED_IN', chapUser: 'user1' },
      { sid: 12, hostNumber: 7, targetIqn: `${IQN}b`, portal: '[fd00::1]:3261', state: 'FAILED', chapUser: undefined },
      {
        sid: 13,
        hostNumber: 8,
        targetIqn: `${IQN}c`,
        portal: '10.77.0.10:3260',
        state: 'UNKNOWN',
        chapUser: undefined,
      },
    ]);
    expect(await sessions.credentials(2)).to.deep.equal({
      initiatorIqn: 'iqn.1993-08.org.debian:01:lab-node-1',
      chap: { user: 'user1', password: 'secret' },
      mutualChap: undefined,
    });
  });

  it('counts a session without connection for every portal of its target', async () => {
    await host.session({ sid: 1, host: 6, targetIqn: IQN, connection: false });
    await host.session({ sid: 2, host: 7, targetIqn: IQN, address: '10.77.0.99' });
    expect((await sessions.find(IQN, '10.77.0.10:3260')).map(({ sid }) => sid)).to.deep.equal([1]);
    expect(await sessions.find(`${IQN}x`, '10.77.0.10:3260')).to.deep.equal([]);
  });

  it('leaves out a session that ends while it is read, and passes on any other error', async () => {
    await host.session({ sid: 1, host: 6, targetIqn: IQN });
    await host.session({ sid: 2, host: 7, targetIqn: IQN });
    // A fake for the error path: sysfs answers ENODEV between open and read, and here EIO at last.
    let code = 'ENODEV';
    class Failing extends BlockingFiles {
      override async readText(path: string): Promise<string> {
        if (path.includes('session1/state')) throw Object.assign(new Error(code), { code });
        return await super.readText(path);
      }
    }
    const files = new Failing();
    const failing = new Sessions(new Sysfs(files, host.root));
    expect((await failing.list()).map(({ sid }) => sid)).to.deep.equal([2]);
    code = 'EIO';
    expect(await failing.list().catch((error: Error) => error.message)).to.equal('EIO');
    await files.close();
  });
});
