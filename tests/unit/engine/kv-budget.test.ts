import { describe, expect, test } from '@jest/globals';

import { freeBytes, kvPages, type KvBudgetInput } from '../../../lib/engine/kv-budget.js';

const MIB = 2 ** 20;
const INPUT: KvBudgetInput = {
  freeBytes: 1000 * MIB,
  weightBytes: 300 * MIB,
  bytesPerToken: 1 * MIB,
  pageSize: 16,
  maxTotalTokens: null,
  memFractionStatic: 0.5,
};

describe('kvPages', () => {
  test('takes what the fraction of free memory leaves beside the weights', () => {
    expect(kvPages(INPUT)).toBe(Math.floor(200 / 16));
    expect(kvPages({ ...INPUT, memFractionStatic: 1 })).toBe(Math.floor(700 / 16));
  });

  test('takes at most 262144 tokens unless told otherwise', () => {
    const roomy = { ...INPUT, bytesPerToken: 16 };
    expect(kvPages(roomy)).toBe(262144 / 16);
    expect(kvPages({ ...roomy, maxTotalTokens: 400_000 })).toBe(25_000);
  });

  test('rounds --max-total-tokens down to whole pages', () => {
    expect(kvPages({ ...INPUT, maxTotalTokens: 100 })).toBe(6);
    expect(kvPages({ ...INPUT, maxTotalTokens: 16 })).toBe(1);
  });

  test.each<[string, Partial<KvBudgetInput>, string]>([
    ['the weights do not fit', { weightBytes: 999 * MIB }, 'choose a smaller model'],
    ['the fraction leaves no page', { memFractionStatic: 0.31 }, 'raise it'],
    ['too many tokens are wanted', { maxTotalTokens: 10_000 }, 'at most 688'],
  ])('says which flag helps when %s', (_, change, message) => {
    expect(() => kvPages({ ...INPUT, ...change })).toThrow(
      expect.objectContaining({ code: 'OUT_OF_MEMORY', message: expect.stringContaining(message) }),
    );
  });
});

test('freeBytes is a number of bytes that a machine may have', () => {
  expect(freeBytes()).toBeGreaterThan(16 * MIB);
});
