import { afterEach, describe, expect, test } from '@jest/globals';
import { readCpuUsage } from '../../../lib/bench/serving/cpu-usage.js';
import { formatServing } from '../../../lib/bench/serving/report.js';
import { benchServing } from '../../../lib/bench/serving/run.js';
import type { ServingOptions } from '../../../lib/bench/serving/types.js';
import { planWorkload } from '../../../lib/bench/serving/workload.js';
import { startFixtureServer, type FixtureOptions, type FixtureServer } from '../../determinism/fixture-server.js';

const OPTIONS: ServingOptions = {
  numPrompts: 20,
  randomInputLen: 32,
  randomOutputLen: 16,
  randomRangeRatio: 0.5,
  requestRate: null,
  maxConcurrency: null,
  seed: 1,
  ignoreEos: true,
  temperature: 0,
  vocabSize: null,
};

let server: FixtureServer | null = null;

afterEach(async () => {
  await server?.close();
  server = null;
});

async function bench(fixture: FixtureOptions, options: Partial<ServingOptions> = {}): ReturnType<typeof benchServing> {
  server = await startFixtureServer(fixture);
  return benchServing(server.url, process.pid, { ...OPTIONS, ...options }, () => {});
}

describe('planWorkload', () => {
  test('is repeatable and within the lengths', () => {
    const workload = planWorkload({ ...OPTIONS, numPrompts: 500 }, 100);
    expect(workload).toEqual(planWorkload({ ...OPTIONS, numPrompts: 500 }, 100));
    expect(workload).not.toEqual(planWorkload({ ...OPTIONS, numPrompts: 500, seed: 2 }, 100));
    const inputs = workload.map(({ inputIds }) => inputIds.length);
    const outputs = workload.map(({ outputLength }) => outputLength);
    expect([Math.min(...inputs), Math.max(...inputs), Math.min(...outputs), Math.max(...outputs)]).toEqual([
      16, 32, 8, 16,
    ]);
    expect(workload.every(({ arrival }) => arrival === 0)).toBe(true);
  });

  test('arrives at the given rate', () => {
    const workload = planWorkload({ ...OPTIONS, numPrompts: 2000, requestRate: 50 }, 100);
    expect(workload[0]?.arrival).toBe(0);
    expect(workload.at(-1)?.arrival).toBeGreaterThan(36);
    expect(workload.at(-1)?.arrival).toBeLessThan(44);
  });
});

describe('benchServing', () => {
  test('measures every request', async () => {
    const report = await bench({ delayMs: 5 });
    const planned = planWorkload(OPTIONS, 128);
    expect(report.metrics).toMatchObject({
      completed: 20,
      failed: 0,
      totalInputTokens: planned.reduce((sum, { inputIds }) => sum + inputIds.length, 0),
      totalOutputTokens: planned.reduce((sum, { outputLength }) => sum + outputLength, 0),
    });
    expect(report.metrics.timeToFirstTokenMs.median).toBeGreaterThanOrEqual(4);
    expect(report.metrics.endToEndMs.median).toBeGreaterThanOrEqual(report.metrics.timeToFirstTokenMs.median);
    expect(report.cpu?.client).toBeGreaterThan(0);
    const text = formatServing(report).join('\n');
    expect(text).toMatch(/^Successful requests +20$/m);
    expect(text).toMatch(/^Time to first token \(ms\) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$/m);
  });

  test('tells the CPU time of a token where there was enough to count', async () => {
    const report = await bench({});
    const line = (server: number, worker: number, engine: number): string | undefined => {
      const metrics = { ...report.metrics, totalOutputTokens: 10_000 };
      const lines = formatServing({ ...report, metrics, cpu: { client: 1, server, worker, engine } });
      return lines.find((one) => one.startsWith('CPU time per token'))?.replace(/ {2,}/, ': ');
    };
    expect(line(0.25, 3.1, 3)).toBe('CPU time per token: server 25.0 µs, worker without engine 10.0 µs');
    expect(line(0.01, 3.1, 3)).toBe('CPU time per token: too short a run to tell');
    expect(line(0.25, 0.01, 0.02)).toBe('CPU time per token: too short a run to tell');
  });

  test('sends its prompts as planned, with ignore_eos, after one warm-up', async () => {
    await bench({});
    expect(server?.requests).toHaveLength(21);
    const planned = planWorkload(OPTIONS, 128);
    expect(server?.requests[1]).toEqual({
      input_ids: planned[0]?.inputIds,
      sampling_params: { temperature: 0, max_new_tokens: planned[0]?.outputLength, ignore_eos: true },
      stream: true,
    });
  });

  test('keeps to the limit on requests in flight', async () => {
    const alone = await bench({ delayMs: 10 }, { maxConcurrency: 1, numPrompts: 8 });
    expect(alone.metrics.concurrency).toBeLessThanOrEqual(1);
    await server?.close();
    const together = await bench({ delayMs: 10 }, { numPrompts: 8 });
    expect(together.metrics.concurrency).toBeGreaterThan(2);
  });

  test('keeps to the request rate', async () => {
    const report = await bench({}, { requestRate: 100 });
    expect(report.metrics.durationSeconds).toBeGreaterThan(
      (planWorkload({ ...OPTIONS, requestRate: 100 }, 128).at(-1)?.arrival ?? NaN) * 0.99,
    );
  });

  test.each([
    ['abort', 'out of memory'],
    ['stream-breaks', 'without [DONE]'],
    ['status-500', 'status 500'],
  ] as const)('a warm-up that fails is an error: %s', async (fault, message) => {
    await expect(bench({ faults: [fault] })).rejects.toThrow(message);
  });

  test('lengths that the context does not hold are refused', async () => {
    await expect(bench({ contextLength: 40 })).rejects.toThrow(/up to 48 tokens, the server's context has 40/);
  });
});

test('CPU time grows as a process works, whoever else works on the machine', () => {
  const before = readCpuUsage(process.pid, 0);
  while (readCpuUsage(process.pid, 0).client < before.client + 0.2);
  const after = readCpuUsage(process.pid, 0);
  // The two clocks count the same process; the kernel's has a resolution of 0.01 s.
  expect(after.server - before.server).toBeGreaterThan(0.1);
  expect(after.server - before.server).toBeLessThan(0.5);
});
