import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { MAX_MESSAGE_BYTES, toStatus, truncate } from '../../../src/csi/status.ts';
import { DriverError, type ErrorCode } from '../../../src/errors.ts';
import { CommandError } from '../../../src/system/commands.ts';

const CALL = { method: 'DeleteVolume', requestId: '4711', mayLeaveState: false, scrub: (text: string) => text };

describe('conversion of errors into a status', () => {
  const codes: readonly ErrorCode[] = [
    'INVALID_ARGUMENT',
    'NOT_FOUND',
    'ALREADY_EXISTS',
    'RESOURCE_EXHAUSTED',
    'FAILED_PRECONDITION',
    'ABORTED',
    'OUT_OF_RANGE',
    'UNIMPLEMENTED',
    'INTERNAL',
    'UNAVAILABLE',
    'DEADLINE_EXCEEDED',
  ];
  for (const code of codes) {
    it(`keeps code and message of a DriverError ${code}`, () => {
      const text = { problem: 'the volume is gone', found: 'nothing', action: 'make one' };
      const result = toStatus(new DriverError(code, text, { cause: new Error('lvs: secret words') }), CALL);
      expect(result).to.deep.equal({
        code: status[code],
        codeName: code,
        message: 'the volume is gone; found: nothing; to do: make one',
        expected: true,
      });
    });
  }

  const unexpected: readonly [string, unknown][] = [
    ['an Error', new Error('ENOENT /dev/secret')],
    ['a TypeError', new TypeError('x is not a function')],
    ['a CommandError', new CommandError({ command: 'lvs secret', shortMessage: 'secret', durationMs: 1 })],
    ['a string', 'secret'],
    ['undefined', undefined],
    ['null', null],
  ];
  for (const [what, error] of unexpected) {
    it(`says nothing but the request id of ${what}`, () => {
      const result = toStatus(error, CALL);
      expect(result.codeName).to.equal('INTERNAL');
      expect(result.expected).to.equal(false);
      expect(result.message).to.include('DeleteVolume').and.to.include('4711');
      expect(result.message).to.not.match(/secret|ENOENT|function/);
    });
  }

  it('shortens what was found before what is to be done', () => {
    const text = { problem: 'the volume is gone', found: `canary-canary ${'ü'.repeat(2_000)}`, action: 'look here' };
    const scrub = (words: string) => words.replaceAll('canary-canary', '*');
    const { message } = toStatus(new DriverError('ABORTED', text), { ...CALL, scrub });
    expect(message).to.match(/^the volume is gone; found: \* ü+…; to do: look here$/);
    expect(Buffer.byteLength(message)).to.be.within(MAX_MESSAGE_BYTES - 4, MAX_MESSAGE_BYTES);
    const all = { problem: 'p'.repeat(800), found: 'f'.repeat(800), action: 'a'.repeat(800) };
    expect(Buffer.byteLength(toStatus(new DriverError('ABORTED', all), CALL).message)).to.be.at.most(MAX_MESSAGE_BYTES);
  });

  it('takes secrets out before it cuts, so that none is left in part', () => {
    const message = `${'x'.repeat(MAX_MESSAGE_BYTES - 10)}canary-canary`;
    const scrub = (text: string) => text.replaceAll('canary-canary', '*');
    expect(toStatus(new DriverError('INTERNAL', message), { ...CALL, scrub }).message).to.not.include('can');
  });

  it('answers a retryable code when something may be left behind', () => {
    const result = toStatus(new Error('boom'), { ...CALL, method: 'CreateVolume', mayLeaveState: true });
    expect(result.codeName).to.equal('UNAVAILABLE');
    expect(result.message).to.not.include('boom');
  });
});

describe('truncation of messages', () => {
  it('leaves what fits', () => {
    const exact = 'x'.repeat(MAX_MESSAGE_BYTES);
    expect(truncate(exact)).to.equal(exact);
    expect(truncate('')).to.equal('');
  });

  for (const character of ['x', 'ü', '漢', '😀']) {
    it(`cuts "${character}" between characters`, () => {
      for (let prefix = 0; prefix < 4; prefix += 1) {
        const cut = truncate('a'.repeat(prefix) + character.repeat(MAX_MESSAGE_BYTES + 1));
        expect(Buffer.byteLength(cut)).to.be.at.most(MAX_MESSAGE_BYTES);
        expect(Buffer.byteLength(cut)).to.be.greaterThan(MAX_MESSAGE_BYTES - 8);
        expect(cut).to.match(/…$/);
        expect(cut).to.not.include('\ufffd');
        expect(cut.slice(prefix, -1).replaceAll(character, '')).to.equal('');
      }
    });
  }

  it('does not choke on a lone surrogate', () => {
    expect(truncate(`${'x'.repeat(MAX_MESSAGE_BYTES)}\ud83d`)).to.match(/…$/);
    expect(truncate('\ud83d')).to.equal('\ufffd');
  });
});
