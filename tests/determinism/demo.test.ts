import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startOwnServer, type OwnServer } from '../../lib/cli/own-server.js';
import { DEMO_MODEL_PATH, PACKAGE_ROOT } from '../../lib/cli/package.js';
import { NO_PROGRESS } from '../../lib/verify/progress.js';
import { formatReport, PLAIN } from '../../lib/verify/report.js';
import { runTest } from '../../lib/verify/run.js';
import { exitCode, MODE_NAMES, type ModeName, type TestOptions, type TestReport } from '../../lib/verify/types.js';

const LIMIT_MS = 10 * 60_000;

const OPTIONS: TestOptions = {
  nTrials: 50,
  nStart: 1,
  temperature: 0,
  samplingSeed: 42,
  // Fewer than the command's default: the whole suite should take minutes on two cores.
  maxNewTokens: 24,
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

let server: OwnServer;

/** Runs all modes, or some, and expects every line to say `Unique samples: 1`. */
async function expectDeterministic(
  options: Partial<TestOptions>,
  modes: readonly ModeName[] = MODE_NAMES,
): Promise<TestReport> {
  const report = await runTest(server.url, [...modes], { ...OPTIONS, ...options }, NO_PROGRESS);
  const text = formatReport(report, PLAIN).join('\n');
  expect(text).not.toMatch(/Unique samples: (?!1$)|could not test|note:/m);
  expect(text.match(/Unique samples: 1$/gm)?.length).toBeGreaterThanOrEqual(modes.length);
  expect(exitCode(report)).toBe(0);
  return report;
}

describe('the demo model', () => {
  beforeAll(async () => {
    const launchArgs = ['--model-path', DEMO_MODEL_PATH, '--enable-deterministic-inference'];
    server = await startOwnServer(launchArgs, new AbortController().signal);
  }, LIMIT_MS);
  afterAll(() => server.stop());

  test.each(MODE_NAMES)(
    'is deterministic in 50 trials of mode %s',
    async (mode) => {
      const report = await expectDeterministic({}, [mode]);
      const samples = report.modes[0]?.checks.reduce((sum, check) => sum + check.total, 0);
      expect(samples).toBe({ single: 1275, prefix: 1275, radix_cache: 100, p_vs_d: 2550, mixed: 150 }[mode]);
    },
    LIMIT_MS,
  );

  test(
    'is deterministic when sampling, logprobs included',
    async () => {
      const report = await expectDeterministic({ temperature: 0.8, nTrials: 8, returnLogprob: true });
      expect(report.modes.every((mode) => mode.checks.every((check) => check.tokens > check.total / 2))).toBe(true);
    },
    LIMIT_MS,
  );

  test(
    'is deterministic with filters, penalties and streams',
    async () => {
      const filters = {
        temperature: 1.2,
        topP: 0.9,
        topK: 50,
        minP: 0.02,
        frequencyPenalty: 0.3,
        presencePenalty: 0.2,
      };
      await expectDeterministic({ ...filters, nTrials: 8, stream: true, returnLogprob: true }, ['single', 'prefix']);
    },
    LIMIT_MS,
  );

  test('answers differently for another seed, so that the seed is heeded at all', async () => {
    const texts = await Promise.all([1, 2].map(async (seed) => (await sampled(seed)).text));
    expect(texts[0]).not.toBe(texts[1]);
    expect((await sampled(1)).text).toBe(texts[0]);
  });
});

describe('a cache too small for its traffic, long prompts in small chunks', () => {
  beforeAll(async () => {
    const pressure = ['--max-total-tokens', '2048', '--max-running-requests', '6', '--chunked-prefill-size', '48'];
    const launchArgs = ['--model-path', DEMO_MODEL_PATH, '--enable-deterministic-inference', ...pressure];
    server = await startOwnServer(launchArgs, new AbortController().signal);
  }, LIMIT_MS);
  afterAll(() => server.stop());

  test(
    'changes nothing',
    async () => {
      await expectDeterministic({ nTrials: 6, returnLogprob: true });
    },
    LIMIT_MS,
  );
});

describe.each(['qwen3-tiny', 'llama31-tiny', 'qwen3moe-tiny'])('%s, without a tokenizer', (name) => {
  beforeAll(async () => {
    const folder = join(PACKAGE_ROOT, 'tests', 'fixtures', name);
    const launchArgs = ['--model-path', folder, '--skip-tokenizer-init', '--enable-deterministic-inference'];
    server = await startOwnServer(launchArgs, new AbortController().signal);
  }, LIMIT_MS);
  afterAll(() => server.stop());

  test(
    'is deterministic with token ids',
    async () => {
      const report = await runTest(
        server.url,
        [...MODE_NAMES],
        { ...OPTIONS, nTrials: 8, returnLogprob: true },
        NO_PROGRESS,
      );
      expect(report.prompts).toBe('ids');
      expect(formatReport(report, PLAIN).join('\n')).not.toMatch(/Unique samples: (?!1$)/m);
      expect(exitCode(report)).toBe(0);
    },
    LIMIT_MS,
  );
});

async function sampled(seed: number): Promise<{ text: string }> {
  const body = {
    text: 'Once upon a time',
    sampling_params: { temperature: 1, max_new_tokens: 24, sampling_seed: seed },
  };
  const response = await fetch(`${server.url}/generate`, {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
  });
  return (await response.json()) as { text: string };
}
