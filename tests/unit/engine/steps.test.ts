/** Steps that are submitted before the ones before them are collected. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';

import { drawnBy, type Engine, type ForwardSlice, type SliceResult } from '../../../lib/engine/types.js';
import { forward, GREEDY, load, MODEL_FOLDERS } from '../../accuracy/engine-runs.js';

let engine: Engine;
beforeEach(() => {
  engine = load(MODEL_FOLDERS['qwen3-tiny']!);
});
afterEach(() => engine.close());

const PROMPTS = [
  [1, 2, 3, 4, 5],
  [9, 8, 7],
];

/** Slices for both sequences, each with its own pages. */
function stepOf(tokens: number[][], starts: number[]): ForwardSlice[] {
  return tokens.map((ids, i) => ({
    tokens: ids,
    start: starts[i]!,
    pages: [2 * i, 2 * i + 1],
    logprobTemperature: 0.8,
    score: null,
    sample: { ...GREEDY, greedy: false, temperature: 0.8, top: 2, seedLow: i, position: starts[i]! + ids.length - 1 },
  }));
}

const STEPS = 12;
const starts = (step: number): number[] => PROMPTS.map((prompt) => (step === 0 ? 0 : prompt.length + step - 1));

/** Every result of a prefill and decodes, one step at a time. */
function oneByOne(): SliceResult[][] {
  const results = [forward(engine, stepOf(PROMPTS, starts(0)))];
  for (let step = 1; step < STEPS; step++) {
    const tokens = results.at(-1)!.map(({ token }) => [token]);
    results.push(forward(engine, stepOf(tokens, starts(step))));
  }
  return results;
}

describe('two steps under way', () => {
  test('a token that is not known yet gives the same bits', () => {
    const expected = oneByOne();
    const results: SliceResult[][] = [];
    engine.submit(stepOf(PROMPTS, starts(0)));
    for (let step = 1; step < STEPS; step++) {
      engine.submit(stepOf([[drawnBy(0)], [drawnBy(1)]], starts(step)));
      results.push(engine.collect());
    }
    results.push(engine.collect());
    expect(results).toStrictEqual(expected);
  });

  test('it may be that of another slice, collected or not', () => {
    const [[, second], ] = [oneByOne()[0]!];
    const known = forward(engine, stepOf([[second!.token]], [5]))[0]!;
    forward(engine, stepOf(PROMPTS, starts(0)));
    expect(forward(engine, stepOf([[drawnBy(1)]], [5]))).toStrictEqual([known]);
  });

  test('it may end a longer slice', () => {
    const [{ token }] = forward(engine, stepOf([PROMPTS[0]!], [0])) as [SliceResult];
    const known = forward(engine, stepOf([[7, token]], [5]));
    forward(engine, stepOf([PROMPTS[0]!], [0]));
    expect(forward(engine, stepOf([[7, drawnBy(0)]], [5]))).toStrictEqual(known);
  });

  test('a third is refused, and so is collecting none', () => {
    expect(() => engine.collect()).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }));
    engine.submit(stepOf(PROMPTS, starts(0)));
    engine.submit(stepOf(PROMPTS, starts(0)));
    expect(() => engine.submit(stepOf(PROMPTS, starts(0)))).toThrow('two steps are under way');
    expect(engine.collect()).toStrictEqual(engine.collect());
  });

  test('what the slices refer to may change once they are submitted', () => {
    const [expected] = oneByOne();
    const step = stepOf(PROMPTS, starts(0)).map((slice) => ({
      ...slice,
      tokens: Int32Array.from(slice.tokens),
      pages: Int32Array.from(slice.pages),
    }));
    engine.submit(step);
    for (const { tokens, pages } of step) {
      tokens.fill(0);
      pages.fill(9);
    }
    expect(engine.collect()).toStrictEqual(expected);
  });
});
