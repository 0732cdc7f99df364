import { describe, expect, test } from '@jest/globals';
import { distribution, summarize } from '../../../lib/bench/serving/metrics.js';
import type { Timing } from '../../../lib/bench/serving/types.js';

function timing(changes: Partial<Timing>): Timing {
  return {
    error: null,
    inputTokens: 10,
    outputTokens: 5,
    firstTokenMs: 100,
    totalMs: 500,
    interTokenMs: [100, 100, 100, 100],
    ...changes,
  };
}

describe('distribution', () => {
  test('interpolates as numpy does', () => {
    // numpy.percentile([15, 20, 35, 40, 50], [50, 90, 95, 99])
    expect(distribution([50, 15, 40, 20, 35])).toEqual({ mean: 32, median: 35, p90: 46, p95: 48, p99: 49.6 });
  });

  test('sorts by value, not by text', () => {
    expect(distribution([9, 10, 100]).median).toBe(10);
  });

  test('of nothing is unknown', () => {
    expect(distribution([]).median).toBeNaN();
  });
});

describe('summarize', () => {
  test('rates, times and concurrency', () => {
    const metrics = summarize([timing({}), timing({ outputTokens: 11, totalMs: 1100 })], 2);
    expect(metrics).toMatchObject({
      completed: 2,
      failed: 0,
      totalInputTokens: 20,
      totalOutputTokens: 16,
      requestThroughput: 1,
      inputThroughput: 10,
      outputThroughput: 8,
      concurrency: 0.8,
      timePerOutputTokenMs: { mean: 100 },
      endToEndMs: { mean: 800, median: 800 },
    });
  });

  test('failed requests count as such and nowhere else', () => {
    const metrics = summarize([timing({}), timing({ error: 'status 500', totalMs: 9999 })], 1);
    expect(metrics).toMatchObject({ completed: 1, failed: 1, totalOutputTokens: 5, endToEndMs: { p99: 500 } });
  });

  test('an answer of one token has no time per output token', () => {
    const metrics = summarize([timing({ outputTokens: 1, interTokenMs: [] }), timing({})], 1);
    expect(metrics.timePerOutputTokenMs.mean).toBe(100);
  });
});
