import { setTimeout as sleep } from 'node:timers/promises';
import { generate, type Answer, type Prompt } from '../client/generate.js';
import { HttpStatusError, type HttpClient } from '../client/http.js';
import type { ServerFacts } from '../client/server-facts.js';
import type { Check } from './answer-set.js';
import type { PromptSource } from './prompt-source.js';
import type { ModeName, TestOptions } from './types.js';

/** What a mode has to work with. */
export interface TestContext {
  client: HttpClient;
  server: ServerFacts;
  options: TestOptions;
  prompts: PromptSource;
  /** Says in the result what was adapted to the server. */
  note(text: string): void;
  /** Called after every trial. */
  tick(): void;
}

/** A test mode: runs `options.nTrials` trials, ticks after each, and returns the lines of its result. */
export interface Mode {
  name: ModeName;
  /** One line for --help. */
  summary: string;
  run(context: TestContext): Promise<Check[]>;
}

/** The trials of a mode: number 1 … nTrials with batch sizes from nStart up. */
export function trials({ nStart, nTrials }: TestOptions): { trial: number; size: number }[] {
  return Array.from({ length: nTrials }, (_, i) => ({ trial: i + 1, size: nStart + i }));
}

/** Sampling parameters of the command line. */
export function samplingParams(options: TestOptions, ignoreEos: boolean): Record<string, unknown> {
  return {
    temperature: options.temperature,
    max_new_tokens: options.maxNewTokens,
    frequency_penalty: options.frequencyPenalty,
    presence_penalty: options.presencePenalty,
    sampling_seed: options.samplingSeed,
    ...(options.topP === null ? {} : { top_p: options.topP }),
    ...(options.topK === null ? {} : { top_k: options.topK }),
    ...(options.minP === null ? {} : { min_p: options.minP }),
    ...(ignoreEos ? { ignore_eos: true } : {}),
  };
}

/** Sends one batch with the command line's parameters. Random ids mean nothing, so the model must not end early. */
export function ask({ client, options, prompts }: TestContext, batch: Prompt[]): Promise<Answer[]> {
  return generate(client, {
    prompts: batch,
    sampling: samplingParams(options, prompts.kind === 'ids'),
    returnLogprob: options.returnLogprob,
    stream: options.stream,
  });
}

const FLUSH_WAIT_SECONDS = 30;
const FLUSH_RETRY_MS = 100;

/** Empties the prefix cache. A request whose answer has just arrived may still count as running: then it waits. */
export async function flushCache(client: HttpClient): Promise<void> {
  const deadline = Date.now() + FLUSH_WAIT_SECONDS * 1000;
  for (;;) {
    try {
      await client.text('POST', `/flush_cache?timeout=${FLUSH_WAIT_SECONDS}`);
      return;
    } catch (error) {
      const busy = error instanceof HttpStatusError && error.httpStatus === 400;
      if (!busy || Date.now() > deadline) throw error;
      await sleep(FLUSH_RETRY_MS);
    }
  }
}
