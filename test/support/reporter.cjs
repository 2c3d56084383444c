// mocha's spec reporter, with the counts and the failures written to a file for the summary of `npm test`
// (test/run.ts), and the reason of every skipped test printed: a skip without one is counted as a failure.
const { writeFileSync } = require('node:fs');
const Mocha = require('mocha');

class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options);
    const counts = { passed: 0, failed: 0, skipped: 0, failures: [] };
    runner.on('pass', () => {
      counts.passed += 1;
    });
    runner.on('fail', (test, error) => {
      counts.failed += 1;
      const reason = error.stack ?? String(error);
      counts.failures.push({ name: test.fullTitle(), reason });
      // Now, and not only at the end: a run in the lab takes long.
      console.log(`      ${reason.split('\n').slice(0, 12).join('\n      ')}`);
    });
    runner.on('pending', (test) => {
      if (test.skipReason === undefined) {
        counts.failed += 1;
        counts.failures.push({ name: test.fullTitle(), reason: 'skipped without a reason' });
        console.log(`    skipped without a reason: ${test.fullTitle()}`);
      } else {
        counts.skipped += 1;
        console.log(`    skipped: ${test.skipReason}`);
      }
    });
    runner.once('end', () => {
      const file = process.env.TEST_COUNTS_FILE;
      if (file !== undefined) writeFileSync(file, JSON.stringify(counts));
    });
  }
}

module.exports = CountingReporter;
