import { expect } from 'chai';
import { startHttpServer } from '../../../src/observability/http.ts';
import { createLogger } from '../../../src/observability/log.ts';
import { METRICS } from '../../../src/observability/metric-table.ts';
import { Metrics } from '../../../src/observability/metrics.ts';
import { CommandError } from '../../../src/system/commands.ts';
import type { ProbeResult } from '../../../src/volumes/backend.ts';

describe('log', () => {
  function logged(write: (log: ReturnType<typeof createLogger>) => void): Record<string, unknown> {
    let line = '';
    const destination = {
      write: (text: string): void => {
        line += text;
      },
    };
    write(createLogger({ level: 'debug', fields: { role: 'node' }, destination }));
    expect(line.trim().split('\n')).to.have.length(1);
    return JSON.parse(line) as Record<string, unknown>;
  }

  it('writes one JSON line with level, time and the process’s fields', () => {
    const line = logged((log) => log.info({ a: 1 }, 'hello'));
    expect(line).to.include({ level: 'info', role: 'node', a: 1, msg: 'hello' });
    expect(line['time']).to.match(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/);
  });

  it('redacts what should never have been handed to it', () => {
    const secret = { password: 's3cret', chap: { password: 's3cret' } };
    const line = logged((log) =>
      log.info({ ...secret, request: { secrets: { k: 's3cret' }, context: { chapPassword: 's3cret' } } }),
    );
    expect(JSON.stringify(line)).not.to.contain('s3cret');
  });

  it('shows the mode of CHAP in the configuration, and there alone', () => {
    const line = logged((log) =>
      log.info({ config: { chap: 's3cret', controller: { chap: 'mutual' } } }, 'configuration'),
    );
    expect(line['config']).to.deep.equal({ chap: '***redacted***', controller: { chap: 'mutual' } });
    const elsewhere = logged((log) => log.info({ record: { controller: { chap: 's3cret' } } }));
    expect(JSON.stringify(elsewhere)).not.to.contain('s3cret');
  });

  it('shows a failed command without its standard output, and its cause', () => {
    const error = new CommandError({
      command: 'lvs',
      shortMessage: 'lvs failed',
      exitCode: 5,
      stdout: 'REPORT',
      stderr: 'words',
      durationMs: 1,
    });
    const line = logged((log) => log.error({ err: error }));
    expect(line['err']).to.include({ type: 'CommandError', message: 'lvs failed', exitCode: 5, stderr: 'words' });
    expect(JSON.stringify(line)).not.to.contain('REPORT');
    const wrapped = logged((log) => log.error({ err: new Error('outer', { cause: new Error('inner') }) }));
    expect(JSON.stringify(wrapped['err'])).to.contain('outer').and.contain('inner');
  });
});

describe('metrics', () => {
  it('have names, labels and units as Prometheus wants them', () => {
    for (const { name, type } of Object.values(METRICS)) {
      expect(name).to.match(/^lvm_iscsi_csi_[a-z_]+$/);
      expect(name.endsWith('_total')).to.equal(type === 'counter');
      if (type === 'histogram') expect(name).to.match(/_seconds$/);
    }
  });

  it('count calls and commands', async () => {
    const metrics = new Metrics('controller', '1.2.3');
    const ended = metrics.started('CreateVolume');
    metrics.started('CreateVolume');
    ended('OK');
    metrics.observe('lvcreate', 'mutate', 1_500, 'ok');
    metrics.set('vgFree', { vg: 'vg0' }, 5);
    metrics.add('wiped', {}, 7);
    metrics.add('wiped', {}, 7);
    const text = await metrics.render();
    expect(text).to.contain('lvm_iscsi_csi_build_info{version="1.2.3",role="controller"} 1');
    expect(text).to.contain('lvm_iscsi_csi_rpc_in_flight{method="CreateVolume"} 1');
    expect(text).to.contain('lvm_iscsi_csi_rpc_duration_seconds_count{method="CreateVolume",code="OK"} 1');
    expect(text).to.contain(
      'lvm_iscsi_csi_command_duration_seconds_sum{program="lvcreate",kind="mutate",outcome="ok"} 1.5',
    );
    expect(text).to.contain('lvm_iscsi_csi_vg_free_bytes{vg="vg0"} 5');
    expect(text).to.contain('lvm_iscsi_csi_wiped_bytes_total 14');
    expect(text).to.contain('process_resident_memory_bytes');
  });

  it('show a role only what it has, and take the rest in silence', async () => {
    const metrics = new Metrics('node', '1');
    metrics.set('vgFree', { vg: 'vg0' }, 5);
    expect(await metrics.render()).not.to.contain('vg_free');
  });

  it('are refreshed before each scrape, and survive a collector that fails', async () => {
    const metrics = new Metrics('all', '1');
    let value = 0;
    metrics.onCollect(async () => {
      value += 1;
      metrics.set('volumes', {}, value);
    });
    metrics.onCollect(async () => {
      throw new Error('no VG');
    });
    await metrics.render();
    expect(await metrics.render()).to.contain('lvm_iscsi_csi_volumes 2');
  });
});

describe('HTTP port', () => {
  let ready: () => Promise<ProbeResult> = async () => ({ ready: true, reasons: [] });
  let server: Awaited<ReturnType<typeof startHttpServer>>;

  before(async () => {
    server = await startHttpServer({
      endpoint: '127.0.0.1:0',
      metrics: new Metrics('node', '1'),
      ready: async () => await ready(),
    });
  });
  after(async () => await server.close());

  const get = async (path: string, method = 'GET'): Promise<Response> =>
    await fetch(`http://127.0.0.1:${server.port}${path}`, { method });

  it('serves metrics', async () => {
    const response = await get('/metrics');
    expect(response.status).to.equal(200);
    expect(response.headers.get('content-type')).to.match(/^text\/plain; version=0\.0\.4/);
    expect(await response.text()).to.contain('lvm_iscsi_csi_build_info');
  });

  it('is alive whatever the storage does', async () => {
    ready = async () => ({ ready: false, reasons: ['no VG'] });
    expect((await get('/healthz')).status).to.equal(200);
  });

  it('is ready or says why not', async () => {
    ready = async () => ({ ready: true, reasons: [] });
    expect((await get('/readyz')).status).to.equal(200);
    ready = async () => ({ ready: false, reasons: ['no VG', 'no configfs'] });
    const response = await get('/readyz');
    expect(response.status).to.equal(503);
    expect(await response.text()).to.equal('no VG\nno configfs\n');
    ready = async () => {
      throw new Error('broken');
    };
    expect(await (await get('/readyz')).text()).to.equal('broken\n');
  });

  it('refuses the rest', async () => {
    expect((await get('/')).status).to.equal(404);
    expect((await get('/metrics', 'POST')).status).to.equal(405);
  });

  it('names the address that cannot be listened on', async () => {
    const options = {
      endpoint: `127.0.0.1:${server.port}`,
      metrics: new Metrics('node', '1'),
      ready: async () => await ready(),
    };
    const error = await startHttpServer(options).catch((caught: unknown) => caught);
    expect(error).to.be.instanceOf(Error).with.property('message').that.contains(`127.0.0.1:${server.port}`);
  });
});
