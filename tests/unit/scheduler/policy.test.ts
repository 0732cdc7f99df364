import { describe, expect, test } from '@jest/globals';
import { chunkLength, mayStart, pageDemand } from '../../../lib/scheduler/policy.js';

const LIMITS = { chunkedPrefillSize: 100, maxPrefillTokens: 250 };

describe('chunkLength', () => {
  test('cuts a prompt to the chunk size and to what is left of the budget', () => {
    expect(chunkLength(80, 0, LIMITS)).toBe(80);
    expect(chunkLength(500, 0, LIMITS)).toBe(100);
    expect(chunkLength(500, 200, LIMITS)).toBe(50);
    expect(chunkLength(500, 250, LIMITS)).toBe(0);
  });

  test('gives a decode its token whatever prefills take', () => {
    expect(chunkLength(1, 250, LIMITS)).toBe(1);
    expect(chunkLength(1, 9999, { ...LIMITS, chunkedPrefillSize: -1 })).toBe(1);
  });

  test('without chunks, a prompt runs whole: within the budget or as the only one', () => {
    const whole = { ...LIMITS, chunkedPrefillSize: -1 };
    expect(chunkLength(200, 50, whole)).toBe(200);
    expect(chunkLength(201, 50, whole)).toBe(0);
    expect(chunkLength(5000, 0, whole)).toBe(5000);
  });
});

describe('mayStart', () => {
  test('wants the pages of the request beside what running ones will need', () => {
    expect(mayStart({ running: 1, available: 10, reserved: 4, demand: 6 })).toBe(true);
    expect(mayStart({ running: 1, available: 10, reserved: 5, demand: 6 })).toBe(false);
  });

  test('lets a request start when nothing runs, even one that fills all pages', () => {
    expect(mayStart({ running: 0, available: 10, reserved: 0, demand: 11 })).toBe(true);
  });
});

test('pageDemand counts missing pages and one to grow', () => {
  expect(pageDemand(33, 0, 16)).toBe(4);
  expect(pageDemand(32, 0, 16)).toBe(3);
  expect(pageDemand(33, 3, 16)).toBe(1);
});
