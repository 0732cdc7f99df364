import { afterEach, describe, expect, test } from '@jest/globals';
import { NO_PROGRESS } from '../../lib/verify/progress.js';
import { formatReport, PLAIN } from '../../lib/verify/report.js';
import { runTest } from '../../lib/verify/run.js';
import { exitCode, MODE_NAMES, type ModeName, type TestOptions, type TestReport } from '../../lib/verify/types.js';
import { startFixtureServer, type Fault, type FixtureOptions, type FixtureServer } from './fixture-server.js';

const OPTIONS: TestOptions = {
  nTrials: 10,
  nStart: 1,
  temperature: 0,
  samplingSeed: 42,
  maxNewTokens: 8,
  frequencyPenalty: 0,
  presencePenalty: 0,
  topP: null,
  topK: null,
  minP: null,
  returnLogprob: false,
  stream: false,
  randomSeed: 42,
  vocabSize: null,
};

let server: FixtureServer | null = null;

afterEach(async () => {
  await server?.close();
  server = null;
});

async function run(
  modes: ModeName[],
  fixture: FixtureOptions,
  options: Partial<TestOptions> = {},
): Promise<TestReport> {
  server = await startFixtureServer(fixture);
  return runTest(server.url, modes, { ...OPTIONS, ...options }, NO_PROGRESS);
}

function textOf(report: TestReport): string {
  return formatReport(report, PLAIN).join('\n');
}

describe('a deterministic server passes every mode', () => {
  test.each<[string, FixtureOptions, Partial<TestOptions>]>([
    ['with text', {}, {}],
    ['with logprobs', {}, { returnLogprob: true }],
    ['streamed', {}, { stream: true, returnLogprob: true }],
    ['at a temperature', {}, { temperature: 0.8, topP: 0.9, topK: 40, minP: 0.01 }],
    ['without a tokenizer', { tokenizer: false }, { returnLogprob: true }],
    ['with slow answers, so that traffic overlaps', { delayMs: 30 }, {}],
  ])('%s', async (_, fixture, options) => {
    const report = await run([...MODE_NAMES], fixture, options);
    expect(textOf(report)).not.toMatch(/Unique samples: (?!1$)/m);
    expect(report.modes.map((mode) => mode.error)).toEqual([null, null, null, null, null]);
    expect(exitCode(report)).toBe(0);
  });

  test('and the counts are those of the trials', async () => {
    const report = await run(['single', 'prefix', 'mixed', 'radix_cache', 'p_vs_d'], {});
    const totals = Object.fromEntries(
      report.modes.map(({ mode, checks }) => [mode, checks.map((check) => check.total)]),
    );
    expect(totals.single).toEqual([55]);
    expect(totals.prefix?.reduce((sum, total) => sum + total)).toBe(55);
    expect(totals.mixed).toEqual([10, 10, 10]);
    expect(totals.radix_cache).toEqual([20]);
    expect(totals.p_vs_d).toEqual([110]);
    expect(textOf(report)).toContain('\nTotal samples: 55, Unique samples: 1\n');
    expect(textOf(report)).toMatch(/^Prompt 3 with prefix length 4097: total samples: \d+, Unique samples: 1$/m);
  });
});

describe('a fault is detected', () => {
  const LOGPROBS = { returnLogprob: true };
  test.each<[Fault, ModeName, Partial<TestOptions>, FixtureOptions]>([
    ['batch-size', 'single', {}, {}],
    ['batch-size', 'single', { stream: true }, {}],
    ['batch-size', 'single', {}, { tokenizer: false }],
    ['batch-size', 'prefix', {}, {}],
    ['batch-size', 'mixed', {}, {}],
    ['last-bit', 'single', LOGPROBS, {}],
    ['last-bit', 'prefix', LOGPROBS, {}],
    ['last-bit', 'mixed', LOGPROBS, {}],
    ['last-bit', 'p_vs_d', {}, {}],
    ['text', 'single', {}, {}],
    ['finish', 'single', {}, {}],
    ['warm-cache', 'radix_cache', {}, {}],
    ['warm-cache', 'radix_cache', {}, { tokenizer: false }],
    ['scoring', 'p_vs_d', {}, {}],
    ['scoring', 'p_vs_d', {}, { tokenizer: false }],
    ['traffic', 'mixed', {}, { delayMs: 60 }],
    ['shared-prefix', 'prefix', {}, {}],
    ['shared-prefix', 'mixed', {}, {}],
  ])('%s by mode %s %j %j', async (fault, mode, options, fixture) => {
    const report = await run([mode], { ...fixture, faults: [fault] }, options);
    expect(exitCode(report)).toBe(1);
    expect(Math.max(...(report.modes[0]?.checks ?? []).map((check) => check.unique))).toBe(2);
    expect(textOf(report)).toContain('first difference: ');
    expect(textOf(report)).toContain('NOT deterministic');
  });

  test('the last bit of a logprob only where logprobs are compared', async () => {
    expect(exitCode(await run(['single'], { faults: ['last-bit'] }))).toBe(0);
  });
});

