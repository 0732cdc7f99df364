/** Engines and runs that the tests of the native engine share. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { loadEngine, type EngineOptions } from '../../lib/engine/engine.js';
import type { Engine, ForwardSlice, SampleSpec, SliceResult } from '../../lib/engine/types.js';

/** Tests run in the project's folder. */
export const ROOT = process.cwd();
export const FIXTURES = join(ROOT, 'tests', 'fixtures');

export const MODEL_FOLDERS: Readonly<Record<string, string>> = {
  demo: join(ROOT, 'models', 'demo'),
  'qwen3-tiny': join(FIXTURES, 'qwen3-tiny'),
  'llama31-tiny': join(FIXTURES, 'llama31-tiny'),
  'qwen3moe-tiny': join(FIXTURES, 'qwen3moe-tiny'),
};

/** Laid over the config.json of qwen3moe-tiny, with dummy weights: sizes that no fast path likes, and a dense layer. */
export const RAGGED_EXPERTS = JSON.stringify({
  num_experts: 24,
  num_experts_per_tok: 3,
  norm_topk_prob: false,
  moe_intermediate_size: 40,
  num_hidden_layers: 3,
  mlp_only_layers: [1],
});

export function defaultOptions(modelPath: string): EngineOptions {
  return {
    modelPath,
    loadFormat: 'auto',
    jsonModelOverrideArgs: '{}',
    contextLength: null,
    maxTotalTokens: 4096,
    memFractionStatic: 0.8,
    device: 'cpu',
    baseGpuId: 0,
    pageSize: 16,
    threads: 2,
    maxRunningRequests: 8,
    chunkedPrefillSize: -1,
    maxPrefillTokens: 16384,
    attentionBackend: 'fa3',
    disableCudaGraph: false,
    cudaGraphMaxBs: null,
  };
}

export function load(modelPath: string, options: Partial<EngineOptions> = {}): Engine {
  return loadEngine({ ...defaultOptions(modelPath), ...options }, () => {});
}

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

export const GREEDY: SampleSpec = {
  greedy: true,
  temperature: 1,
  topK: -1,
  topP: 1,
  minP: 0,
  seedLow: 42,
  seedHigh: 0,
  position: 0,
  biasIds: [],
  biasValues: [],
  penalties: null,
  allowed: null,
  logprob: true,
  top: 0,
  tokenIds: [],
};

/** The pages 0, 1, … that a context of `length` tokens needs, or the given ones. */
export function pagesFor(length: number, pageSize: number): Int32Array {
  return Int32Array.from({ length: Math.ceil(length / pageSize) }, (_, i) => i);
}

/** Runs one step to its end. */
export function forward(engine: Engine, slices: ForwardSlice[]): SliceResult[] {
  engine.submit(slices);
  return engine.collect();
}

export function forwardOne(engine: Engine, slice: Partial<ForwardSlice> & Pick<ForwardSlice, 'tokens'>): SliceResult {
  const start = slice.start ?? 0;
  const pages = pagesFor(start + slice.tokens.length, engine.info.pageSize);
  return forward(engine, [{ start, pages, logprobTemperature: 1, score: null, sample: null, ...slice }])[0]!;
}

/** Generates `count` tokens after a prompt, one step each. */
export function generate(
  engine: Engine,
  prompt: readonly number[],
  count: number,
  sample: SampleSpec,
): { tokens: number[]; logprobs: number[] } {
  const tokens: number[] = [];
  const logprobs: number[] = [];
  let next: readonly number[] = prompt;
  let start = 0;
  for (let i = 0; i < count; i++) {
    const position = start + next.length - 1;
    const logprobTemperature = sample.greedy ? 1 : sample.temperature;
    const result = forwardOne(engine, { tokens: next, start, logprobTemperature, sample: { ...sample, position } });
    start += next.length;
    next = [result.token];
    tokens.push(result.token);
    logprobs.push(result.logprob);
  }
  return { tokens, logprobs };
}

/** Log-probabilities of tokens 1 … n-1 of a sequence, computed as a prompt. */
export function scorePrompt(engine: Engine, tokens: readonly number[], temperature = 1): Float32Array {
  const score = { firstRow: 0, targets: tokens.slice(1), top: 0, tokenIds: [] };
  return forwardOne(engine, { tokens, logprobTemperature: temperature, score }).score!.logprobs;
}
