import { describe, expect, test } from '@jest/globals';

import {
  checkDeviceWeights,
  devicePages,
  freeBytes,
  hostPages,
  type KvDemand,
} from '../../../lib/engine/kv-budget.js';

const MIB = 2 ** 20;
const DEMAND: KvDemand = {
  weightBytes: 300 * MIB,
  bytesPerToken: 1 * MIB,
  pageSize: 16,
  maxTotalTokens: null,
  memFractionStatic: 0.5,
};

const outOfMemory = (message: string): unknown =>
  expect.objectContaining({ code: 'OUT_OF_MEMORY', message: expect.stringContaining(message) });

describe('hostPages', () => {
  const free = 1000 * MIB;

  test('takes what the fraction of free memory leaves beside the weights', () => {
    expect(hostPages(DEMAND, free)).toBe(Math.floor(200 / 16));
    expect(hostPages({ ...DEMAND, memFractionStatic: 1 }, free)).toBe(Math.floor(700 / 16));
  });

  test('takes at most 262144 tokens unless told otherwise', () => {
    const roomy = { ...DEMAND, bytesPerToken: 16 };
    expect(hostPages(roomy, free)).toBe(262144 / 16);
    expect(hostPages({ ...roomy, maxTotalTokens: 400_000 }, free)).toBe(25_000);
  });

  test('rounds --max-total-tokens down to whole pages', () => {
    expect(hostPages({ ...DEMAND, maxTotalTokens: 100 }, free)).toBe(6);
    expect(hostPages({ ...DEMAND, maxTotalTokens: 16 }, free)).toBe(1);
  });

  test.each<[string, Partial<KvDemand>, string]>([
    ['the weights do not fit', { weightBytes: 999 * MIB }, 'choose a smaller model'],
    ['the fraction leaves no page', { memFractionStatic: 0.31 }, 'raise it'],
    ['too many tokens are wanted', { maxTotalTokens: 10_000 }, 'at most 688'],
  ])('says which flag helps when %s', (_, change, message) => {
    expect(() => hostPages({ ...DEMAND, ...change }, free)).toThrow(outOfMemory(message));
  });
});

describe('checkDeviceWeights', () => {
  const check =
    (change: Partial<KvDemand>, free: number): (() => void) =>
    () =>
      checkDeviceWeights({ ...DEMAND, ...change }, { total: 1000 * MIB, free: free * MIB });

  test('lets weights pass that leave a page', () => {
    expect(check({}, 1000)).not.toThrow();
    expect(check({ weightBytes: 484 * MIB }, 1000)).not.toThrow();
    // What others use counts against the fraction of all memory.
    expect(check({ weightBytes: 284 * MIB }, 800)).not.toThrow();
  });

  test('refuses weights that do not fit, before they are loaded', () => {
    expect(check({}, 315)).toThrow(outOfMemory('only 0.31 GiB are free; end the other programs on it'));
    expect(check({}, 315)).toThrow(outOfMemory('--base-gpu-id'));
    expect(check({ weightBytes: 485 * MIB }, 1000)).toThrow(outOfMemory('--mem-fraction-static 0.5'));
    expect(check({ weightBytes: 285 * MIB }, 800)).toThrow(outOfMemory('0.20 GiB that are in use already'));
  });
});

describe('devicePages', () => {
  // Weights and buffers are allocated by now.
  const memory = { total: 1000 * MIB, free: 660 * MIB };

  test('takes what the fraction of all memory leaves beside everything that is in use', () => {
    expect(devicePages(DEMAND, memory)).toBe(Math.floor((500 - 340) / 16));
    expect(devicePages({ ...DEMAND, memFractionStatic: 0.88 }, memory)).toBe(Math.floor((880 - 340) / 16));
  });

  test('has no limit of its own', () => {
    expect(devicePages({ ...DEMAND, bytesPerToken: 16 }, memory)).toBe((160 * MIB) / 256);
  });

  test('keeps --max-total-tokens within the fraction', () => {
    expect(devicePages({ ...DEMAND, maxTotalTokens: 100 }, memory)).toBe(6);
    expect(devicePages({ ...DEMAND, maxTotalTokens: 160 }, memory)).toBe(10);
    expect(() => devicePages({ ...DEMAND, maxTotalTokens: 176 }, memory)).toThrow(
      outOfMemory('lower --max-total-tokens to at most 160'),
    );
  });

  test('says what to lower when weights and buffers leave no page', () => {
    expect(() => devicePages(DEMAND, { ...memory, free: 515 * MIB })).toThrow(
      outOfMemory('raise it, or lower --max-running-requests or --chunked-prefill-size'),
    );
  });
});

test('freeBytes is a number of bytes that a machine may have', () => {
  expect(freeBytes()).toBeGreaterThan(16 * MIB);
});
