import { HttpClient } from '../client/http.js';
import { readServerFacts } from '../client/server-facts.js';
import { DetinferError } from '../protocol/errors.js';
import type { TestContext } from './context.js';
import { differencesOf } from './diagnose.js';
import { MODES } from './modes/index.js';
import type { Progress } from './progress.js';
import { choosePrompts } from './prompt-source.js';
import {
  verdict,
  type CheckResult,
  type ModeName,
  type ModeResult,
  type TestOptions,
  type TestReport,
} from './types.js';

/**
 * Runs test modes against a server. A mode that can't be tested is reported with its error and the others go on.
 * @throws DetinferError when the server can't be tested at all: UNREACHABLE, BAD_RESPONSE, or INVALID_FLAG where a
 *   flag doesn't fit it.
 */
export async function runTest(
  url: string,
  modes: ModeName[],
  options: TestOptions,
  progress: Progress,
  apiKey: string | null = null,
): Promise<TestReport> {
  const client = new HttpClient(url, apiKey);
  try {
    const server = await readServerFacts(client);
    const { prompts, notes } = await choosePrompts(client, server, options);
    const results: ModeResult[] = [];
    for (const mode of modes) {
      progress.start(mode, options.nTrials);
      results.push(await runMode(mode, { client, server, options, prompts, tick: () => progress.tick() }));
      progress.stop();
    }
    return { url: client.baseUrl, server, prompts: prompts.kind, options, notes, modes: results };
  } finally {
    progress.stop();
    await client.close();
  }
}

async function runMode(name: ModeName, base: Omit<TestContext, 'note'>): Promise<ModeResult> {
  const notes: string[] = [];
  const context: TestContext = { ...base, note: (text) => notes.push(text) };
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  try {
    const checks = await MODES[name].run(context);
    const results: CheckResult[] = [];
    for (const check of checks) results.push(check.result(await differencesOf(context, check)));
    if (results.some((check) => verdict(check) === 'nothing compared')) {
      notes.push('one sample alone compares nothing: raise --n-trials');
    }
    return { mode: name, error: null, checks: results, notes, seconds: seconds() };
  } catch (error) {
    if (!(error instanceof DetinferError)) throw error;
    return { mode: name, error: error.message, checks: [], notes, seconds: seconds() };
  }
}
