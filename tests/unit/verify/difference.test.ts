import { describe, expect, test } from '@jest/globals';
import { AnswerSet, Check, outputSample, type Sample } from '../../../lib/verify/answer-set.js';
import { firstDifference } from '../../../lib/verify/difference.js';
import type { Origin } from '../../../lib/verify/types.js';

const ORIGIN: Origin = { trial: 1, batchSize: 1, index: 0 };
const OTHER: Origin = { trial: 2, batchSize: 2, index: 1 };

function sample(changes: Partial<Sample> = {}): Sample {
  return {
    text: 'abc',
    ids: [1, 2, 3],
    promptLength: 0,
    finishReason: '{"type":"length","length":3}',
    logprobs: [-0.5, -0.25, -0.125],
    ...changes,
  };
}

function difference(a: Partial<Sample>, b: Partial<Sample>): ReturnType<typeof firstDifference> {
  return firstDifference({ sample: sample(a), origin: ORIGIN }, { sample: sample(b), origin: OTHER });
}

describe('firstDifference', () => {
  test('a token, with the ids and logprobs of both sides', () => {
    const found = difference({}, { ids: [1, 9, 3], logprobs: [-0.5, -0.75, -1] });
    expect(found).toMatchObject({ kind: 'token', position: 1, part: 'output' });
    expect(found.sides).toMatchObject([
      { origin: ORIGIN, tokenId: 2, logprob: -0.25 },
      { origin: OTHER, tokenId: 9, logprob: -0.75 },
    ]);
  });

  test('a logprob that differs before the first token does', () => {
    expect(difference({}, { ids: [1, 2, 9], logprobs: [-0.5, -0.25000000000000006, -1] })).toMatchObject({
      kind: 'logprob',
      position: 1,
    });
  });

  test('an answer that ends earlier', () => {
    const found = difference({}, { ids: [1, 2], logprobs: [-0.5, -0.25] });
    expect(found).toMatchObject({ kind: 'length', position: 2 });
    expect(found.sides.map((side) => side.tokenId)).toEqual([3, null]);
  });

  test('a position within the prompt', () => {
    expect(difference({ promptLength: 2 }, { promptLength: 2, logprobs: [-0.5, -0.3, -0.125] })).toMatchObject({
      part: 'prompt',
      position: 1,
    });
    expect(difference({ promptLength: 2 }, { promptLength: 2, logprobs: [-0.5, -0.25, -0.3] })).toMatchObject({
      part: 'output',
      position: 0,
    });
  });

  test('fields that are compared as JSON', () => {
    const found = difference({ otherFields: '{"a":1}' }, { otherFields: '{"a":2}' });
    expect(found).toMatchObject({ kind: 'field', position: 5 });
    expect(found.sides.map((side) => side.excerpt)).toEqual(['1}', '2}']);
  });

  test('texts where there are no ids, and where the ids are equal', () => {
    const found = difference({ ids: null, logprobs: null }, { ids: null, logprobs: null, text: 'abX' });
    expect(found).toMatchObject({ kind: 'text', position: 2 });
    expect(found.sides.map((side) => side.excerpt)).toEqual(['c', 'X']);
    expect(difference({}, { text: 'abcd' })).toMatchObject({ kind: 'text', position: 3 });
  });

  test('the finish reason, when all else is equal', () => {
    expect(difference({}, { finishReason: '{"type":"stop","matched":3}' })).toMatchObject({
      kind: 'finish reason',
      position: 3,
    });
  });
});

describe('AnswerSet', () => {
  test('counts distinct answers and tokens', () => {
    const set = new AnswerSet('x');
    set.add(sample(), ORIGIN);
    set.add(sample(), OTHER);
    expect([set.total, set.unique, set.tokens, set.difference()]).toEqual([2, 1, 6, null]);
    set.add(sample({ logprobs: [-0.5, -0.25, -0.12500001] }), OTHER);
    expect([set.total, set.unique]).toEqual([3, 2]);
    expect(set.difference()).toMatchObject({ kind: 'logprob', position: 2 });
  });

  test('tells neighbouring doubles apart, and not -0 from 0', () => {
    const set = new AnswerSet('x');
    set.add(sample({ logprobs: [0.1, 0, 0] }), ORIGIN);
    set.add(sample({ logprobs: [0.1, -0, 0] }), ORIGIN);
    expect(set.unique).toBe(1);
    set.add(sample({ logprobs: [0.1 + 2 ** -56, 0, 0] }), ORIGIN);
    expect(set.unique).toBe(2);
  });

  test('a check over several questions has the worst unique count', () => {
    const [good, bad] = [new AnswerSet('x'), new AnswerSet('y')];
    for (const set of [good, bad]) for (const origin of [ORIGIN, OTHER]) set.add(sample(), origin);
    bad.add(sample({ text: 'other' }), OTHER);
    expect(new Check('name', [good, bad]).result([])).toEqual({
      name: 'name',
      total: 5,
      unique: 2,
      tokens: 15,
      differences: [],
    });
  });
});

describe('outputSample', () => {
  const answer = {
    text: 'a',
    outputIds: null,
    finishReason: '{}',
    promptTokens: 1,
    completionTokens: 1,
    cachedTokens: 0,
    inputLogprobs: null,
    outputLogprobs: [[-0.5, 7, 'a']] as [number, number, string][],
    inputTokenIdsLogprobs: null,
    raw: {},
  };

  test('takes ids from logprobs where the server sends no output_ids', () => {
    expect(outputSample(answer, true)).toMatchObject({ ids: [7], logprobs: [-0.5] });
    expect(outputSample(answer, false)).toMatchObject({ ids: [7], logprobs: null });
  });

  test('refuses an answer without the logprobs that were asked for', () => {
    expect(() => outputSample({ ...answer, outputLogprobs: null }, true)).toThrow(/output_token_logprobs/);
  });
});

test('the result of very many questions', () => {
  const sets = Array.from({ length: 200_000 }, () => new AnswerSet('a'));
  sets.at(-1)!.add(sample(), ORIGIN);
  expect(new Check('', sets).result([])).toMatchObject({ total: 1, unique: 1, tokens: 3 });
});
