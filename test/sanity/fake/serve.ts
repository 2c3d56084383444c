/** FAKE driver for the wire's own tests: `node test/sanity/fake/serve.ts CONTROLLER_SOCKET NODE_SOCKET`. Logs to stderr. */
import { destination, pino } from 'pino';
import { startCsiServer } from '../../../src/csi/server.ts';
import { csiServices } from '../../../src/csi/services.ts';
import { setRootLogger } from '../../../src/system/context.ts';
import { FakeBackend, fakeVolumeId } from './fake-backend.ts';
import { FAKE_NODE_ID, FakeNode } from './fake-node.ts';

const [controllerSocket, nodeSocket] = process.argv.slice(2);
if (controllerSocket === undefined || nodeSocket === undefined)
  throw new Error('usage: serve.ts CONTROLLER_SOCKET NODE_SOCKET');
setRootLogger(pino({ level: 'debug' }, destination(2)));

const common = { driverName: 'fake.lvm-iscsi-csi.github.io', version: '0.0.0-fake' };
const backend = new FakeBackend([FAKE_NODE_ID]);
const controller = csiServices({ ...common, controller: { backend, volumeIdForName: fakeVolumeId } });
const node = csiServices({ ...common, node: new FakeNode() });
const transport = { tcpEndpoint: undefined, slowCallMs: 1000, observer: undefined };
const servers = [
  await startCsiServer({ ...transport, endpoint: `unix://${controllerSocket}`, services: controller.services }),
  await startCsiServer({ ...transport, endpoint: `unix://${nodeSocket}`, services: node.services }),
];
process.once('SIGTERM', () => {
  void Promise.all(servers.map(async (server) => await server.stop(5000))).then(() => process.exit(0));
});
