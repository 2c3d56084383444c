import { expect } from 'chai';
import { page } from '../../../src/csi/paging.ts';
import { DriverError } from '../../../src/errors.ts';

const items = (...ids: string[]) => ids.map((id) => ({ id }));
const ids = (entries: readonly { id: string }[]) => entries.map(({ id }) => id).join('');

describe('pages of a list', () => {
  it('gives all without a limit', () => {
    const { entries, nextToken } = page(items('a', 'b', 'c'), 0, '');
    expect([ids(entries), nextToken]).to.deep.equal(['abc', '']);
  });

  it('gives no token when the last page is exactly full', () => {
    expect(page(items('a', 'b'), 2, '').nextToken).to.equal('');
    expect(page(items(), 2, '')).to.deep.equal({ entries: [], nextToken: '' });
  });

  for (const size of [1, 2, 3, 4, 5, 6]) {
    it(`walks all in pages of ${size}`, () => {
      const all = items('a', 'b', 'c', 'd', 'e');
      let seen = '';
      let token = '';
      do {
        const { entries, nextToken } = page(all, size, token);
        expect(entries.length).to.be.within(1, size);
        seen += ids(entries);
        token = nextToken;
      } while (token !== '');
      expect(seen).to.equal('abcde');
    });
  }

  it('goes on where it was when volumes come and go, the last one of the page too', () => {
    const { nextToken } = page(items('a', 'c', 'e'), 2, '');
    expect(ids(page(items('a', 'b', 'd', 'e', 'f'), 0, nextToken).entries)).to.equal('def');
    expect(ids(page(items('a'), 0, nextToken).entries)).to.equal('');
  });

  it('aborts a token that it did not give', () => {
    for (const token of ['invalid-token', 'after:', 'c', '1']) {
      expect(() => page(items('a'), 0, token), token)
        .to.throw(DriverError, /from the beginning/)
        .with.property('code', 'ABORTED');
    }
  });

  it('refuses a negative number of entries', () => {
    expect(() => page(items('a'), -1, ''))
      .to.throw(DriverError, /-1/)
      .with.property('code', 'INVALID_ARGUMENT');
  });
});
