/**
 * Canaries in every secret of every call, over real gRPC, with handlers that do the worst they can: put the whole
 * request into their errors. Neither the log (at trace) nor the answer may show one.
 */
import { expect } from 'chai';
import type protobuf from 'protobufjs';
import type { Handlers } from '../../../src/csi/call.ts';
import { csiRoot, type ServiceName } from '../../../src/csi/proto.ts';
import { isSecretField } from '../../../src/csi/redact.ts';
import { DriverError } from '../../../src/errors.ts';
import { failureOf, type Message } from '../../integration/support/csi-client.ts';
import { type Harness, startHarness } from './harness.ts';

const SERVICES = ['Controller', 'GroupController', 'Node'] as const;
const CANARY = 'canary-5d11';

function methods(service: ServiceName): protobuf.Method[] {
  return csiRoot.lookupService(`csi.v1.${service}`).methodsArray;
}

function sensitive(type: protobuf.Type): protobuf.Field[] {
  return type.fieldsArray.filter((field) => isSecretField(field) || field.name === 'publish_context');
}

describe('secrets in log and answers', () => {
  let harness: Harness;
  let fail: (request: object) => Promise<object>;

  before(async () => {
    const services = Object.fromEntries(
      SERVICES.map((service) => [
        service,
        Object.fromEntries(methods(service).map(({ name }) => [name, async (request: object) => await fail(request)])),
      ]),
    ) as Partial<Record<ServiceName, Handlers>>;
    harness = await startHarness(services);
  });
  after(async () => await harness.close());

  const worst: readonly [string, (request: object) => Promise<object>][] = [
    ['an unexpected error', async (request) => await Promise.reject(new Error(`bad: ${JSON.stringify(request)}`))],
    [
      "a DriverError's message and causes",
      async (request) => {
        const cause = new Error(JSON.stringify(request), {
          cause: new AggregateError([new Error(JSON.stringify(request))]),
        });
        throw new DriverError('INTERNAL', JSON.stringify(request), { cause });
      },
    ],
    ['an object that is no error', async (request) => await Promise.reject(JSON.stringify(request))],
  ];

  let covered = 0;
  for (const service of SERVICES) {
    for (const method of methods(service)) {
      method.resolve();
      const type = method.resolvedRequestType;
      if (type == null || sensitive(type).length === 0) continue;
      covered += 1;
      for (const [what, behaviour] of worst) {
        it(`are not in ${what} of ${method.name}`, async () => {
          fail = behaviour;
          const request: Message = Object.fromEntries(
            sensitive(type).map((field) => [field.name, { chapPassword: CANARY, other_password: `${CANARY}-longer` }]),
          );
          const error = await failureOf(harness.client.call(service as 'Node', method.name, request));
          expect(error.message).to.not.include(CANARY);
          const written = harness.text();
          expect(written).to.include(method.name);
          expect(written).to.not.include(CANARY);
        });
      }
    }
  }

  it('were looked for in every call that has them', () => {
    expect(covered).to.be.greaterThan(14);
  });
});
