/** One answer, whatever the schedule: every comparison here is exact. */
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';

import type { Engine, ForwardSlice, SampleSpec } from '../../../lib/engine/types.js';
import {
  FIXTURES,
  forward,
  forwardOne,
  GREEDY,
  load,
  MODEL_FOLDERS,
  pagesFor,
  scorePrompt,
} from '../../accuracy/engine-runs.js';

const LENGTH = 150;
const NEXT = { top: 3, tokenIds: [5, 1] };

function makeTokens(engine: Engine, seed: number, length = LENGTH): number[] {
  return Array.from({ length }, (_, i) => (seed * 7919 + i * i * 31 + i * 17) % engine.info.vocabSize);
}

function sliceOf(tokens: number[], start: number, end: number, pages: Int32Array): ForwardSlice {
  const targets = tokens.slice(start + 1, end + 1);
  const score = { firstRow: 0, targets, ...NEXT };
  return { tokens: tokens.slice(start, end), start, pages, logprobTemperature: 1, score, sample: null };
}

/** Everything that is reported about tokens 1 … n-1, computed in chunks of the given size. */
function scoreInChunks(engine: Engine, tokens: number[], chunk: number, pages: Int32Array): number[] {
  const values: number[] = [];
  for (let start = 0; start < tokens.length; start += chunk) {
    const end = Math.min(start + chunk, tokens.length);
    const { score } = forward(engine, [sliceOf(tokens, start, end, pages)])[0]!;
    values.push(...score!.logprobs, ...score!.topLogprobs, ...score!.topIds, ...score!.tokenIdLogprobs);
  }
  return values;
}

/** Only the log-probabilities, which don't depend on where chunks end. */
function logprobsInChunks(engine: Engine, tokens: number[], chunk: number, pages: Int32Array): number[] {
  const values: number[] = [];
  for (let start = 0; start < tokens.length; start += chunk) {
    const end = Math.min(start + chunk, tokens.length);
    values.push(...forward(engine, [sliceOf(tokens, start, end, pages)])[0]!.score!.logprobs);
  }
  return values;
}

