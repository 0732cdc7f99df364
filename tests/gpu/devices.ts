/**
 * Whole models on a GPU and on the CPU, compared with ==: logits in f32, log-probabilities and tokens. A program, since it
 * needs a Hopper GPU: node dist/tests/gpu/devices.js [part of a name …]. Ends with a line "N passed, N failed".
 */
import { join } from 'node:path';

import type { AddonEngine, EngineOptions } from '../../lib/engine/engine.js';
import { ATTENTION_BACKENDS } from '../../lib/protocol/server-args.js';
import type { ForwardSlice, SampleSpec, SliceResult } from '../../lib/engine/types.js';
import {
  FIXTURES,
  generate,
  GREEDY,
  load,
  MODEL_FOLDERS,
  pagesFor,
  RAGGED_EXPERTS,
  readJson,
  ROOT,
} from '../accuracy/engine-runs.js';
import { computeDigests, type Digests } from '../golden/runs.js';

interface Subject {
  folder: string;
  loadFormat: 'auto' | 'dummy';
  jsonModelOverrideArgs?: string;
  /** Tokens of a prompt. */
  length: number;
  chunks: number[];
  /** Sizes of batches of decodes. */
  batches: number[];
}

const ALL_CHUNKS = [1, 7, 64, 128, 129, 500, 512, 1000, 8192];
const ALL_BATCHES = [1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 64, 65, 100, 128, 129, 200, 255, 256];
const BATCH_CONTEXT = 96;

/** Two layers of a Qwen3 of other widths than those of 8B: hidden, intermediate, heads, and whether embeddings are tied. */
function twoLayers([hidden, intermediate, heads, tied]: [number, number, number, boolean]): Subject {
  return {
    folder: join(FIXTURES, 'qwen3-8b-shape'),
    loadFormat: 'dummy',
    jsonModelOverrideArgs: JSON.stringify({
      num_hidden_layers: 2,
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_attention_heads: heads,
      tie_word_embeddings: tied,
    }),
    length: 130,
    chunks: [1, 64, 130],
    batches: [1, 5, 32],
  };
}

const SUBJECTS: Readonly<Record<string, Subject>> = {
  demo: { folder: MODEL_FOLDERS.demo!, loadFormat: 'auto', length: 1300, chunks: ALL_CHUNKS, batches: ALL_BATCHES },
  'qwen3-tiny': {
    folder: MODEL_FOLDERS['qwen3-tiny']!,
    loadFormat: 'auto',
    length: 400,
    chunks: [1, 33, 128, 400],
    batches: ALL_BATCHES,
  },
  'llama31-tiny': {
    folder: MODEL_FOLDERS['llama31-tiny']!,
    loadFormat: 'auto',
    length: 400,
    chunks: [1, 33, 128, 400],
    batches: ALL_BATCHES,
  },
  'qwen3moe-tiny': {
    folder: MODEL_FOLDERS['qwen3moe-tiny']!,
    loadFormat: 'auto',
    length: 400,
    chunks: [1, 33, 128, 400],
    batches: ALL_BATCHES,
  },
  'ragged experts': {
    folder: MODEL_FOLDERS['qwen3moe-tiny']!,
    loadFormat: 'dummy',
    jsonModelOverrideArgs: RAGGED_EXPERTS,
    length: 400,
    chunks: [1, 33, 400],
    batches: [1, 2, 9, 64, 129, 256],
  },
  // Three of 48 layers: the CPU's share of the comparison takes its time.
  'qwen3-30b-a3b-shape': {
    folder: join(FIXTURES, 'qwen3-30b-a3b-shape'),
    loadFormat: 'dummy',
    jsonModelOverrideArgs: '{"num_hidden_layers": 3}',
    length: 200,
    chunks: [1, 64, 200],
    batches: [1, 5, 32],
  },
  'qwen3-0.6b-shape': {
    folder: join(FIXTURES, 'qwen3-0.6b-shape'),
    loadFormat: 'dummy',
    length: 200,
    chunks: [1, 64, 200],
    batches: [1, 5, 32],
  },
  'qwen3-8b-shape': {
    folder: join(FIXTURES, 'qwen3-8b-shape'),
    loadFormat: 'dummy',
    length: 64,
    chunks: [1, 17, 64],
    batches: [1, 4],
  },
  'llama-3.1-8b-shape': {
    folder: join(FIXTURES, 'llama-3.1-8b-shape'),
    loadFormat: 'dummy',
    length: 64,
    chunks: [1, 64],
    batches: [1, 4],
  },
  'layers of qwen3-1.7b': twoLayers([2048, 6144, 16, true]),
  'layers of qwen3-4b': twoLayers([2560, 9728, 32, true]),
  'layers of qwen3-14b': twoLayers([5120, 17408, 40, false]),
  'layers of qwen3-32b': twoLayers([5120, 25600, 64, false]),
};

