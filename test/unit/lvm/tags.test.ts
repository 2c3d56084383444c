import { expect } from 'chai';
import { checkedTags, escapeTagValue, MAX_TAG_LENGTH, unescapeTagValue } from '../../../src/lvm/tags.ts';
import { LvmError } from '../../../src/lvm/types.ts';

describe('lvm/tags', () => {
  it('turns any text into characters that LVM takes, and back', () => {
    const texts = ['', 'plain-1_2.3+4/5=6!7:8#9', 'a b', '&', '&26', '%', 'ü☃💾', 'nul\0new\nline', `'"$(x)\`,@~`];
    for (const text of texts) {
      const escaped = escapeTagValue(text);
      expect(escaped).to.match(/^[A-Za-z0-9_+.\-/=!:#&]*$/);
      expect(unescapeTagValue(escaped)).to.equal(text);
    }
    expect(escapeTagValue('plain-1_2.3+4/5=6!7:8#9')).to.equal('plain-1_2.3+4/5=6!7:8#9');
    expect(escapeTagValue('a&ü')).to.equal('a&26&c3&bc');
    expect(escapeTagValue('\ud800')).to.equal('&ef&bf&bd');
  });

  it('does not take a value that it would not have made', () => {
    for (const value of ['&', '&2', '&2G', '&C3', 'a b', '&ff', '&c3', 'x,y'])
      expect(unescapeTagValue(value), value).to.equal(undefined);
  });

  it('refuses tags that LVM would refuse, or take for an option', () => {
    for (const tag of ['', 'a b', 'a,b', '-x', 'ü', 'x'.repeat(MAX_TAG_LENGTH + 1)])
      expect(() => checkedTags([tag]), tag.slice(0, 20))
        .to.throw(LvmError)
        .with.property('kind', 'invalid');
    expect(checkedTags(['a', 'b', 'a', 'x'.repeat(MAX_TAG_LENGTH)])).to.have.length(3);
  });
});
