import { expect, test } from '@jest/globals';
import fc from 'fast-check';

import type { GrammarSpec } from '../../../lib/protocol/sampling.js';
import { DetinferError } from '../../../lib/protocol/errors.js';
import { machineFor } from './walk.js';

/** Whether a grammar is taken; it throws for any error but the two that clients may get. */
function isTaken(kind: GrammarSpec['kind'], text: string): boolean {
  try {
    machineFor(kind, text);
    return true;
  } catch (error) {
    if (!(error instanceof DetinferError)) throw new Error(`${kind} ${text}`, { cause: error });
    expect(['INVALID_REQUEST', 'UNSUPPORTED']).toContain(error.code);
    return false;
  }
}

const joined = (...pieces: string[]) =>
  fc.array(fc.constantFrom(...pieces), { maxLength: 14 }).map((list) => list.join(''));
const keyword = fc.constantFrom(
  ...['type', 'properties', 'items', '$ref', 'anyOf', 'allOf', 'oneOf', 'enum', 'const', 'required', 'minLength'],
  ...[
    'pattern',
    'prefixItems',
    'additionalProperties',
    'minimum',
    'maximum',
    'format',
    'minItems',
    '$defs',
    '__proto__',
  ],
);
const word = fc.constantFrom('string', 'object', 'integer', '#', '#/$defs/a', 'a', '^a', 'date');
const odd = fc.letrec<{ schema: object; value: unknown }>((tie) => ({
  schema: fc.dictionary(keyword, tie('value'), { maxKeys: 4 }),
  value: fc.oneof(
    { maxDepth: 4 },
    fc.oneof(word, word, fc.constantFrom(null, true, false), fc.integer({ min: -2, max: 5 })),
    tie('schema'),
    fc.array(tie('value'), { maxLength: 3 }),
  ),
})).schema;

test.each<[GrammarSpec['kind'], fc.Arbitrary<string>]>([
  [
    'regex',
    joined(
      'a',
      'é',
      '😀',
      '(',
      '(?:',
      ')',
      '[',
      ']',
      '^',
      '$',
      '*',
      '+',
      '?',
      '{2}',
      '{',
      '}',
      '|',
      '\\',
      '\\p{L}',
      '-',
    ),
  ],
  [
    'ebnf',
    joined(
      'root',
      ' ::= ',
      '"a"',
      '|',
      '(',
      ')',
      '*',
      '+',
      '{1,2}',
      '[a-z]',
      '\n',
      ' x ',
      '#',
      '"',
      '[',
      '^',
      ']',
      '\\',
    ).map((text) => `root ::= ${text}`),
  ],
  ['json_schema', odd.map((schema) => JSON.stringify(schema))],
])('any %s is taken or refused', (kind, texts) => {
  let taken = 0;
  fc.assert(
    fc.property(texts, (text) => void (taken += Number(isTaken(kind, text)))),
    { numRuns: 800 },
  );
  expect(taken).toBeGreaterThan(20);
  expect(taken).toBeLessThan(800);
});

test.each<[string, GrammarSpec['kind'], string]>([
  ['optional characters', 'regex', 'a?'.repeat(20_000)],
  ['empty alternatives', 'regex', '|'.repeat(190_000)],
  ['empty groups', 'regex', '(|)'.repeat(15_000)],
  ['a long literal', 'ebnf', `root ::= "${'a'.repeat(150_000)}"`],
  ['a long constant', 'json_schema', JSON.stringify({ const: 'a'.repeat(150_000) })],
  ['many rules', 'ebnf', `root ::= ${list(15_000, (i) => `r${i}`)}\n${list(15_000, (i) => `r${i} ::= "a"\n`)}`],
])('%s of a size near the limit are taken', (_, kind, text) => {
  expect(isTaken(kind, text)).toBe(true);
});

test.each<GrammarSpec['kind']>(['regex', 'ebnf', 'json_schema'])('a %s like a library is refused unread', (kind) => {
  const text = { regex: 'a', ebnf: 'root ::= "a" #', json_schema: '{} ' }[kind].padEnd(512 * 1024 + 1);
  expect(() => machineFor(kind, text)).toThrow('The grammar has more than 524288 characters.');
});

test('a schema that nests without an end is refused', () => {
  const text = `{"const": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
  expect(() => machineFor('json_schema', text)).toThrow('The JSON schema nests more than 1000 deep.');
});

function list(count: number, item: (index: number) => string): string {
  return Array.from({ length: count }, (_, i) => item(i)).join(' ');
}
