import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { chapAnswer } from '../../../../src/iscsi/initiator/chap.ts';
import { type LoginAnswer, type LoginProbe, probeLogin } from '../../../../src/iscsi/initiator/login-probe.ts';

interface Reply {
  readonly status?: readonly [number, number];
  readonly keys?: string;
}

/**
 * A target of a few lines, for answers that LIO does not give and for errors; LIO itself is asked in the lab test. Each
 * answer is sent in two pieces.
 */
async function withTarget(
  reply: (text: string, number: number) => Reply | Buffer | undefined,
  action: (port: number) => Promise<unknown>,
): Promise<void> {
  const server = net.createServer((socket) => {
    let number = 0;
    let received = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 48) return;
      const length = received.readUIntBE(5, 3);
      const end = 48 + Math.ceil(length / 4) * 4;
      if (received.length < end) return;
      number += 1;
      const answer = reply(received.subarray(48, 48 + length).toString(), number);
      received = received.subarray(end);
      if (answer === undefined) {
        socket.end();
        return;
      }
      const bytes = Buffer.isBuffer(answer) ? answer : response(answer);
      socket.write(bytes.subarray(0, 10));
      setTimeout(() => socket.write(bytes.subarray(10)), 5);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await action((server.address() as net.AddressInfo).port);
  } finally {
    server.close();
  }
}

function response({ status = [0, 0], keys = '' }: Reply): Buffer {
  const text = Buffer.from(keys);
  const pdu = Buffer.alloc(48 + Math.ceil(text.length / 4) * 4);
  pdu.writeUInt8(0x23, 0);
  pdu.writeUIntBE(text.length, 5, 3);
  pdu.writeUInt8(status[0], 36);
  pdu.writeUInt8(status[1], 37);
  text.copy(pdu, 48);
  return pdu;
}

const CHAP = { user: 'u', password: 'secret' };
const probe = (port: number, change: Partial<LoginProbe> = {}): Promise<LoginAnswer> =>
  probeLogin({
    portal: { address: '127.0.0.1', port },
    initiatorIqn: 'iqn.1993-08.org.debian:01:node',
    targetIqn: 'iqn.2010-10.org.openstack:vol1',
    chap: CHAP,
    mutualChap: undefined,
    timeoutMs: 2_000,
    ...change,
  });

describe('initiator: login probe', () => {
  for (const [status, expected] of [
    [[2, 1], { kind: 'refused', reason: 'authentication' }],
    [[2, 2], { kind: 'refused', reason: 'authorization' }],
    [[2, 3], { kind: 'refused', reason: 'not-found' }],
    [[2, 9], { kind: 'refused', reason: 'other' }],
    [[3, 1], { kind: 'unavailable' }],
    [[1, 1], { kind: 'unavailable' }],
  ] satisfies [[number, number], LoginAnswer][]) {
    it(`status ${status.join('/')} is ${JSON.stringify(expected)}`, async () => {
      await withTarget(
        () => ({ status }),
        async (port) => expect(await probe(port)).to.deep.equal(expected),
      );
    });
  }

  it('answers the challenge, never leaves the security stage, and makes no session', async () => {
    const requests: string[] = [];
    await withTarget(
      (text, number) => {
        requests.push(text.replaceAll('\0', ' ').trim());
        if (number === 1) return { keys: 'TargetPortalGroupTag=1\0AuthMethod=CHAP\0' };
        return number === 2 ? { keys: 'CHAP_A=5\0CHAP_I=7\0CHAP_C=0x00ff10\0' } : {};
      },
      async (port) => expect(await probe(port, { mutualChap: CHAP })).to.deep.equal({ kind: 'accepted' }),
    );
    expect(requests[0]).to.equal(
      'InitiatorName=iqn.1993-08.org.debian:01:node TargetName=iqn.2010-10.org.openstack:vol1 SessionType=Normal AuthMethod=CHAP,None',
    );
    expect(requests[1]).to.equal('CHAP_A=5,7');
    expect(requests[2]).to.match(/^CHAP_N=u CHAP_R=0x[0-9a-f]{32} CHAP_I=8 CHAP_C=0x[0-9a-f]{32}$/);
    expect(requests).to.have.length(3);
  });

  it('is let in without CHAP where none is asked for, and refused where it is', async () => {
    await withTarget(
      () => ({ keys: 'AuthMethod=None\0' }),
      async (port) => expect(await probe(port, { chap: undefined })).to.deep.equal({ kind: 'accepted' }),
    );
    for (const method of ['CHAP', 'Reject']) {
      await withTarget(
        () => ({ keys: `AuthMethod=${method}\0` }),
        async (port) =>
          expect(await probe(port, { chap: undefined })).to.deep.equal({ kind: 'refused', reason: 'authentication' }),
      );
    }
  });

  it('has no answer from a closed port, a closed connection, silence, or another protocol', async () => {
    let closedPort = 0;
    await withTarget(
      () => undefined,
      async (port) => {
        closedPort = port;
        expect(await probe(port)).to.have.property('kind', 'no-answer');
      },
    );
    expect(await probe(closedPort)).to.have.property('kind', 'no-answer');
    for (const bytes of [Buffer.alloc(0), Buffer.from('HTTP/1.1 400 Bad Request\r\n'.repeat(4))]) {
      await withTarget(
        () => bytes,
        async (port) => expect(await probe(port, { timeoutMs: 200 })).to.have.property('kind', 'no-answer'),
      );
    }
  });

  it('refuses malformed challenges, reads hex and base64', () => {
    const hex = chapAnswer({ CHAP_A: '5', CHAP_I: '1', CHAP_C: '0x0102' }, CHAP, false);
    const base64 = chapAnswer({ CHAP_A: '5', CHAP_I: '1', CHAP_C: '0bAQI=' }, CHAP, false);
    expect(hex).to.deep.equal(base64);
    // md5(01 "secret" 01 02), by md5sum.
    expect(hex['CHAP_R']).to.equal('0x18c6ee42cdcc2258144945ad28cad5a2');
    for (const keys of [{ CHAP_A: '6' }, { CHAP_I: '256' }, { CHAP_I: 'x' }, { CHAP_C: 'zz' }, { CHAP_C: '0x1' }]) {
      expect(() => chapAnswer({ CHAP_A: '5', CHAP_I: '1', CHAP_C: '0x01', ...keys }, CHAP, false)).to.throw();
    }
  });
});
