import { expect } from 'chai';
import { csiServices } from '../../../src/csi/services.ts';
import type { Message } from '../../integration/support/csi-client.ts';
import { harness, node, useServices } from './services-harness.ts';

describe('the CSI Identity service', () => {
  useServices();
  const identity = async <T = Message>(method: string) => await harness.client.call<T>('Identity', method, {});

  it('tells name, version and capabilities', async () => {
    expect(await identity('GetPluginInfo')).to.include({ name: 'x.example', vendor_version: '1.2.3' });
    const { capabilities } = await identity<{ capabilities: Message[] }>('GetPluginCapabilities');
    expect(capabilities.map(({ service, volume_expansion }) => service ?? volume_expansion)).to.deep.equal([
      { type: 'CONTROLLER_SERVICE' },
      { type: 'VOLUME_ACCESSIBILITY_CONSTRAINTS' },
      { type: 'ONLINE' },
    ]);
  });

  it('claims the controller service also where only the node is served', async () => {
    const { services } = csiServices({ driverName: 'x.example', version: '1', node });
    expect(Object.keys(services)).to.have.members(['Identity', 'Node']);
    const response = await services.Identity?.['GetPluginCapabilities']?.({} as never);
    expect(JSON.stringify(response)).to.include('CONTROLLER_SERVICE');
  });

  it('answers Probe by what both roles say, with the reasons in the log', async () => {
    expect(await identity('Probe')).to.deep.equal({ ready: { value: true } });
    node.probeResult = { ready: false, reasons: ['iscsid does not answer'] };
    expect(await identity('Probe')).to.deep.equal({ ready: { value: false } });
    expect(harness.text()).to.include('iscsid does not answer');
  });
});
