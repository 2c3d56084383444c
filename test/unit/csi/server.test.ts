/** What surrounds every call: a real gRPC round trip over a unix socket, with handlers of the test's own. */
import { existsSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { expect } from 'chai';
import type { Handlers } from '../../../src/csi/call.ts';
import { startCsiServer } from '../../../src/csi/server.ts';
import { DriverError } from '../../../src/errors.ts';
import { log, requestId } from '../../../src/system/context.ts';
import { CsiClient, failureOf } from '../../integration/support/csi-client.ts';
import { type Harness, startHarness, until } from './harness.ts';

describe('the CSI server', () => {
  let harness: Harness;
  let handler: (request: { volume_id: string }) => Promise<object>;
  const services: { Controller: Handlers } = {
    Controller: { DeleteVolume: async (request: { volume_id: string }) => await handler(request) },
  };

  async function start(options: Parameters<typeof startHarness>[1] = {}): Promise<void> {
    harness = await startHarness(services, options);
  }
  afterEach(async () => await harness.close());

  const remove = async (volume_id = 'v1') => await harness.client.call('Controller', 'DeleteVolume', { volume_id });
  const lines = (msg: string) => harness.lines().filter((line) => line['msg'] === msg);

  it('lets its user and the group of its socket connect, and nobody else', async () => {
    await start();
    expect((statSync(harness.socket).mode & 0o777).toString(8)).to.equal('660');
  });

  it('logs one line when a call begins and one when it ends, tied to what happens between', async () => {
    await start();
    let id: string | undefined;
    handler = async () => {
      id = requestId();
      log().info('between');
      return {};
    };
    await remove();
    const mine = harness.lines().filter((line) => line['requestId'] === id);
    expect(mine.map((line) => line['msg'])).to.deep.equal(['call begins', 'between', 'call ended']);
    for (const line of mine) expect(line).to.include({ method: 'DeleteVolume', volume_id: 'v1' });
    expect(mine[2]).to.include({ code: 'OK' }).and.have.property('durationMs').that.is.a('number');
    expect(harness.observed).to.deep.equal(['DeleteVolume OK']);
  });

  it('answers a DriverError by its code, with the cause in the log alone', async () => {
    await start();
    handler = async () => {
      throw new DriverError('FAILED_PRECONDITION', 'in use', { cause: new Error('lvremove said no') });
    };
    const error = await failureOf(remove());
    expect(error.code).to.equal('FAILED_PRECONDITION');
    expect(error.message).to.include('in use').and.not.include('lvremove');
    const [line] = lines('call failed');
    expect(line).to.include({ code: 'FAILED_PRECONDITION', message: 'in use', level: 40 });
    expect(line).to.have.nested.property('err.message', 'lvremove said no');
    expect(harness.observed).to.deep.equal(['DeleteVolume FAILED_PRECONDITION']);
  });

  it('answers anything else with a request id that is in the log', async () => {
    await start();
    handler = async () => {
      throw new TypeError('undefined is not a volume');
    };
    const error = await failureOf(remove());
    expect(error.code).to.equal('INTERNAL');
    expect(error.message).to.not.include('undefined is not');
    const [line] = lines('call failed');
    expect(line).to.include({ level: 50 });
    expect(error.message).to.include(String(line?.['requestId']));
    expect(line).to.have.nested.property('err.stack').that.includes('server.test.ts');
  });

  it('survives a handler that throws at once, and one that throws no Error', async () => {
    await start();
    handler = () => {
      throw new DriverError('NOT_FOUND', 'at once');
    };
    expect((await failureOf(remove())).code).to.equal('NOT_FOUND');
    handler = async () => await Promise.reject('words');
    expect((await failureOf(remove())).code).to.equal('INTERNAL');
  });

  it('checks the message before the handler sees it', async () => {
    await start();
    handler = async () => expect.fail('must not run');
    expect((await failureOf(remove('v'.repeat(129)))).code).to.equal('INVALID_ARGUMENT');
    expect(harness.observed).to.deep.equal(['DeleteVolume INVALID_ARGUMENT']);
  });

  it('warns of a slow call while it runs and when it ends', async () => {
    await start({ slowCallMs: 20 });
    handler = async () => {
      await until(() => lines('slow call: still running').length > 0);
      await new Promise((resolve) => setTimeout(resolve, 5));
      return {};
    };
    await remove();
    expect(lines('call ended')[0]).to.include({ level: 40 });
  });

  it('goes on with the work when the client has gone', async () => {
    await start();
    const release = Promise.withResolvers<void>();
    let finished = false;
    handler = async () => {
      await release.promise;
      finished = true;
      return {};
    };
    const error = await failureOf(harness.client.call('Controller', 'DeleteVolume', { volume_id: 'v1' }, 200));
    expect(error.code).to.equal('DEADLINE_EXCEEDED');
    await until(() => lines('the client gave up waiting; the work goes on').length > 0);
    expect(lines('the client gave up waiting; the work goes on')[0]).to.include({ volume_id: 'v1' });
    expect(harness.server.activeCalls()).to.equal(1);
    release.resolve();
    await until(() => harness.server.activeCalls() === 0);
    expect(finished).to.equal(true);
    expect(lines('call ended')).to.have.length(1);
  });

  it('finishes what is in flight before it stops, and takes nothing new', async () => {
    await start();
    const release = Promise.withResolvers<void>();
    handler = async () => {
      await release.promise;
      return {};
    };
    const call = remove();
    await until(() => harness.server.activeCalls() === 1);
    const stopped = harness.server.stop(5000);
    const second = new CsiClient(harness.socket);
    expect((await failureOf(second.call('Controller', 'DeleteVolume', { volume_id: 'v2' }, 500))).code).to.match(
      /UNAVAILABLE|DEADLINE_EXCEEDED/,
    );
    second.close();
    release.resolve();
    expect(await call).to.deep.equal({});
    expect(await stopped).to.equal(0);
    expect(existsSync(harness.socket), 'the socket file').to.equal(false);
  });

  it('waits at its stop for work whose client has gone', async () => {
    await start();
    const release = Promise.withResolvers<void>();
    handler = async () => {
      await release.promise;
      return {};
    };
    await failureOf(harness.client.call('Controller', 'DeleteVolume', { volume_id: 'v1' }, 100));
    let stopped = false;
    const stopping = harness.server.stop(5000).then((unfinished) => {
      stopped = true;
      return unfinished;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(stopped).to.equal(false);
    release.resolve();
    expect(await stopping).to.equal(0);
  });

  it('does not wait for ever', async () => {
    await start();
    const release = Promise.withResolvers<void>();
    handler = async () => {
      await release.promise;
      return {};
    };
    const call = failureOf(remove());
    await until(() => harness.server.activeCalls() === 1);
    expect(await harness.server.stop(50)).to.equal(1);
    expect((await call).code).to.match(/UNAVAILABLE|CANCELLED/);
    release.resolve();
    await until(() => harness.server.activeCalls() === 0);
  });

  it('refuses to start beside another instance, which goes on', async () => {
    await start();
    handler = async () => ({});
    const options = { tcpEndpoint: undefined, slowCallMs: 1000, observer: undefined, services };
    const error = await startCsiServer({ ...options, endpoint: `unix://${harness.socket}` }).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).to.be.instanceOf(DriverError).with.property('message').that.includes('another process listens');
    expect(await remove()).to.deep.equal({});
  });

  it('says what is wrong with a folder that cannot be made', async () => {
    await start();
    const options = { tcpEndpoint: undefined, slowCallMs: 1000, observer: undefined, services };
    const error = await startCsiServer({ ...options, endpoint: 'unix:///dev/null/x/csi.sock' }).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(String(error)).to.include('/dev/null/x').and.include('ENOTDIR');
  });

  it('serves a second, TCP, listener when it is told to', async () => {
    await start({ tcpEndpoint: '127.0.0.1:0' });
    expect(harness.server.tcpPort).to.be.greaterThan(0);
    await new Promise<void>((resolve, reject) => {
      const connection = connect(harness.server.tcpPort ?? 0, '127.0.0.1', () => {
        connection.destroy();
        resolve();
      });
      connection.once('error', reject);
    });
  });

  it('answers UNIMPLEMENTED for a service that this role does not have', async () => {
    await start();
    expect((await failureOf(harness.client.call('Node', 'NodeGetInfo', {}))).code).to.equal('UNIMPLEMENTED');
  });

  it('survives garbage on the socket', async () => {
    await start();
    handler = async () => ({});
    await new Promise<void>((resolve) => {
      const connection = connect(harness.socket, () => connection.end('GET / HTTP/1.1\r\n\r\n'));
      connection.once('error', () => resolve());
      connection.once('close', () => resolve());
      connection.resume();
    });
    expect(await remove()).to.deep.equal({});
  });
});
