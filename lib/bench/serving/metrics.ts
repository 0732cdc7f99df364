import type { Timing } from './types.js';

export interface Distribution {
  mean: number;
  median: number;
  p90: number;
  p95: number;
  p99: number;
}

/** Rates per second, times in ms. */
export interface ServingMetrics {
  completed: number;
  failed: number;
  durationSeconds: number;
  totalInputTokens: number;
  totalOutputTokens: number;
  requestThroughput: number;
  inputThroughput: number;
  outputThroughput: number;
  /** Mean number of requests in flight. */
  concurrency: number;
  endToEndMs: Distribution;
  timeToFirstTokenMs: Distribution;
  /** Time per output token of each request, without its first. */
  timePerOutputTokenMs: Distribution;
  interTokenMs: Distribution;
}

/** Sums up the successful requests. */
export function summarize(timings: Timing[], durationSeconds: number): ServingMetrics {
  const completed = timings.filter((timing) => timing.error === null);
  const totalInputTokens = sum(completed.map((timing) => timing.inputTokens));
  const totalOutputTokens = sum(completed.map((timing) => timing.outputTokens));
  const several = completed.filter((timing) => timing.outputTokens > 1);
  return {
    completed: completed.length,
    failed: timings.length - completed.length,
    durationSeconds,
    totalInputTokens,
    totalOutputTokens,
    requestThroughput: completed.length / durationSeconds,
    inputThroughput: totalInputTokens / durationSeconds,
    outputThroughput: totalOutputTokens / durationSeconds,
    concurrency: sum(completed.map((timing) => timing.totalMs)) / 1000 / durationSeconds,
    endToEndMs: distribution(completed.map((timing) => timing.totalMs)),
    timeToFirstTokenMs: distribution(completed.map((timing) => timing.firstTokenMs)),
    timePerOutputTokenMs: distribution(
      several.map((timing) => (timing.totalMs - timing.firstTokenMs) / (timing.outputTokens - 1)),
    ),
    interTokenMs: distribution(completed.flatMap((timing) => timing.interTokenMs)),
  };
}

/** Percentiles with linear interpolation, as numpy has them; NaN of nothing. */
export function distribution(values: number[]): Distribution {
  const sorted = Float64Array.from(values).sort();
  const percentile = (share: number): number => {
    const place = share * (sorted.length - 1);
    const low = sorted[Math.floor(place)] ?? NaN;
    const high = sorted[Math.ceil(place)] ?? NaN;
    return low + (high - low) * (place - Math.floor(place));
  };
  return {
    mean: sum(values) / values.length,
    median: percentile(0.5),
    p90: percentile(0.9),
    p95: percentile(0.95),
    p99: percentile(0.99),
  };
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