const SAMPLES: SampleSpec[] = [
  GREEDY,
  { ...GREEDY, greedy: false, temperature: 0.8 },
  { ...GREEDY, greedy: false, temperature: 1.2, topK: 40, topP: 0.9, minP: 0.01 },
  {
    ...GREEDY,
    greedy: false,
    temperature: 0.7,
    biasIds: [3, 10],
    biasValues: [2.5, -Infinity],
    penalties: { frequency: 0.5, presence: 0.25, repetition: 1.2, ids: [5, 11], counts: [1, 3] },
  },
];

/** fa3 and triton take heads of 64 and 128. */
const HEADS_OF_48 = ['dummy-tiny'];

/** Backend, and whether CUDA graphs are off. */
const RUNS = ATTENTION_BACKENDS.flatMap((backend) => [[backend, false] as const, [backend, true] as const]);

const filters = process.argv.slice(2);
let passed = 0;
let failed = 0;

/** Runs a comparison, which returns what differs, or null. */
function check(name: string, compare: () => string | null): void {
  if (filters.length > 0 && !filters.some((filter) => name.includes(filter))) return;
  const start = performance.now();
  let difference: string | null;
  try {
    difference = compare();
  } catch (error) {
    difference = (error as Error).stack ?? String(error);
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${name} ... ${difference === null ? 'ok' : 'FAILED'} (${seconds} s)`);
  if (difference === null) {
    passed++;
  } else {
    failed++;
    console.log(`  ${difference}`);
  }
}

/** The first element of two arrays of f32 whose bits differ. */
function firstDifference(actual: Float32Array, expected: Float32Array, what: string): string | null {
  if (actual.length !== expected.length) return `${what}: ${actual.length} values instead of ${expected.length}`;
  const a = new Uint32Array(actual.buffer, actual.byteOffset, actual.length);
  const b = new Uint32Array(expected.buffer, expected.byteOffset, expected.length);
  const index = a.findIndex((bits, i) => bits !== b[i]);
  if (index < 0) return null;
  const count = a.reduce((sum, bits, i) => sum + (bits === b[i] ? 0 : 1), 0);
  return `${what}: ${count} of ${a.length} differ, first element ${index}: ${actual[index]} instead of ${expected[index]}`;
}

function engineOn(device: 'cpu' | 'cuda', subject: Subject, options: Partial<EngineOptions> = {}): AddonEngine {
  return load(subject.folder, {
    loadFormat: subject.loadFormat,
    ...(subject.jsonModelOverrideArgs !== undefined && { jsonModelOverrideArgs: subject.jsonModelOverrideArgs }),
    device,
    threads: null,
    pageSize: 64,
    maxRunningRequests: 256,
    maxTotalTokens: 256 * 128 + 2048,
    chunkedPrefillSize: 8192,
    // Others may use the GPU, too: what is free is enough.
    memFractionStatic: 1,
    ...options,
  }) as AddonEngine;
}

function promptOf(vocabSize: number, length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => (seed * 7919 + i * i * 31 + i * 17 + 5) % vocabSize);
}

/** Logits of every token of a prompt but the last, whose keys and values are computed in chunks. */
function logitsInChunks(engine: AddonEngine, tokens: number[], chunk: number): Float32Array {
  const pages = pagesFor(tokens.length, engine.info.pageSize);
  const parts: Float32Array[] = [];
  for (let start = 0; start < tokens.length; start += chunk) {
    const end = Math.min(start + chunk, tokens.length);
    const targets = tokens.slice(start + 1, end + 1);
    const score = { firstRow: 0, targets, top: 0, tokenIds: [] };
    const slice = { tokens: tokens.slice(start, end), start, pages, logprobTemperature: 1, score, sample: null };
    parts.push(engine.logits([slice]));
  }
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Prefills sequences of ragged lengths and decodes each of them `steps` times, in batches of all. */
function decodeTogether(engine: AddonEngine, size: number, steps: number): Float32Array[] {
  const { pageSize, vocabSize } = engine.info;
  const pagesEach = Math.ceil((BATCH_CONTEXT + steps) / pageSize);
  const sequences = Array.from({ length: size }, (_, i) => ({
    tokens: promptOf(vocabSize, 5 + ((i * 37) % (BATCH_CONTEXT - 5)), i),
    pages: Int32Array.from({ length: pagesEach }, (__, page) => i * pagesEach + page),
    sample: SAMPLES[i % SAMPLES.length]!,
  }));
  const values: number[][] = sequences.map(() => []);
  const slices = (step: number): ForwardSlice[] =>
    sequences.map(({ tokens, pages, sample }, i) => ({
      // The token that was drawn in the step before is referred to, not sent.
      tokens: step === 0 ? tokens : [-1 - i],
      start: step === 0 ? 0 : tokens.length + step - 1,
      pages,
      logprobTemperature: sample.greedy ? 1 : sample.temperature,
      score: null,
      sample: { ...sample, seedLow: i, position: tokens.length + step - 1, top: 4, tokenIds: [1, 2] },
    }));
  const note = (results: SliceResult[]): void =>
    results.forEach(({ token, logprob, topLogprobs, topIds, tokenIdLogprobs }, i) => {
      values[i]!.push(token, logprob, ...topLogprobs, ...topIds, ...tokenIdLogprobs);
    });
  engine.submit(slices(0));
  for (let step = 1; step <= steps; step++) {
    engine.submit(slices(step));
    note(engine.collect());
  }
  note(engine.collect());
  return values.map((own) => Float32Array.from(own));
}

function compareDecodes(engine: AddonEngine, expected: Float32Array[], size: number, steps: number): string | null {
  const actual = decodeTogether(engine, size, steps);
  for (let i = 0; i < size; i++) {
    const difference = firstDifference(actual[i]!, expected[i]!, `sequence ${i}`);
    if (difference !== null) return difference;
  }
  return null;
}

function compareModel(name: string, subject: Subject): void {
  const { length, chunks, batches } = subject;
  const steps = 6;
  const cpu = engineOn('cpu', subject);
  const tokens = promptOf(cpu.info.vocabSize, length, 1);
  const expectedLogits = logitsInChunks(cpu, tokens, length);
  const expectedDecodes = decodeTogether(cpu, Math.max(...batches), steps);
  const expectedRun = generate(cpu, tokens, 8, GREEDY);
  cpu.close();
  for (const [attentionBackend, disableCudaGraph] of RUNS) {
    const gpu = engineOn('cuda', subject, { attentionBackend, disableCudaGraph });
    const graphs = `${attentionBackend} ${disableCudaGraph ? 'without graphs' : 'with graphs'}`;
    for (const chunk of chunks) {
      check(`${name}: logits in chunks of ${chunk}, ${graphs}`, () =>
        firstDifference(logitsInChunks(gpu, tokens, chunk), expectedLogits, 'logits'),
      );
    }
    for (const size of batches) {
      check(`${name}: ${size} decodes together, ${graphs}`, () => compareDecodes(gpu, expectedDecodes, size, steps));
    }
    check(`${name}: 8 tokens after ${length}, ${graphs}`, () => {
      const run = generate(gpu, tokens, 8, GREEDY);
      const got = Float32Array.from([...run.tokens, ...run.logprobs]);
      return firstDifference(got, Float32Array.from([...expectedRun.tokens, ...expectedRun.logprobs]), 'run');
    });
    gpu.close();
  }
}

for (const attentionBackend of ATTENTION_BACKENDS) {
  check(`golden digests, ${attentionBackend}`, () => {
    const expected = readJson<Digests>(join(ROOT, 'tests', 'golden', 'golden.json'));
    const leftOut = attentionBackend === 'flashinfer' ? [] : HEADS_OF_48;
    const actual = computeDigests({ device: 'cuda', attentionBackend }, leftOut);
    const models = Object.keys(expected).filter((model) => !leftOut.includes(model));
    const differing = models.flatMap((model) =>
      Object.keys(expected[model]!)
        .filter((run) => expected[model]![run] !== actual[model]?.[run])
        .map((run) => `${model}: ${run}`),
    );
    return differing.length === 0 ? null : differing.join(', ');
  });
}
for (const [name, subject] of Object.entries(SUBJECTS)) {
  if (filters.length > 0 && !filters.some((filter) => name.includes(filter) || filter.includes(name))) continue;
  compareModel(name, subject);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
