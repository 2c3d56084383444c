import { expect } from 'chai';
import { parseRecordDefaults, recordText } from '../../../../src/iscsi/initiator/record-text.ts';

/** Sample: lines of iscsid.conf of Debian 12's open-iscsi 2.1.8, with an administrator's changes at the end. */
const ISCSID_CONF = `#
# Open-iSCSI default configuration.
iscsid.startup = /bin/systemctl start iscsid.socket
node.startup = manual
node.leading_login = No
#node.session.auth.authmethod = CHAP
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.session.initial_login_retry_max = 8
node.session.iscsi.FirstBurstLength = 262144
discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 32768
node.session.scan = auto

node.session.auth.chap_algs = SHA256,SHA1
node.session.auth.username = administrator
node.session.auth.password = administrators-secret
node.conn[0].iscsi.HeaderDigest = CRC32C,None
`;

const SETTINGS = { loginTimeoutMs: 30_000, replacementTimeoutSeconds: 900 };
const SPEC = {
  targetIqn: 'iqn.2010-10.org.openstack:volume-1',
  portal: '10.77.0.10:3260',
  chap: { user: 'u', password: 'p#=x' },
  mutualChap: { user: 'mu', password: 'mp' },
};

function values(text: string): Map<string, string> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(lines.map((line) => [line.slice(0, line.indexOf(' = ')), line.slice(line.indexOf(' = ') + 3)]));
}

describe('initiator: record text', () => {
  it('takes over the node settings of iscsid.conf, but no credentials', () => {
    expect([...parseRecordDefaults(ISCSID_CONF).keys()]).to.deep.equal([
      'node.startup',
      'node.leading_login',
      'node.session.timeo.replacement_timeout',
      'node.conn[0].timeo.login_timeout',
      'node.session.initial_login_retry_max',
      'node.session.iscsi.FirstBurstLength',
      'node.session.scan',
      'node.session.auth.chap_algs',
      'node.conn[0].iscsi.HeaderDigest',
    ]);
  });

  it('sets what the driver needs, each once, whatever the defaults say', () => {
    const text = recordText(SPEC, SETTINGS, parseRecordDefaults(ISCSID_CONF));
    const record = values(text);
    expect(text.split('\n').filter((line) => line.startsWith('node.session.scan'))).to.have.length(1);
    expect(Object.fromEntries(record)).to.include({
      'node.name': SPEC.targetIqn,
      'node.tpgt': '-1',
      'node.startup': 'manual',
      'node.session.scan': 'manual',
      'node.session.initial_login_retry_max': '0',
      'node.session.timeo.replacement_timeout': '900',
      'node.session.auth.authmethod': 'CHAP',
      'node.session.auth.username': 'u',
      'node.session.auth.password': 'p#=x',
      'node.session.auth.username_in': 'mu',
      'node.session.auth.password_in': 'mp',
      'node.session.auth.chap_algs': 'SHA256,SHA1',
      'node.conn[0].address': '10.77.0.10',
      'node.conn[0].port': '3260',
      'node.conn[0].timeo.login_timeout': '15',
      'node.conn[0].timeo.noop_out_interval': '5',
      'node.conn[0].iscsi.HeaderDigest': 'CRC32C,None',
    });
    expect(text).to.match(/^# BEGIN RECORD .*\n(.*\n)*# END RECORD\n$/);
  });

  it('has no credentials without CHAP, and IPv6 addresses without brackets', () => {
    const spec = { ...SPEC, portal: '[fd00::1]:3260', chap: undefined, mutualChap: undefined };
    const record = values(recordText(spec, SETTINGS, new Map()));
    expect(record.get('node.session.auth.authmethod')).to.equal('None');
    expect([...record.keys()].filter((key) => /username|password/.test(key))).to.deep.equal([]);
    expect(record.get('node.conn[0].address')).to.equal('fd00::1');
  });

  it('keeps the login within its time, at least a second', () => {
    for (const [loginTimeoutMs, seconds] of [
      [500, '1'],
      [8_000, '4'],
      [300_000, '15'],
    ] as const) {
      const record = values(recordText(SPEC, { ...SETTINGS, loginTimeoutMs }, new Map()));
      expect(record.get('node.conn[0].timeo.login_timeout')).to.equal(seconds);
    }
  });

  for (const password of ['', 'two words', 'line\nnode.name = x', 'ü', 'x'.repeat(256)]) {
    it(`refuses a password that a record cannot hold, without showing it (${JSON.stringify(password.slice(0, 12))})`, () => {
      const chap = { user: 'u', password };
      expect(() => recordText({ ...SPEC, chap }, SETTINGS, new Map())).to.throw(/^the CHAP password is not 1 to 255/);
    });
  }
});
