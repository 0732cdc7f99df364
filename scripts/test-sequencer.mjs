// The order in which jest starts test files: those that take minutes first, so that they do not end up alone at the end.
import Sequencer from '@jest/test-sequencer';

const SLOW_FIRST = [/\/determinism\/demo\./, /\/e2e\/package\./, /\/e2e\//, /\/fuzz\//, /\/determinism\//];

export default class SlowFirst extends Sequencer {
  sort(tests) {
    const rank = ({ path }) => {
      const index = SLOW_FIRST.findIndex((pattern) => pattern.test(path));
      return index < 0 ? SLOW_FIRST.length : index;
    };
    return [...tests].sort((a, b) => rank(a) - rank(b) || (a.path < b.path ? -1 : 1));
  }
}
