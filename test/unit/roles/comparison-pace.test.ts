import { expect } from 'chai';
import { ComparisonPace } from '../../../src/roles/comparison-pace.ts';

describe('pace of the comparison', () => {
  const pauses = (outcome: 'complete' | 'incomplete' | 'impossible', pace = new ComparisonPace()): number[] =>
    Array.from({ length: 8 }, () => pace.after(outcome) / 1000);

  it('is slow when all is well, and slows down to that when something cannot be repaired', () => {
    expect(pauses('complete')).to.deep.equal(Array(8).fill(300));
    expect(pauses('incomplete')).to.deep.equal([5, 10, 20, 40, 80, 160, 300, 300]);
  });

  it('stays quick while nothing can be read, for ever', () => {
    const pace = new ComparisonPace();
    expect(pauses('impossible', pace)).to.deep.equal([5, 10, 20, 30, 30, 30, 30, 30]);
    for (let count = 0; count < 2000; count += 1) pace.after('impossible');
    expect(pace.after('impossible')).to.equal(30_000);
  });

  it('begins anew after a success', () => {
    const pace = new ComparisonPace();
    pauses('incomplete', pace);
    pace.after('complete');
    expect(pace.after('incomplete')).to.equal(5_000);
  });
});
