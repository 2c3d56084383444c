/**
 * Asks a target whether it would let this initiator in, without making a session: the security stage of an iSCSI login
 * (RFC 7143 sections 6.3, 11.12, 11.13, 12.1) and not one PDU more. The target decides on target name, access and CHAP
 * before it moves to the next stage; an existing session is not disturbed, since nothing is reinstated before that
 * either, and the ISID is another one than iscsid's.
 */
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import type { ChapCredentials } from '../../volumes/publish-context.ts';
import { chapAnswer, chapOffer } from './chap.ts';
import type { Portal } from './portal.ts';

export type LoginAnswer =
  | { readonly kind: 'accepted' }
  /** Class 02h, "initiator error": asking again changes nothing. */
  | { readonly kind: 'refused'; readonly reason: 'authentication' | 'authorization' | 'not-found' | 'other' }
  /**
   * Class 03h, "target error", and redirections. 0301h, "service unavailable", is all that LIO says (measured, 6.1; its
   * iscsi_target_locate_portal) when there is no such target, its portal group is disabled, or it is not on this portal.
   */
  | { readonly kind: 'unavailable' }
  /** No TCP connection, no iSCSI, or silence. */
  | { readonly kind: 'no-answer'; readonly detail: string };

export interface LoginProbe {
  readonly portal: Portal;
  readonly initiatorIqn: string;
  readonly targetIqn: string;
  readonly chap: ChapCredentials | undefined;
  readonly mutualChap: ChapCredentials | undefined;
  /** For all of it, milliseconds. */
  readonly timeoutMs: number;
}

const HEADER_BYTES = 48;
const LOGIN_REQUEST = 0x43;
const LOGIN_RESPONSE = 0x23;
const MAX_DATA_BYTES = 65_536;

type Keys = Readonly<Record<string, string>>;

export async function probeLogin(probe: LoginProbe): Promise<LoginAnswer> {
  const connection = new LoginConnection(probe);
  try {
    return await converse(connection, probe);
  } catch (error) {
    return { kind: 'no-answer', detail: error instanceof Error ? error.message : String(error) };
  } finally {
    connection.close();
  }
}

async function converse(connection: LoginConnection, probe: LoginProbe): Promise<LoginAnswer> {
  const first = await connection.exchange({
    InitiatorName: probe.initiatorIqn,
    TargetName: probe.targetIqn,
    SessionType: 'Normal',
    // In order of preference. Without credentials CHAP is named all the same: LIO hangs up when it wants CHAP and is
    // offered None alone, and taking None where it may is what such a login would do.
    AuthMethod: probe.chap === undefined ? 'None,CHAP' : 'CHAP,None',
  });
  if (first.answer !== undefined) return first.answer;
  const method = first.keys['AuthMethod'];
  if (method === 'Reject') return { kind: 'refused', reason: 'authentication' };
  if (method !== 'CHAP') return { kind: 'accepted' };
  if (probe.chap === undefined) return { kind: 'refused', reason: 'authentication' };
  const challenge = await connection.exchange(chapOffer());
  if (challenge.answer !== undefined) return challenge.answer;
  const answer = await connection.exchange(chapAnswer(challenge.keys, probe.chap, probe.mutualChap !== undefined));
  return answer.answer ?? { kind: 'accepted' };
}

class LoginConnection {
  readonly #socket: net.Socket;
  readonly #isid = Buffer.concat([Buffer.of(0x80), randomBytes(5)]);
  readonly #chunks: AsyncIterator<Buffer>;
  #received = Buffer.alloc(0);
  #statSn = 0;

  constructor(probe: LoginProbe) {
    this.#socket = net.connect({ host: probe.portal.address, port: probe.portal.port });
    const timer = setTimeout(() => {
      this.#socket.destroy(new Error(`the portal did not answer within ${probe.timeoutMs} ms`));
    }, probe.timeoutMs);
    this.#socket.once('close', () => clearTimeout(timer));
    this.#chunks = this.#socket[Symbol.asyncIterator]();
  }

  close(): void {
    this.#socket.destroy();
  }

  /** `answer` is undefined when the target goes on with the login. */
  async exchange(keys: Keys): Promise<{ answer: LoginAnswer | undefined; keys: Keys }> {
    this.#socket.write(this.#request(keys));
    const header = await this.#take(HEADER_BYTES);
    if ((header.readUInt8(0) & 0x3f) !== LOGIN_RESPONSE)
      throw new Error('the portal did not answer with an iSCSI login response');
    const length = header.readUIntBE(5, 3);
    if (length > MAX_DATA_BYTES) throw new Error('the login response is too long');
    const data = (await this.#take(header.readUInt8(4) * 4 + Math.ceil(length / 4) * 4)).subarray(
      header.readUInt8(4) * 4,
    );
    this.#statSn = header.readUInt32BE(24);
    return { answer: answerOf(header.readUInt8(36), header.readUInt8(37)), keys: parseKeys(data.subarray(0, length)) };
  }

  /** Stays in stage 0 (security): flags are 0, so that the target never moves on. */
  #request(keys: Keys): Buffer {
    const text = Buffer.from(
      Object.entries(keys)
        .map(([key, value]) => `${key}=${value}\0`)
        .join(''),
    );
    const pdu = Buffer.alloc(HEADER_BYTES + Math.ceil(text.length / 4) * 4);
    pdu.writeUInt8(LOGIN_REQUEST, 0);
    pdu.writeUIntBE(text.length, 5, 3);
    this.#isid.copy(pdu, 8);
    pdu.writeUInt32BE(1, 16);
    pdu.writeUInt32BE(1, 24);
    pdu.writeUInt32BE(this.#statSn === 0 ? 0 : this.#statSn + 1, 28);
    text.copy(pdu, HEADER_BYTES);
    return pdu;
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#received.length < bytes) {
      const next = await this.#chunks.next();
      if (next.done === true) throw new Error('the portal closed the connection during the login');
      this.#received = Buffer.concat([this.#received, next.value]);
    }
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }
}

/** RFC 7143 section 11.13.5. */
function answerOf(statusClass: number, detail: number): LoginAnswer | undefined {
  if (statusClass === 0) return undefined;
  if (statusClass !== 2) return { kind: 'unavailable' };
  switch (detail) {
    case 1:
      return { kind: 'refused', reason: 'authentication' };
    case 2:
      return { kind: 'refused', reason: 'authorization' };
    case 3:
      return { kind: 'refused', reason: 'not-found' };
    default:
      return { kind: 'refused', reason: 'other' };
  }
}

function parseKeys(data: Buffer): Keys {
  const keys: Record<string, string> = {};
  for (const pair of data.toString('latin1').split('\0')) {
    const equals = pair.indexOf('=');
    if (equals > 0) keys[pair.slice(0, equals)] = pair.slice(equals + 1);
  }
  return keys;
}
