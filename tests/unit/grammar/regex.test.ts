import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import { accepts, machineFor } from './walk.js';

/** JavaScript's engine goes back and tries again, for minutes where many choices nest. */
const MAX_PATTERN_LENGTH = 60;

/** Patterns whose meaning JavaScript's own engine tells. */
const anyPattern = fc.letrec<{ pattern: string; item: string; atom: string }>((tie) => ({
  pattern: fc
    .array(fc.array(tie('item'), { maxLength: 3 }), { minLength: 1, maxLength: 3 })
    .map((branches) => branches.map((items) => items.join('')).join('|')),
  item: fc
    .tuple(tie('atom'), fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,}', '{0,2}', '*?'))
    .map(([atom, quantifier]) => atom + quantifier),
  atom: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(
      'a',
      'b',
      'é',
      '😀',
      '.',
      '\\.',
      '\\d',
      '\\W',
      '\\s',
      '[ab]',
      '[^a]',
      '[à-ü]',
      '\\u{1F600}',
      '\\x62',
    ),
    fc.constantFrom('\\p{Lu}', '\\P{L}', '[\\d.-]', '[😀-😂b]', '[^\\w😀]', '\\n', '\\uD83D\\uDE00', '[\\]a-]'),
    tie('pattern').map((inner) => `(?:${inner})`),
    tie('pattern').map((inner) => `(${inner})`),
  ),
})).pattern;
const pattern = anyPattern.filter((source) => source.length <= MAX_PATTERN_LENGTH);
const text = fc.string({
  unit: fc.constantFrom('a', 'b', 'é', 'ü', '😀', '😁', '.', '-', '1', ' ', '\n', 'Z', ']'),
  maxLength: 5,
});

test('a pattern matches the texts that it matches in JavaScript', () => {
  let matches = 0;
  fc.assert(
    fc.property(pattern, fc.array(text, { minLength: 10, maxLength: 10 }), (source, texts) => {
      const machine = machineFor('regex', source);
      const expected = new RegExp(`^(?:${source})$`, 'u');
      for (const candidate of texts) {
        matches += Number(expected.test(candidate));
        expect([source, candidate, accepts(machine, candidate)]).toEqual([source, candidate, expected.test(candidate)]);
      }
    }),
    { numRuns: 150 },
  );
  expect(matches).toBeGreaterThan(40);
});

test('anchors at the ends of a pattern change nothing', () => {
  const machine = machineFor('regex', '^a+$|^b');
  expect(['a', 'aa', 'b', 'ab', ''].map((candidate) => accepts(machine, candidate))).toEqual([
    true,
    true,
    true,
    false,
    false,
  ]);
});

describe('is refused', () => {
  test.each<[string, string, RegExp]>([
    ['(', 'INVALID_REQUEST', /a group without an end/],
    ['a)', 'INVALID_REQUEST', /unexpected \)/],
    ['[a', 'INVALID_REQUEST', /a class without an end/],
    ['[b-a]', 'INVALID_REQUEST', /a bad range/],
    ['*a', 'INVALID_REQUEST', /nothing to repeat/],
    ['a{2,1}', 'INVALID_REQUEST', /a bad quantifier/],
    ['a{x}', 'INVALID_REQUEST', /a bad quantifier/],
    ['\\q', 'INVALID_REQUEST', /\\q means nothing/],
    ['\\p{Nonsense}', 'INVALID_REQUEST', /no Unicode property Nonsense/],
    ['a\\', 'INVALID_REQUEST', /ends in a backslash/],
    ['[]', 'INVALID_REQUEST', /matches no text at all/],
    ['(?=a)b', 'UNSUPPORTED', /look-around/],
    ['(?<!a)b', 'UNSUPPORTED', /look-around/],
    ['(a)\\1', 'UNSUPPORTED', /references to groups/],
    ['\\bword', 'UNSUPPORTED', /word boundaries/],
    ['a^b', 'UNSUPPORTED', /\^ and \$ may only stand/],
    ['(a$)b', 'UNSUPPORTED', /\^ and \$ may only stand/],
    ['a{99999}', 'UNSUPPORTED', /at most 10000/],
    ['(?:a?){9999}'.repeat(40), 'UNSUPPORTED', /too large/],
  ])('%s', (source, code, message) => {
    expect(() => machineFor('regex', source)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});