describe.each(['qwen3-tiny', 'llama31-tiny', 'qwen3moe-tiny', 'demo'])('%s', (name) => {
  const engine = load(MODEL_FOLDERS[name]!);
  afterAll(() => engine.close());
  const { pageSize } = engine.info;
  const tokens = makeTokens(engine, 1);
  const expected = [...scorePrompt(engine, tokens)];

  test('a model computes something', () => {
    expect(expected.length).toBe(LENGTH - 1);
    expect(expected.every((logprob) => logprob < 0 && logprob > -100)).toBe(true);
    expect(new Set(expected).size).toBeGreaterThan(LENGTH / 2);
  });

  test.each([1, 2, 3, 7, 16, 31, 64, 128, 149])('chunks of %d tokens give the same bits', (chunk) => {
    expect(logprobsInChunks(engine, tokens, chunk, pagesFor(LENGTH, pageSize))).toStrictEqual(expected);
  });

  test('the order of pages gives the same bits, stale content included', () => {
    const pages = Int32Array.from([200, 3, 77, 4, 150, 6, 5, 255, 0, 1]);
    scorePrompt(engine, makeTokens(engine, 2));
    expect(scoreInChunks(engine, tokens, 40, pages)).toStrictEqual(
      scoreInChunks(engine, tokens, 40, pagesFor(LENGTH, pageSize)),
    );
  });

  test('batch mates, prefilled and decoded, give the same bits', () => {
    const mates = [2, 3, 4].map((seed, i) => {
      const mate = makeTokens(engine, seed, 20 + 30 * i);
      return { tokens: mate, pages: Int32Array.from({ length: 8 }, (_, page) => 20 + 10 * i + page) };
    });
    const own = Int32Array.from({ length: 10 }, (_, page) => 100 + page);
    // Mates are a step ahead; then they decode while the sequence is prefilled, between them.
    const first = mates.map((mate) => sliceOf(mate.tokens, 0, mate.tokens.length - 1, mate.pages));
    forward(engine, [...first, sliceOf(tokens, 0, 50, own)]);
    const [a, b, c] = mates.map(({ tokens: t, pages }) => sliceOf(t, t.length - 1, t.length, pages));
    const rest = forward(engine, [a!, b!, sliceOf(tokens, 50, LENGTH, own), c!])[2]!;
    expect([...rest.score!.logprobs]).toStrictEqual(expected.slice(50));
  });

  test('a sampled token and its logprob are those of the row alone, and of scoring', () => {
    const sample: SampleSpec = { ...GREEDY, greedy: false, temperature: 0.7, topK: 50, topP: 0.9, top: 2 };
    const pages = pagesFor(LENGTH, pageSize);
    const slice = { tokens, start: 0, pages, logprobTemperature: 0.7, score: null };
    const draw = (spec: SampleSpec, mates: ForwardSlice[]): [number, number, number[]] => {
      const { token, logprob, topLogprobs } = forward(engine, [...mates, { ...slice, sample: spec }]).at(-1)!;
      return [token, logprob, [...topLogprobs]];
    };
    const mate = { ...slice, tokens: makeTokens(engine, 9), pages: pages.map((page) => page + 50), sample };
    const alone = draw({ ...sample, position: LENGTH - 1 }, []);
    expect(draw({ ...sample, position: LENGTH - 1 }, [mate, mate])).toStrictEqual(alone);
    const scored = scorePrompt(engine, [...tokens, alone[0]], 0.7);
    expect(scored.at(-1)).toBe(alone[1]);
    const last = { ...slice, tokens: tokens.slice(-1), start: LENGTH - 1 };
    const drawn = [...Array(60).keys()].map(
      (position) => forward(engine, [{ ...last, sample: { ...sample, temperature: 3, position } }])[0]!.token,
    );
    expect(new Set(drawn).size).toBeGreaterThan(1);
  });

  test('another number of threads gives the same bits', () => {
    for (const threads of [1, 3]) {
      const other = load(MODEL_FOLDERS[name]!, { threads });
      expect([...scorePrompt(other, tokens)]).toStrictEqual(expected);
      other.close();
    }
  });

  test('another page size gives the same bits', () => {
    const other = load(MODEL_FOLDERS[name]!, { pageSize: 48 });
    expect(logprobsInChunks(other, tokens, 37, pagesFor(LENGTH, 48))).toStrictEqual(expected);
    other.close();
  });
});

// Longer than a pass of the engine too, which takes 1024 rows.
describe('a context of more than two splits of attention', () => {
  const length = 1100;
  const engine = load(MODEL_FOLDERS['qwen3-tiny']!, { jsonModelOverrideArgs: '{"max_position_embeddings": 2048}' });
  afterAll(() => engine.close());
  const tokens = makeTokens(engine, 3, length);
  const pages = pagesFor(length, engine.info.pageSize);
  const expected = [...scorePrompt(engine, tokens)];

  test.each([1, 100, 511, 512, 513])('chunks of %d tokens give the same bits', (chunk) => {
    expect(logprobsInChunks(engine, tokens, chunk, pages)).toStrictEqual(expected);
  });
});

test('dummy weights give logits of a realistic spread', () => {
  const engine = load(join(FIXTURES, 'dummy-tiny'), { loadFormat: 'dummy' });
  const tokenIds = Array.from({ length: engine.info.vocabSize }, (_, id) => id);
  const sample = { ...GREEDY, tokenIds };
  const logprobs = [...forwardOne(engine, { tokens: makeTokens(engine, 5), sample }).tokenIdLogprobs];
  const mean = logprobs.reduce((sum, x) => sum + x, 0) / logprobs.length;
  const deviation = Math.sqrt(logprobs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / logprobs.length);
  expect(deviation).toBeGreaterThan(1.8);
  expect(deviation).toBeLessThan(3);
  engine.close();
});
