import { describe, expect, test } from '@jest/globals';
import { loadEngine } from '../../../lib/engine/engine.js';
import { loadAddon } from '../../../lib/engine/load-addon.js';
import type { NativeEngine, NativeOptions, NativeStep } from '../../../lib/engine/native.js';
import { StepWriter } from '../../../lib/engine/step-writer.js';
import type { ForwardSlice } from '../../../lib/engine/types.js';
import { defaultOptions, GREEDY, MODEL_FOLDERS } from '../../accuracy/engine-runs.js';

const SLICE: ForwardSlice = { tokens: [1, 2], start: 0, pages: [0], logprobTemperature: 1, score: null, sample: null };

/** What an engine on the CPU has of the addon. */
function nativeEngine(): NativeEngine {
  let made: NativeEngine | null = null;
  const addon = { ...loadAddon('cpu') };
  addon.NativeEngine = new Proxy(addon.NativeEngine, {
    construct: (target, [options]: [NativeOptions]) => (made = new target(options)),
  });
  loadEngine(defaultOptions(MODEL_FOLDERS['qwen3-tiny']!), () => {}, addon);
  return made!;
}

describe('a step for the addon', () => {
  test('has room for slices of any number and length', () => {
    const writer = new StepWriter();
    const tokens = Array.from({ length: 20_000 }, (_, i) => i);
    const slices = Array.from({ length: 3000 }, () => SLICE);
    const one = [2, 1, 2, 0, 1, 0, 0, 0];
    const { words, numbers } = writer.write([{ ...SLICE, tokens }, ...slices]);
    expect(Array.from(words)).toEqual([20_000, ...tokens, ...one.slice(3), ...slices.flatMap(() => one)]);
    expect(Array.from(numbers)).toEqual(Array.from({ length: 3001 }, () => 1));
    expect(Array.from(writer.write([SLICE]).words)).toEqual(one);
  });

  test('keeps signs, the bits of masks and seeds, and floats', () => {
    const allowed = Uint32Array.of(2 ** 31);
    const sample = { ...GREEDY, seedHigh: 0xffffffff, biasIds: [7], biasValues: [-Infinity], allowed };
    const { words } = new StepWriter().write([{ ...SLICE, tokens: [-1], sample }]);
    const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
    const bias = floats[words.indexOf(7) + 2];
    expect([words[1], words.indexOf(-1, 2) > 0, bias]).toEqual([-1, true, -Infinity]);
    expect(words).toContain(-(2 ** 31));
  });

  test.each<[string, (step: NativeStep) => NativeStep, string]>([
    ['is cut off', (step) => ({ ...step, words: step.words.subarray(0, -1) }), 'a step ends within a slice'],
    ['lacks a number', (step) => ({ ...step, numbers: step.numbers.subarray(1) }), 'a step ends within a slice'],
    ['has a list of negative length', (step) => ({ ...step, words: Int32Array.of(-1) }), 'a step ends within a slice'],
    ['goes on', (step) => ({ ...step, slices: 0 }), 'a step goes on behind its slices'],
    ['is no step', () => ({}) as NativeStep, 'a step is an array of doubles'],
  ])('that %s is refused', (_, damage, message) => {
    const native = nativeEngine();
    const step = new StepWriter().write([{ ...SLICE, sample: GREEDY }]);
    expect(() => native.submit(damage(step))).toThrow(message);
    native.submit(step);
    expect(native.collect().tokens.length).toBe(1);
  });
});
