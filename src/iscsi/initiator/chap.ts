/** The initiator's side of CHAP in an iSCSI login (RFC 7143 section 12.1.3, RFC 1994). */
import { createHash, randomBytes } from 'node:crypto';
import type { ChapCredentials } from '../../volumes/publish-context.ts';

/** CHAP_A numbers; SHA-256 for hosts whose kernel runs without MD5 (FIPS). */
const ALGORITHMS: Readonly<Record<string, string>> = { '5': 'md5', '7': 'sha256' };

type Keys = Readonly<Record<string, string>>;

export function chapOffer(): Keys {
  return { CHAP_A: Object.keys(ALGORITHMS).join(',') };
}

/**
 * @param challenge CHAP_A, CHAP_I and CHAP_C as the target sent them
 * @param challengeBack mutual CHAP: the target must be asked too, or it refuses
 */
export function chapAnswer(challenge: Keys, credentials: ChapCredentials, challengeBack: boolean): Keys {
  const algorithm = ALGORITHMS[challenge['CHAP_A'] ?? ''];
  const id = Number(challenge['CHAP_I']);
  const bytes = decodeBinary(challenge['CHAP_C'] ?? '');
  if (algorithm === undefined || !Number.isInteger(id) || id < 0 || id > 255 || bytes === undefined) {
    throw new Error("the target's CHAP challenge is malformed");
  }
  const response = createHash(algorithm).update(Buffer.of(id)).update(credentials.password).update(bytes).digest('hex');
  const answer = { CHAP_N: credentials.user, CHAP_R: `0x${response}` };
  if (!challengeBack) return answer;
  return { ...answer, CHAP_I: String((id + 1) % 256), CHAP_C: `0x${randomBytes(16).toString('hex')}` };
}

/** RFC 7143 section 6.1: "0x" and hex digits, or "0b" and base64. */
function decodeBinary(text: string): Buffer | undefined {
  if (/^0x([0-9a-f]{2})+$/i.test(text)) return Buffer.from(text.slice(2), 'hex');
  if (/^0b[A-Za-z0-9+/]+=*$/i.test(text)) return Buffer.from(text.slice(2), 'base64');
  return undefined;
}
