import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import { IncrementalDetokenizer, incompleteTail } from '../../../lib/tokenizer/incremental-detokenizer.js';
import { Tokenizer } from '../../../lib/tokenizer/tokenizer.js';
import { llama2 } from './synthetic.js';

const demo = Tokenizer.load('models/demo');
const byteTokens = new Tokenizer(llama2(), {});

function stream(detokenizer: IncrementalDetokenizer, ids: number[]): string[] {
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.finish()];
}

/** Whether the text ends between the two units of a character. */
function isHalf(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

const anyId = fc.integer({ min: 0, max: 4095 });
// Single bytes come first in the vocabulary, so this is mostly invalid UTF-8.
const anyByte = fc.integer({ min: 0, max: 255 });
const special = fc.integer({ min: 4093, max: 4095 });
const anyIds = fc.array(fc.oneof(anyId, anyByte, special), { maxLength: 40 });

describe('streamed text equals decoded text', () => {
  test.each([true, false])('for any ids, skipSpecialTokens %s', (skip) => {
    fc.assert(
      fc.property(anyIds, (ids) => {
        const pieces = stream(demo.detokenizer(skip), ids);
        expect(pieces.join('')).toBe(demo.decode(ids, skip));
        expect(pieces.some(isHalf)).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });

  test('for any text, whole characters come as soon as their last byte', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), (text) => {
        const ids = demo.encode(text);
        const detokenizer = demo.detokenizer(false);
        const pieces = ids.map((id) => detokenizer.push(id));
        expect(pieces.join('')).toBe(text.normalize('NFC'));
        expect(detokenizer.finish()).toBe('');
      }),
      { numRuns: 1000 },
    );
  });

  test('for byte fallback tokens', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 273 }), { maxLength: 30 }), (ids) => {
        const joined = stream(byteTokens.detokenizer(true), ids).join('');
        // A continuation keeps the one space that decoding strips from the start of a text.
        expect(byteTokens.decode(ids, true)).toBe(joined.replace(/^ /, ''));
      }),
      { numRuns: 1000 },
    );
  });
});

describe('characters split over tokens', () => {
  /** Ids of the single bytes of a text. */
  const idsOf = (text: string): number[] => {
    const wanted = Buffer.from(text);
    return [...wanted].map((byte) => {
      for (let id = 0; id < 256; ++id) {
        const own = demo.bytes(id);
        if (own.length === 1 && own[0] === byte) return id;
      }
      throw new Error(`no token for byte ${byte}`);
    });
  };

  test('nothing is emitted before a character is complete', () => {
    const detokenizer = demo.detokenizer(true);
    expect(idsOf('é😀').map((id) => detokenizer.push(id))).toEqual(['', 'é', '', '', '', '😀']);
  });

  test('an unfinished character ends as one replacement character', () => {
    const detokenizer = demo.detokenizer(true);
    expect(stream(detokenizer, idsOf('a😀').slice(0, 4))).toEqual(['a', '', '', '', '\ufffd']);
  });

  test('a skipped special token does not cut a character', () => {
    const [first, second] = idsOf('é');
    expect(stream(demo.detokenizer(true), [first!, 4095, second!]).join('')).toBe('é');
    expect(stream(demo.detokenizer(false), [first!, 4095, second!]).join('')).toBe('\ufffd<|im_end|>\ufffd');
  });

  test('plain bytes need no waiting', () => {
    const detokenizer = demo.detokenizer(true);
    expect(idsOf('AB').map((id) => detokenizer.push(id))).toEqual(['A', 'B']);
  });
});

describe('incompleteTail', () => {
  test('agrees with what decoding in two parts allows, for any bytes', () => {
    const wild = fc.oneof(
      fc.integer({ min: 0, max: 255 }),
      fc.constantFrom(0xe0, 0xed, 0xf0, 0xf4, 0x80, 0x9f, 0xa0, 0xbf),
    );
    const decode = (part: Uint8Array) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(part);
    fc.assert(
      fc.property(fc.array(wild, { maxLength: 12 }), fc.array(wild, { maxLength: 4 }), (head, tail) => {
        const all = Uint8Array.from([...head, ...tail]);
        const cut = head.length - incompleteTail(Uint8Array.from(head));
        expect(decode(all.subarray(0, cut)) + decode(all.subarray(cut))).toBe(decode(all));
      }),
      { numRuns: 5000 },
    );
  });

  test.each([
    [[0x41], 0],
    [[0xc3], 1],
    [[0xe2, 0x82], 2],
    [[0xf0, 0x9f, 0x98], 3],
    [[0xf0, 0x9f, 0x98, 0x80], 0],
    [[0x80], 0],
    [[0xc0], 0],
    [[0xff], 0],
    [[0xe0, 0x80], 0],
    [[0xed, 0xa0], 0],
    [[0xf4, 0x90], 0],
  ])('%j', (bytes, expected) => {
    expect(incompleteTail(Uint8Array.from(bytes))).toBe(expected);
  });
});