describe('a difference is shown with', () => {
  test('its position, both tokens and their origins', async () => {
    const report = await run(['single'], { faults: ['batch-size'] }, { returnLogprob: true });
    const [difference] = report.modes[0]?.checks[0]?.differences ?? [];
    expect(difference).toMatchObject({ kind: 'token', position: 4, part: 'output', scoredAfterwards: false });
    const [a, b] = difference?.sides ?? [];
    expect(a?.origin).toEqual({ trial: 1, batchSize: 1, index: 0 });
    expect(b?.origin).toEqual({ trial: 6, batchSize: 6, index: 0 });
    expect(b?.tokenId).toBe((a?.tokenId ?? 0) ^ 1);
    expect(a?.tokenText).toBe(String.fromCharCode(a?.tokenId ?? 0));
    expect(a?.logprob).not.toBe(b?.logprob);
  });

  test('logprobs that are scored afterwards where the answers have none', async () => {
    const withLogprobs = await run(['single'], { faults: ['batch-size'] }, { returnLogprob: true });
    await server?.close();
    const without = await run(['single'], { faults: ['batch-size'] });
    const logprobs = (report: TestReport): unknown =>
      report.modes[0]?.checks[0]?.differences[0]?.sides.map((side) => side.logprob);
    expect(logprobs(without)).toEqual(logprobs(withLogprobs));
    expect(textOf(without)).toContain('scored afterwards');
  });

  test('both logprobs to the last digit', async () => {
    const report = await run(['radix_cache'], { faults: ['warm-cache'] });
    const [difference] = report.modes[0]?.checks[0]?.differences ?? [];
    const [a, b] = difference?.sides ?? [];
    expect(difference?.kind).toBe('logprob');
    expect(a?.tokenId).toBe(b?.tokenId);
    expect(Math.abs((a?.logprob as number) - (b?.logprob as number))).toBeLessThan(1e-5);
    expect(textOf(report)).toContain(`logprob ${a?.logprob}`);
    expect(textOf(report)).toContain(`logprob ${b?.logprob}`);
    expect(textOf(report)).toMatch(/cached \(\d+ tokens\)/);
  });
});

describe('a server that cannot be tested gives 2', () => {
  test.each<[Fault, ModeName, RegExp]>([
    ['flush-does-nothing', 'radix_cache', /flush_cache left \d+ tokens/],
    ['no-cache', 'radix_cache', /is it disabled/],
    ['answer-missing', 'radix_cache', /1 prompts got 0 answers/],
    ['no-logprobs', 'p_vs_d', /needs input_token_logprobs/],
  ])('%s in mode %s', async (fault, mode, message) => {
    // The request that finds out whether text is taken would fail first.
    const report = await run([mode], { faults: [fault], tokenizer: false });
    expect(report.modes[0]?.error).toMatch(message);
    expect(exitCode(report)).toBe(2);
  });

  test('a missing logprob where they were asked for', async () => {
    const report = await run(['single'], { faults: ['no-logprobs'] }, { returnLogprob: true });
    expect(report.modes[0]?.error).toMatch(/no output_token_logprobs/);
    expect(exitCode(report)).toBe(2);
  });

  test('a stream that breaks off', async () => {
    const report = await run(['single'], { faults: ['stream-breaks'] }, { stream: true });
    expect(report.modes[0]?.error).toMatch(/ended without \[DONE\]/);
    expect(exitCode(report)).toBe(2);
  });

  test.each<[Fault, RegExp]>([
    ['abort', /aborted request: out of memory/],
    ['html', /not JSON: <html>welcome<\/html>/],
    ['status-500', /status 500: the engine failed/],
    ['answer-missing', /1 prompts got 0 answers/],
  ])('%s at once', async (fault, message) => {
    await expect(run(['single'], { faults: [fault] })).rejects.toThrow(message);
  });

  test('nobody there', async () => {
    const gone = await startFixtureServer();
    await gone.close();
    await expect(runTest(gone.url, ['single'], OPTIONS, NO_PROGRESS)).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });

  test('one trial of one sample compares nothing', async () => {
    const report = await run(['single'], {}, { nTrials: 1 });
    expect(exitCode(report)).toBe(2);
    expect(textOf(report)).toContain('compares nothing');
  });

  test('a mode that fails does not hide a difference of another', async () => {
    const report = await run(['radix_cache', 'single'], { faults: ['batch-size', 'no-cache'] });
    expect(report.modes.map((mode) => mode.error === null)).toEqual([false, true]);
    expect(exitCode(report)).toBe(1);
  });
});

describe('a short context', () => {
  test('shortens the prefixes and says so', async () => {
    const report = await run(['prefix', 'p_vs_d', 'mixed', 'radix_cache'], { contextLength: 700 });
    expect(exitCode(report)).toBe(0);
    expect(textOf(report)).toContain('a prefix of 2048 characters does not fit into the context of 700 tokens');
    expect(textOf(report)).toMatch(/^Prompt 2 with prefix length \d{3}: total samples: \d+, Unique samples: 1$/m);
  });

  test('that leaves no room is refused', async () => {
    await expect(run(['single'], { contextLength: 20 }, { maxNewTokens: 16 })).rejects.toThrow(
      /--max-new-tokens 16 leaves no room .* 20 tokens/,
    );
  });
});

test('what is sent is what the flags say', async () => {
  await run(
    ['single'],
    {},
    { temperature: 0.5, topP: 0.9, samplingSeed: 7, nTrials: 2, nStart: 3, frequencyPenalty: 0.1 },
  );
  expect(server?.requests.slice(1).map((request) => request.text?.length)).toEqual([3, 4]);
  expect(server?.requests[1]?.sampling_params).toEqual({
    temperature: 0.5,
    top_p: 0.9,
    sampling_seed: 7,
    max_new_tokens: 8,
    frequency_penalty: 0.1,
    presence_penalty: 0,
  });
  expect(server?.requests[1]).not.toHaveProperty('return_logprob');
});

test('two runs send the same prompts', async () => {
  const sent = async (): Promise<unknown> => {
    await run(['prefix', 'radix_cache', 'p_vs_d'], {});
    const requests = server?.requests;
    await server?.close();
    return requests;
  };
  expect(await sent()).toEqual(await sent());
});
