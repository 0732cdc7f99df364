/** A step is checked before it runs; a refused one leaves the engine as it was. */
import { afterAll, describe, expect, test } from '@jest/globals';

import type { ForwardSlice, SampleSpec } from '../../../lib/engine/types.js';
import { forward, GREEDY, load, MODEL_FOLDERS, scorePrompt } from '../../accuracy/engine-runs.js';

const engine = load(MODEL_FOLDERS['qwen3-tiny']!, { contextLength: 64, maxTotalTokens: 160 });
afterAll(() => engine.close());

const SLICE: ForwardSlice = {
  tokens: [1, 2, 3],
  start: 0,
  pages: [0],
  logprobTemperature: 1,
  score: null,
  sample: null,
};

const sampled = (change: Partial<SampleSpec>): Partial<ForwardSlice> => ({
  sample: { ...GREEDY, greedy: false, ...change },
});

describe('forward refuses', () => {
  test.each<[string, Partial<ForwardSlice>, string]>([
    ['no tokens', { tokens: [] }, 'has no tokens'],
    ['an id outside the vocabulary', { tokens: [1, 512] }, 'token id 512'],
    ['a negative id', { tokens: [-1, 2] }, 'token id -1, outside the vocabulary'],
    ['the token of a slice that draws none', { tokens: [2, -1] }, 'slice 0 of the step before, which draws no token'],
    ['the token of a slice that is not there', { tokens: [-9] }, 'slice 8 of the step before, which draws no token'],
    ['a position past the context', { start: 62, pages: [0, 1, 2, 3, 4] }, 'past the context length of 64'],
    ['too few pages', { start: 15 }, 'has 1 pages of 16 tokens for 18 positions'],
    ['a page that does not exist', { pages: [10] }, 'names page 10 of 10'],
    ['scored rows past the end', { score: { firstRow: 2, targets: [1, 1], top: 0, tokenIds: [] } }, 'scores rows'],
    ['a target outside', { score: { firstRow: 0, targets: [600], top: 0, tokenIds: [] } }, 'target id 600'],
    ['a temperature of 0', sampled({ temperature: 0 }), 'temperature'],
    ['top_k 0', sampled({ topK: 0 }), 'top_k'],
    ['top_p 0', sampled({ topP: 0 }), 'top_p'],
    ['min_p 2', sampled({ minP: 2 }), 'min_p'],
    ['a bias for an id outside', sampled({ biasIds: [999], biasValues: [1] }), 'biased id 999'],
    ['a mask of the wrong length', sampled({ allowed: new Uint32Array(15) }), 'mask of 15 words'],
    ['a mask that allows nothing', sampled({ allowed: new Uint32Array(16) }), 'allows no token'],
    ['a bias that is no number', sampled({ biasIds: [9], biasValues: [NaN] }), 'bias'],
  ])('%s', (_, change, message) => {
    const before = scorePrompt(engine, [5, 6, 7]);
    expect(() => forward(engine, [SLICE, { ...SLICE, ...change }])).toThrow(
      expect.objectContaining({ code: 'INVALID_REQUEST', message: expect.stringMatching(`^slice 1 .*${message}`) }),
    );
    expect(scorePrompt(engine, [5, 6, 7])).toEqual(before);
  });

  test('any step once it is closed', () => {
    const other = load(MODEL_FOLDERS['qwen3-tiny']!);
    other.close();
    expect(() => forward(other, [SLICE])).toThrow(expect.objectContaining({ code: 'ENGINE_FAILED' }));
  });
});

describe('forward', () => {
  test('of nothing gives nothing', () => expect(forward(engine, [])).toEqual([]));

  test('gives what was asked for and no more', () => {
    const [plain] = forward(engine, [SLICE]);
    expect(plain).toMatchObject({ token: -1, logprob: NaN, score: null });
    const score = { firstRow: 1, targets: [4, 9], top: 2, tokenIds: [7, 8, 9] };
    const [full] = forward(engine, [{ ...SLICE, score, sample: { ...GREEDY, top: 1, tokenIds: [3] } }]);
    expect(full!.token).toBe(full!.topIds[0]);
    expect(full!.logprob).toBe(full!.topLogprobs[0]);
    expect(full!.tokenIdLogprobs.length).toBe(1);
    expect(full!.score!.logprobs.length).toBe(2);
    expect(full!.score!.topIds.length).toBe(4);
    expect(full!.score!.tokenIdLogprobs.length).toBe(6);
    expect(full!.score!.logprobs[1]).toBe(full!.score!.tokenIdLogprobs[5]);
  });

  test('draws no banned token', () => {
    const best = forward(engine, [{ ...SLICE, sample: GREEDY }])[0]!.token;
    const banned = { ...GREEDY, biasIds: [best], biasValues: [-Infinity] };
    expect(forward(engine, [{ ...SLICE, sample: banned }])[0]!.token).not.toBe(best);
  });

  test('draws the only token that a mask allows', () => {
    for (const only of [0, 31, 32, 511]) {
      const allowed = new Uint32Array(16);
      allowed[only >>> 5] = 1 << (only & 31);
      expect(forward(engine, [{ ...SLICE, sample: { ...GREEDY, allowed } }])[0]!.token).toBe(only);
    }
  });
});
