import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import type { FinishReason, RequestEvent } from '../../../lib/protocol/messages.js';
import { Sequence } from '../../../lib/server/sequence.js';
import { readGenerateRequest } from '../../../lib/server/validate.js';
import { demoTokenizer } from './test-server.js';

function makeSequence(sampling: object, keepEntries = false): Sequence {
  const limits = { vocabSize: 4096, hasTokenizer: true };
  const [request] = readGenerateRequest({ text: 'a', rid: 'r', sampling_params: sampling }, limits).prompts;
  const { token } = request!.sampling;
  const stop = { stopTokenIds: [], minNewTokens: 0, maxNewTokens: 100 };
  const worker = { id: '0', inputIds: [1], outputIds: [], sampling: { ...token, seed: 0 }, stop, logprobs: null };
  const stopTokens = new Map<number, string>();
  if (keepEntries) request!.logprobs = { start: 0, top: 0, tokenIds: [], withText: false, keepEntries };
  const spec = { rids: ['r'], request: request!, worker, stopTokens, weightVersion: 'v', receipts: null };
  return new Sequence(spec, demoTokenizer);
}

/** Cuts a list into parts of the given lengths, in turn. */
function cut<T>(items: T[], lengths: number[]): T[][] {
  const parts: T[][] = [];
  for (let i = 0, k = 0; i < items.length; ++k) {
    const length = lengths[k % lengths.length]!;
    parts.push(items.slice(i, i + length));
    i += length;
  }
  return parts;
}

/** Runs tokens through a sequence in events of the given sizes. @returns the answers after each event. */
function run(sampling: object, tokens: number[], sizes: number[], finish: FinishReason): any[] {
  const sequence = makeSequence(sampling);
  const parts = tokens.length === 0 ? [[]] : cut(tokens, sizes);
  const answers: any[] = [];
  for (const [i, part] of parts.entries()) {
    const event: RequestEvent = { id: '0', tokens: part };
    if (i === parts.length - 1) event.finish = finish;
    sequence.apply(event);
    answers.push(JSON.parse(sequence.render()));
    if (sequence.finish) break;
  }
  return answers;
}

const LENGTH: FinishReason = { type: 'length', length: 100 };
// Single bytes, whole words and special tokens.
const anyToken = fc.oneof(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 256, max: 4092 }), fc.constant(4094));
const anyTokens = fc.array(anyToken, { maxLength: 25 });
const anySizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 });
/** Pieces of the text as stop strings, so that they do occur. */
const anyCase = fc.record({
  tokens: anyTokens,
  sizes: anySizes,
  skip: fc.boolean(),
  spans: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 6 })), {
    maxLength: 2,
  }),
});

describe('any tokens in events of any size', () => {
  test('the text is that of all tokens, up to the first stop string; shown text is never taken back', () => {
    fc.assert(
      fc.property(anyCase, ({ tokens, sizes, skip, spans }) => {
        const whole = demoTokenizer.decode(tokens, skip);
        const characters = [...whole];
        const stop = spans
          .map(([at, length]) =>
            characters
              .slice(Math.floor(at * characters.length))
              .slice(0, length)
              .join(''),
          )
          .filter((string) => string !== '');
        const answers = run({ stop, skip_special_tokens: skip }, tokens, sizes, LENGTH);
        const last = answers.at(-1);
        const end = Math.min(...stop.map((string) => whole.indexOf(string) + string.length));
        const matched = stop.filter((string) => whole.indexOf(string) + string.length === end);
        const longest = Math.max(...matched.map((string) => string.length));
        expect(last.text).toBe(end === Infinity ? whole : whole.slice(0, end - longest));
        expect(last.meta_info.finish_reason.type).toBe(end === Infinity ? 'length' : 'stop');
        for (const { text } of answers) expect(last.text.startsWith(text)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  test('the answer does not depend on the size of events', () => {
    fc.assert(
      fc.property(anyCase, ({ tokens, sizes, skip }) => {
        const params = { stop: ['e', ' th'], stop_regex: '[0-9]+x|qu', skip_special_tokens: skip };
        const [inOne] = run(params, tokens, [100], LENGTH);
        const last = run(params, tokens, sizes, LENGTH).at(-1);
        delete inOne.meta_info.e2e_latency;
        delete last.meta_info.e2e_latency;
        expect(last).toEqual(inOne);
      }),
      { numRuns: 1000 },
    );
  });
});

test('the entries of a long prompt are kept', () => {
  const sequence = makeSequence({}, true);
  const logprobs = Array.from({ length: 200_000 }, () => ({ tokenId: 1, logprob: -1 }));
  sequence.apply({ id: '0', prompt: { cachedTokens: 0, logprobs }, tokens: [] });
  expect(sequence.promptLogprobs).toHaveLength(200_000);
});

describe('a finished sequence', () => {
  test('takes no more events in', () => {
    const sequence = makeSequence({ stop: 'Hello' });
    sequence.apply({ id: '0', tokens: [871] });
    sequence.apply({ id: '0', tokens: [11], finish: { type: 'abort', message: 'ended by a stop string' } });
    expect(sequence.tokens).toEqual([871]);
    expect(sequence.finish).toEqual({ type: 'stop', matched: 'Hello' });
  });

  test('keeps prompt and tokens, to go on elsewhere', () => {
    const sequence = makeSequence({});
    sequence.apply({ id: '0', tokens: [871, 11] });
    expect([sequence.workerRequest.inputIds, sequence.tokens]).toEqual([[1], [871, 11]]);
  });
});
