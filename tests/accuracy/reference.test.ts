/** The engine against recorded runs of the models' reference implementation (tests/fixtures/MODELS.md). */
import { copyFileSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';

import type { Engine } from '../../lib/engine/types.js';
import { FIXTURES, forwardOne, generate, GREEDY, load, MODEL_FOLDERS, readJson, scorePrompt } from './engine-runs.js';

interface Position {
  position: number;
  top_ids: number[];
  logsumexp: number;
  /** At fixed_ids. */
  logprobs: number[];
}

type Float32Position = Position & { top_logits: number[] };
type Bfloat16Position = Position & { logits_at_float32_top_ids: number[] };

interface Sequence {
  name: string;
  input_ids: number[];
  float32: Float32Position[];
  bfloat16_cpu: Bfloat16Position[];
  bfloat16_cuda: Bfloat16Position[];
  greedy_float32?: { ids: number[]; gap_to_second: number[] };
}

interface Reference {
  fixed_ids: number[];
  sequences: Sequence[];
}

/** How much farther from float32 the engine may be than the reference implementation's own bfloat16 run. */
const ALLOWED = 1.5;
/** Below this gap between the best two logits bfloat16 may choose otherwise. */
const CLEAR_GAP = 0.5;

const logSoftmax = (logits: number[], logsumexp: number): number[] => logits.map((logit) => logit - logsumexp);
const rms = (errors: number[]): number => Math.sqrt(errors.reduce((sum, e) => sum + e * e, 0) / errors.length);

/** Log-probabilities at float32's top ids and at the fixed ids, over the recorded positions. */
function float32Values(sequence: Sequence): number[] {
  return sequence.float32.flatMap((p) => [...logSoftmax(p.top_logits, p.logsumexp), ...p.logprobs]);
}

function bfloat16Values(positions: Bfloat16Position[]): number[] {
  return positions.flatMap((p) => [...logSoftmax(p.logits_at_float32_top_ids, p.logsumexp), ...p.logprobs]);
}

function engineValues(engine: Engine, reference: Reference, sequence: Sequence): number[] {
  return sequence.float32.flatMap(({ position, top_ids }) => {
    const score = { firstRow: position, targets: [0], top: 0, tokenIds: [...top_ids, ...reference.fixed_ids] };
    return [...forwardOne(engine, { tokens: sequence.input_ids, score }).score!.tokenIdLogprobs];
  });
}

const difference = (a: number[], b: number[]): number[] => a.map((value, i) => value - b[i]!);

describe.each(Object.entries(MODEL_FOLDERS))('%s', (name, folder) => {
  const reference = readJson<Reference>(join(FIXTURES, name, 'reference.json'));
  const engine = load(folder);
  afterAll(() => engine.close());

  const errors = reference.sequences.map((sequence) => {
    const truth = float32Values(sequence);
    return {
      name: sequence.name,
      engine: difference(engineValues(engine, reference, sequence), truth),
      cpu: difference(bfloat16Values(sequence.bfloat16_cpu), truth),
      cuda: difference(bfloat16Values(sequence.bfloat16_cuda), truth),
    };
  });

  test.each(errors)('$name is as close to float32 as the reference in bfloat16', (sequence) => {
    expect(sequence.engine.length).toBe(75);
    expect(rms(sequence.engine)).toBeLessThan(ALLOWED * Math.min(rms(sequence.cpu), rms(sequence.cuda)));
  });

  test('all sequences together are as close to float32 as the reference in bfloat16', () => {
    const together = (key: 'engine' | 'cpu' | 'cuda'): number => rms(errors.flatMap((sequence) => sequence[key]));
    expect(together('engine')).toBeLessThan(ALLOWED * Math.min(together('cpu'), together('cuda')));
  });
});

describe('demo', () => {
  const reference = readJson<Reference>(join(FIXTURES, 'demo', 'reference.json'));
  const engine = load(MODEL_FOLDERS.demo!);
  afterAll(() => engine.close());
  const sequences = reference.sequences.filter((sequence) => sequence.greedy_float32 !== undefined);

  test('greedy sequences are recorded', () => expect(sequences.length).toBe(3));

  test.each(sequences)('$name: the best token is that of float32 where the choice is clear', (sequence) => {
    const { ids, gap_to_second: gaps } = sequence.greedy_float32!;
    const tokens = [...sequence.input_ids, ...ids];
    const score = { firstRow: sequence.input_ids.length - 1, targets: ids, top: 1, tokenIds: [] };
    const { topIds } = forwardOne(engine, { tokens, score }).score!;
    const clear = [...ids.keys()].filter((i) => gaps[i]! >= CLEAR_GAP);
    expect(clear.length).toBeGreaterThan(ids.length / 2);
    expect(clear.map((i) => topIds[i])).toEqual(clear.map((i) => ids[i]));
  });

  test('generates the text of float32, token by token', () => {
    const { input_ids: prompt, greedy_float32: greedy } = sequences.find(({ name }) => name === 'feynman')!;
    expect(generate(engine, prompt, greedy!.ids.length, GREEDY).tokens).toEqual(greedy!.ids);
  });
});

describe.each(['qwen3-tiny', 'llama31-tiny', 'qwen3moe-tiny'])("%s with transformers 5's config.json", (name) => {
  const source = join(FIXTURES, name);
  const folder = mkdtempSync(join(tmpdir(), 'detinfer-config-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  copyFileSync(join(source, 'config.v5.json'), join(folder, 'config.json'));
  symlinkSync(join(source, 'model.safetensors'), join(folder, 'model.safetensors'));

  test('gives the same bits as the one in the style of the Hub', () => {
    const [hub, v5] = [load(source), load(folder)];
    const { sequences } = readJson<Reference>(join(source, 'reference.json'));
    for (const { input_ids: tokens } of sequences) expect(scorePrompt(v5, tokens)).toEqual(scorePrompt(hub, tokens));
    hub.close();
    v5.close();
  });
});
