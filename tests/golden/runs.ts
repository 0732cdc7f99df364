/** Whole runs whose bits are recorded in golden.json. Printed as JSON when this file is the program. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { EngineOptions } from '../../lib/engine/engine.js';
import type { Engine, SampleSpec } from '../../lib/engine/types.js';
import {
  FIXTURES,
  forwardOne,
  generate,
  GREEDY,
  load,
  MODEL_FOLDERS,
  RAGGED_EXPERTS,
} from '../accuracy/engine-runs.js';

/** sha256 of each run, by model and run. */
export type Digests = Record<string, Record<string, string>>;

const SAMPLED: SampleSpec = { ...GREEDY, greedy: false, temperature: 0.8, topK: 40, topP: 0.95 };
const ADJUSTED: SampleSpec = {
  ...GREEDY,
  greedy: false,
  temperature: 1.3,
  minP: 0.02,
  seedLow: 7,
  seedHigh: 1,
  biasIds: [3, 10],
  biasValues: [2.5, -Infinity],
  penalties: { frequency: 0.5, presence: 0.25, repetition: 1.2, ids: [5, 11], counts: [1, 3] },
};

const MODELS: Readonly<Record<string, { folder: string; options?: Partial<EngineOptions>; length: number }>> = {
  demo: { folder: MODEL_FOLDERS.demo!, length: 200 },
  'qwen3-tiny': { folder: MODEL_FOLDERS['qwen3-tiny']!, length: 400 },
  'llama31-tiny': { folder: MODEL_FOLDERS['llama31-tiny']!, length: 400 },
  'qwen3moe-tiny': { folder: MODEL_FOLDERS['qwen3moe-tiny']!, length: 400 },
  'ragged experts': {
    folder: MODEL_FOLDERS['qwen3moe-tiny']!,
    options: { loadFormat: 'dummy', jsonModelOverrideArgs: RAGGED_EXPERTS },
    length: 400,
  },
  // Long enough for three splits of attention; its sizes are no multiples of what the fast paths like.
  'dummy-tiny': { folder: join(FIXTURES, 'dummy-tiny'), options: { loadFormat: 'dummy' }, length: 1100 },
};

function digest(...arrays: (Float32Array | Int32Array | number[])[]): string {
  const hash = createHash('sha256');
  for (const values of arrays) {
    const array = Array.isArray(values) ? Int32Array.from(values) : values;
    hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }
  return hash.digest('hex');
}

function score(engine: Engine, tokens: number[], logprobTemperature: number): string {
  const spec = { firstRow: 0, targets: tokens.slice(1), top: 5, tokenIds: [0, 7] };
  const result = forwardOne(engine, { tokens, logprobTemperature, score: spec }).score!;
  return digest(result.logprobs, result.topLogprobs, result.topIds, result.tokenIdLogprobs);
}

function generated(engine: Engine, prompt: number[], sample: SampleSpec): string {
  const { tokens, logprobs } = generate(engine, prompt, 24, sample);
  return digest(tokens, Float32Array.from(logprobs));
}

/** @param overrides such as the device @param leftOut models that it can't run */
export function computeDigests(overrides: Partial<EngineOptions> = {}, leftOut: string[] = []): Digests {
  const digests: Digests = {};
  for (const [name, { folder, options, length }] of Object.entries(MODELS)) {
    if (leftOut.includes(name)) continue;
    const engine = load(folder, { ...options, ...overrides });
    const tokens = Array.from({ length }, (_, i) => (i * i * 31 + i * 17 + 5) % engine.info.vocabSize);
    digests[name] = {
      scored: score(engine, tokens, 1),
      'scored at temperature 0.8': score(engine, tokens.slice(0, 100), 0.8),
      greedy: generated(engine, tokens.slice(0, 30), GREEDY),
      sampled: generated(engine, tokens.slice(0, 30), SAMPLED),
      'sampled with penalties and biases': generated(engine, tokens.slice(0, 30), ADJUSTED),
    };
    engine.close();
  }
  return digests;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(JSON.stringify(computeDigests(), null, 2));
