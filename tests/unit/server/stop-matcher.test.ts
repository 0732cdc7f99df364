import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { RE2JS } from 're2js';

import { StopMatcher } from '../../../lib/server/stop-matcher.js';
import { compileStopRegex } from '../../../lib/server/stop-regex.js';

interface Outcome {
  /** What was released after each piece, and at the end. */
  pieces: string[];
  matched: string | null;
}

function run(pieces: string[], strings: string[], regexes: string[] = [], keepMatch = false): Outcome {
  const matcher = new StopMatcher(strings, regexes.map(compileStopRegex), keepMatch);
  const released: string[] = [];
  for (const piece of pieces) {
    const { text, matched } = matcher.push(piece);
    released.push(text);
    if (matched !== null) return { pieces: released, matched };
  }
  const { text, matched } = matcher.finish();
  return { pieces: [...released, text], matched };
}

describe('stop strings', () => {
  test.each<[string, string[], string[], string[], string | null]>([
    ['none', ['a', 'b'], [], ['a', 'b', ''], null],
    ['not found', ['abc', 'de'], ['xyz'], ['abc', 'de', ''], null],
    ['inside a piece', ['a STOP b'], ['STOP'], ['a '], 'STOP'],
    ['over pieces', ['a S', 'TO', 'P b'], ['STOP'], ['a ', '', ''], 'STOP'],
    ['a beginning that comes to nothing is released', ['a ST', 'EP'], ['STOP'], ['a ', 'STEP', ''], null],
    ['a beginning at the end is released at the end', ['a STO'], ['STOP'], ['a ', 'STO'], null],
    ['self-overlapping', ['aaa', 'ab'], ['aab'], ['a', 'a'], 'aab'],
    ['the one that ends first counts', ['xabcd'], ['abcd', 'bc'], ['xa'], 'bc'],
    ['of those that end together the longer counts', ['xabc'], ['bc', 'abc'], ['x'], 'abc'],
    ['at once', ['STOP'], ['STOP'], [''], 'STOP'],
    ['beyond the BMP, sharing a surrogate', ['a😀', '😁', 'b'], ['😁b'], ['a😀', '', ''], '😁b'],
    ['a shared high surrogate holds nothing back', ['a😀'], ['😁'], ['a😀', ''], null],
  ])('%s', (_, pieces, strings, expected, matched) => {
    expect(run(pieces, strings)).toEqual({ pieces: expected, matched });
  });

  test('no_stop_trim keeps the string and the rest of the piece that completed it', () => {
    expect(run(['a S', 'TOP b', 'c'], ['STOP'], [], true)).toEqual({ pieces: ['a ', 'STOP b'], matched: 'STOP' });
  });

  const letters = (maxLength: number, minLength = 0) =>
    fc.string({ unit: fc.constantFrom('a', 'b', '😀'), minLength, maxLength });

  test('agree with a search of the whole text, however it is cut', () => {
    fc.assert(
      fc.property(
        fc.array(letters(4), { maxLength: 8 }),
        fc.array(letters(4, 1), { minLength: 1, maxLength: 3 }),
        (pieces, strings) => {
          const text = pieces.join('');
          const ends = strings.map((s) => (text.includes(s) ? text.indexOf(s) + s.length : Infinity));
          const end = Math.min(...ends);
          const outcome = run(pieces, strings);
          if (end === Infinity) {
            expect(outcome.matched).toBeNull();
            expect(outcome.pieces.join('')).toBe(text);
          } else {
            const longest = Math.max(...strings.filter((_, i) => ends[i] === end).map((s) => s.length));
            expect(outcome.matched).toHaveLength(longest);
            expect(outcome.pieces.join('')).toBe(text.slice(0, end - longest));
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('hold back no more than could become a match', () => {
    fc.assert(
      fc.property(letters(12), fc.array(letters(4, 1), { minLength: 1, maxLength: 3 }), (text, strings) => {
        const matcher = new StopMatcher(strings, [], false);
        const { text: released, matched } = matcher.push(text);
        if (matched !== null) return;
        const held = text.slice(released.length);
        expect(held === '' || strings.some((s) => s.startsWith(held))).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('stop_regex', () => {
  test.each<[string, string[], string, string[], string | null]>([
    ['not found', ['abc', 'd'], '\\d', ['abc', 'd', ''], null],
    ['ends at the first character that completes a match', ['ab12', '3'], '\\d+', ['ab'], '\\d+'],
    ['over pieces', ['x a', 'bb', 'c y'], 'ab+c', ['x ', '', ''], 'ab+c'],
    ['a beginning that comes to nothing', ['x ab', 'bd'], 'ab+c', ['x ', 'abbd', ''], null],
    ['alternatives', ['say no', 'w'], 'yes|now?', ['say '], 'yes|now?'],
    ['an anchor at the start', ['ab', 'ab'], '^b|^ab', [''], '^b|^ab'],
    ['an anchor that does not hold', ['ba', 'ab'], '^ab', ['ba', 'ab', ''], null],
    ['a line end waits for the next character', ['foo', '\nbar'], '(?m)foo$', ['', ''], '(?m)foo$'],
    ['a line end that is none', ['foo', 'd'], '(?m)foo$', ['', 'food', ''], null],
    ['a text end waits for the end', ['a foo'], 'foo$', ['a ', ''], 'foo$'],
    ['word boundaries', ['cats cat', '.'], '\\bcat\\b', ['cats ', ''], '\\bcat\\b'],
    ['no word boundary', ['cat c', 'at'], '\\Bat', ['c'], '\\Bat'],
    ['case', ['xSt', 'Op'], '(?i)stop', ['x', ''], '(?i)stop'],
    ['any character', ['a\nb', 'cde'], 'b.d', ['a\n', ''], 'b.d'],
    ['beyond the BMP', ['a😀', '😁b'], '[😀-😂]{2}', ['a', ''], '[😀-😂]{2}'],
    ['empty matches do not count', ['bb', 'ab'], 'a*', ['bb', ''], 'a*'],
    [
      'unbounded patterns hold back what they may still need',
      ['a {x', 'y', '} b'],
      '\\{[^}]*\\}',
      ['a ', '', ''],
      '\\{[^}]*\\}',
    ],
  ])('%s', (_, pieces, regex, expected, matched) => {
    expect(run(pieces, [], [regex])).toEqual({ pieces: expected, matched });
  });

  test('with stop strings, what ends first counts', () => {
    expect(run(['ab1', '2 STOP'], ['STOP'], ['\\d\\d\\d'])).toEqual({ pieces: ['ab', '12 '], matched: 'STOP' });
    expect(run(['ab1', '2 STOP'], ['STOP'], ['\\d\\d'])).toEqual({ pieces: ['ab', ''], matched: '\\d\\d' });
  });

  const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\w', '(?:ab)', '(?:a|bb)', '(?:b|)');
  const pattern = fc
    .array(fc.tuple(atom, fc.constantFrom('', '', '*', '+', '?', '{2}', '*?')), { minLength: 1, maxLength: 4 })
    .map((parts) => parts.map((part) => part.join('')).join(''));
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 10 });

  test('agrees with trying every span of the whole text, however it is cut', () => {
    fc.assert(
      fc.property(
        fc.array(pattern, { minLength: 1, maxLength: 2 }),
        fc.array(text, { maxLength: 4 }),
        (patterns, pieces) => {
          const whole = pieces.join('');
          const compiled = patterns.map((p) => RE2JS.compile(p));
          const expected = firstSpan(whole, (span) => compiled.some((regex) => regex.testExact(span)));
          const outcome = run(pieces, [], patterns);
          expect(outcome.matched === null).toBe(expected === null);
          expect(outcome.pieces.join('')).toBe(whole.slice(0, expected ?? whole.length));
        },
      ),
      { numRuns: 1500 },
    );
  });

  test('takes linear time where backtracking takes exponential', () => {
    const start = process.cpuUsage();
    const matcher = new StopMatcher([], [compileStopRegex('(a+)+b')], false);
    for (let i = 0; i < 20_000; ++i) matcher.push('a');
    expect(matcher.push('c').text).toHaveLength(20_001);
    expect(process.cpuUsage(start).user).toBeLessThan(5e6);
  });
});

/** Where the first span begins that ends first, and of several the one that begins first. */
function firstSpan(text: string, isMatch: (span: string) => boolean): number | null {
  for (let end = 1; end <= text.length; ++end) {
    for (let start = 0; start < end; ++start) if (isMatch(text.slice(start, end))) return start;
  }
  return null;
}
