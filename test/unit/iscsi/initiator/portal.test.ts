import { expect } from 'chai';
import { IscsiError } from '../../../../src/iscsi/initiator/errors.ts';
import { checkTargetName, formatPortal, parsePortal } from '../../../../src/iscsi/initiator/portal.ts';

describe('initiator: portals and names', () => {
  for (const [text, address, port] of [
    ['10.77.0.10:3260', '10.77.0.10', 3260],
    ['[fd00::1]:3261', 'fd00::1', 3261],
    ['storage.example.org:3260', 'storage.example.org', 3260],
  ] as const) {
    it(`reads and writes ${text}`, () => {
      expect(parsePortal(text)).to.deep.equal({ address, port });
      expect(formatPortal({ address, port })).to.equal(text);
    });
  }

  for (const text of [
    '',
    '10.0.0.1',
    '10.0.0.1:0',
    '10.0.0.1:70000',
    'a/b:3260',
    '-T:1,2',
    'fd00::1:3260',
    '[x y]:1',
  ]) {
    it(`refuses "${text}"`, () => {
      expect(() => parsePortal(text)).to.throw(IscsiError);
    });
  }

  it('refuses target names that are none, or that would leave their folder', () => {
    checkTargetName('iqn.2010-10.org.openstack:volume-8c0f');
    for (const name of ['', 'volume', 'iqn.2010-10.org:a/../../x', 'iqn.x y', `iqn.${'a'.repeat(220)}`]) {
      expect(() => checkTargetName(name), name).to.throw(IscsiError);
    }
  });
});
