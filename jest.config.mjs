// Tests run from the compiled output, so that what is tested is what is shipped.
export default {
  testMatch: ['<rootDir>/dist/tests/**/*.test.js'],
  testSequencer: '<rootDir>/scripts/test-sequencer.mjs',
  testTimeout: 60_000,
  transform: {},
  reporters: ['default'],
};
