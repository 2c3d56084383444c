import { expect } from 'chai';
import { parseDmDevices } from '../../../src/gate/dm-table.ts';
import { asGate, gateName } from '../../../src/gate/naming.ts';

/** Printed by dmsetup 1.02.185 on Linux 6.1. */
const PRINTED = `Name:              gate-a
State:             SUSPENDED
Read Ahead:        256
Tables present:    LIVE & INACTIVE
Open count:        1
Event number:      0
Major, minor:      254, 1
Number of targets: 1
UUID: LVMISCSICSI-gate-a

0 4096 linear 98:0 0

Name:              gate-n
State:             ACTIVE
/dev/mapper/gate-n: open failed: No such file or directory
Tables present:    None
Open count:        0
Event number:      0
Major, minor:      254, 2
Number of targets: 0
UUID: LVMISCSICSI-gate-n



Name:              gate-ro
State:             ACTIVE (READ-ONLY)
Read Ahead:        256
Tables present:    LIVE
Open count:        0
Event number:      0
Major, minor:      254, 4
Number of targets: 1

0 2048 linear 98:0 0

Name:              gate-e
State:             ACTIVE
Read Ahead:        256
Tables present:    LIVE
Open count:        0
Event number:      0
Major, minor:      254, 3
Number of targets: 2
UUID: LVMISCSICSI-gate-e

0 2048 linear 98:0 0
2048 2048 error 

`;

describe('what dmsetup prints', () => {
  it('becomes devices', () => {
    const [a, n, ro, e] = parseDmDevices(PRINTED);
    expect(a).to.deep.equal({
      name: 'gate-a',
      uuid: 'LVMISCSICSI-gate-a',
      suspended: true,
      readonly: false,
      inactiveTable: true,
      openCount: 1,
      deviceNumber: '254:1',
      table: [{ startSectors: 0, lengthSectors: 4096, type: 'linear', args: '98:0 0' }],
    });
    expect(n).to.include({ name: 'gate-n', suspended: false, inactiveTable: false }).and.deep.include({ table: [] });
    expect(ro).to.include({ readonly: true, uuid: '' });
    expect(e?.table.map(({ type }) => type)).to.deep.equal(['linear', 'error']);
  });

  it('becomes gates, of those that are ours', () => {
    const gates = parseDmDevices(PRINTED).map(asGate);
    expect(gates[0]).to.deep.equal({
      volumeId: 'volume-a',
      path: '/dev/mapper/gate-a',
      suspended: true,
      table: 'linear',
      sizeBytes: 4096 * 512,
      backing: '98:0',
      openCount: 1,
    });
    expect(gates.map((gate) => gate?.table)).to.deep.equal(['linear', 'none', undefined, 'other']);
  });

  it('is nothing without devices, and an error when half of it is missing', () => {
    expect(parseDmDevices('No devices found\n')).to.deep.equal([]);
    expect(() => parseDmDevices('Name:              gate-a\nState:             ACTIVE\n')).to.throw(/Tables present/);
  });

  it('has a name only for a volume id', () => {
    expect(gateName('volume-1-2')).to.deep.equal({
      name: 'gate-1-2',
      uuid: 'LVMISCSICSI-gate-1-2',
      path: '/dev/mapper/gate-1-2',
    });
    for (const id of ['', 'volume-', '_snapshot-1', 'volume-a/b', 'volume-a b']) expect(() => gateName(id)).to.throw();
  });
});
