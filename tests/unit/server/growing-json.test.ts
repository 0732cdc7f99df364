import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import { JsonList, JsonString } from '../../../lib/server/growing-json.js';

const pieces = fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('"', '\\', '\n', '\u2028', '😀', '')));

describe('JSON that grows', () => {
  test('a string is that of the whole text, after every piece', () => {
    fc.assert(
      fc.property(pieces, (given) => {
        const json = new JsonString();
        let text = '';
        for (const piece of given) {
          json.push(piece);
          text += piece;
          expect(String(json)).toBe(JSON.stringify(text));
        }
        expect(String(json)).toBe(JSON.stringify(text));
      }),
    );
  });

  test('a list is that of all elements, after every one', () => {
    fc.assert(
      fc.property(pieces, (given) => {
        const json = new JsonList();
        expect(String(json)).toBe('[]');
        given.forEach((_, i) => {
          json.push(JSON.stringify(given[i]));
          expect(String(json)).toBe(JSON.stringify(given.slice(0, i + 1)));
        });
      }),
    );
  });
});
