import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import { compileGrammar } from '../../../lib/grammar/compile.js';
import { TokenGrammar } from '../../../lib/grammar/matcher.js';
import { TokenTrie } from '../../../lib/grammar/token-trie.js';
import type { GrammarSpec } from '../../../lib/protocol/sampling.js';
import { after, accepts, machineFor, randomFrom } from './walk.js';

const GRAMMARS: GrammarSpec[] = [
  { kind: 'regex', text: '(ab|a)*c|é+😀?' },
  { kind: 'regex', text: '[^"\\\\]{2,4}"' },
  { kind: 'ebnf', text: 'root ::= "a" root "b" | "é" | "{" root "}" root | ""' },
  { kind: 'json_schema', text: '{"type": "object"}' },
  {
    kind: 'json_schema',
    text: JSON.stringify({
      type: 'object',
      properties: { a: { type: 'array', items: { type: 'string', maxLength: 3 } }, é: { enum: ['😀', 'é'] } },
      required: ['é'],
    }),
  },
];

/** Every byte, pieces of characters, several characters at once, the same bytes twice, and ids that are no text. */
const PIECES: (Uint8Array | null)[] = [
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...[
    'ab',
    'abc',
    'b}',
    '{"',
    '":',
    '", "',
    '{"é":"',
    'éé',
    'é"',
    '"}',
    '😀"}',
    ' {',
    '\n  "',
    '[]',
    '["a","',
    'null',
    '12',
  ].map((text) => new Uint8Array(Buffer.from(text))),
  new Uint8Array(Buffer.from('ab')),
  Uint8Array.of(0xa9, 0x22),
  Uint8Array.of(0x22, 0xf0, 0x9f),
  Uint8Array.of(0x98, 0x80),
  null,
  new Uint8Array(0),
];
const STOP = PIECES.length - 2;

const has = (mask: Uint32Array, id: number): boolean => ((mask[id >>> 5]! >>> (id & 31)) & 1) === 1;

describe.each(GRAMMARS)('$kind $text', (spec) => {
  const trie = new TokenTrie(PIECES);

  test('a mask allows exactly the tokens whose bytes the grammar takes', () => {
    const grammar = new TokenGrammar(compileGrammar(spec), PIECES, trie);
    // Another machine that goes byte by byte, without a tree and without what the first has found so far.
    const machine = machineFor(spec.kind, spec.text);
    let ends = 0;
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const random = randomFrom(seed);
        const matcher = grammar.matcher([STOP]);
        let state = machine.start;
        const bytes: number[] = [];
        for (let step = 0; step < 25; ++step) {
          const mask = matcher.allowed(false);
          const expected = PIECES.map((piece, id) =>
            id === STOP ? state.isAccepting : !!piece?.length && after(machine, state, piece) !== null,
          );
          expect(PIECES.map((_, id) => has(mask, id))).toEqual(expected);
          const allowed = [...expected.keys()].filter((id) => expected[id]);
          // There is always a way on.
          const token = allowed[Math.floor(random() * allowed.length)]!;
          matcher.advance(token);
          if (token === STOP) {
            ends += 1;
            expect(accepts(machine, Buffer.from(bytes).toString())).toBe(true);
            return;
          }
          bytes.push(...PIECES[token]!);
          state = after(machine, state, PIECES[token]!)!;
        }
      }),
      { numRuns: 40 },
    );
    expect(ends).toBeGreaterThan(0);
  });

  test('matchers of one grammar do not see each other', () => {
    const path = (grammar: TokenGrammar, seed: number): number[] => {
      const random = randomFrom(seed);
      const matcher = grammar.matcher([STOP]);
      const tokens: number[] = [];
      while (tokens.length < 15 && tokens.at(-1) !== STOP) {
        const mask = matcher.allowed(false);
        const allowed = PIECES.map((_, id) => id).filter((id) => has(mask, id));
        tokens.push(allowed[Math.floor(random() * allowed.length)]!);
        matcher.advance(tokens.at(-1)!);
      }
      return tokens;
    };
    const shared = new TokenGrammar(compileGrammar(spec), PIECES, trie);
    for (let seed = 1; seed < 8; ++seed) {
      expect(path(shared, seed)).toEqual(path(new TokenGrammar(compileGrammar(spec), PIECES, trie), seed));
    }
  });
});

describe('the end of a text', () => {
  const trie = new TokenTrie(PIECES);
  const matcherOf = (text: string, stops = [STOP]) =>
    new TokenGrammar(compileGrammar({ kind: 'regex', text }), PIECES, trie).matcher(stops);
  const allowed = (mask: Uint32Array): number[] => PIECES.map((_, id) => id).filter((id) => has(mask, id));
  const [A, B] = [0x61, 0x62];

  test('is the only thing left of a complete one', () => {
    const matcher = matcherOf('ab?');
    expect(allowed(matcher.allowed(false))).not.toContain(STOP);
    matcher.advance(A);
    expect(allowed(matcher.allowed(false))).toEqual([B, STOP]);
    matcher.advance(B);
    expect(allowed(matcher.allowed(false))).toEqual([STOP]);
    matcher.advance(STOP);
    expect(allowed(matcher.allowed(false))).toEqual([STOP]);
  });

  test('is left out as long as something else is left', () => {
    const matcher = matcherOf('ab?');
    matcher.advance(A);
    expect(allowed(matcher.allowed(true))).toEqual([B]);
    matcher.advance(B);
    expect(allowed(matcher.allowed(true))).toEqual([STOP]);
  });

  test('may be a token of text that is the only way on', () => {
    const matcher = matcherOf('ab', [B]);
    matcher.advance(A);
    expect(allowed(matcher.allowed(true))).toEqual([B]);
  });

  test('a token that is not allowed is an error, never a silent way out', () => {
    expect(() => matcherOf('ab').advance(B)).toThrow(/does not allow token 98/);
    expect(() => matcherOf('ab').advance(PIECES.length - 1)).toThrow(/does not allow token/);
  });
});

test('a machine that forgot its states goes on', () => {
  const machine = machineFor('regex', 'a{5000}b{5000}c{5000}d{5000}e{5000}');
  const text = [...'abcde'].map((letter) => letter.repeat(5000)).join('');
  expect(accepts(machine, text)).toBe(true);
  expect(accepts(machine, text)).toBe(true);
  expect(accepts(machine, text.slice(1))).toBe(false);
});
