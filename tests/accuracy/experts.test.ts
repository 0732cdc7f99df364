/**
 * Which experts a mixture chooses, seen from outside: an expert of the last layer takes part in a position's logits
 * exactly if they change with its weights. A model cut to its first layers makes any layer the last.
 */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';

import type { AddonEngine } from '../../lib/engine/engine.js';
import { makeFolder, safetensors, tinyConfig, tinyTensors } from '../unit/engine/checkpoint.js';
import { FIXTURES, load, MODEL_FOLDERS, pagesFor, readJson } from './engine-runs.js';

interface Sequence {
  input_ids: number[];
  /** By layer and position; ids ascending. */
  router: { experts_float32_last3: number[][][] };
}

const SOURCE = MODEL_FOLDERS['qwen3moe-tiny']!;
const EXPERTS = 16;
const POSITIONS = 3;
const { sequences } = readJson<{ sequences: Sequence[] }>(join(FIXTURES, 'qwen3moe-tiny', 'reference.json'));

/** Logits of the last positions of each sequence. @param without an expert of the last layer whose output is 0 */
function lastLogits(layers: number, without?: number): Float32Array[][] {
  const tensors = tinyTensors(SOURCE);
  if (without !== undefined) {
    const down = tensors[`model.layers.${layers - 1}.mlp.experts.${without}.down_proj.weight`]!;
    down.data = Buffer.alloc(down.data.length);
  }
  const config = { ...tinyConfig(SOURCE), num_hidden_layers: layers };
  const folder = makeFolder({ 'config.json': config, 'model.safetensors': safetensors(tensors) });
  const engine = load(folder) as AddonEngine;
  const { pageSize, vocabSize } = engine.info;
  const logits = sequences.map(({ input_ids: tokens }) => {
    const score = { firstRow: tokens.length - POSITIONS, targets: [0, 0, 0], top: 0, tokenIds: [] };
    const pages = pagesFor(tokens.length, pageSize);
    const rows = engine.logits([{ tokens, start: 0, pages, logprobTemperature: 1, score, sample: null }]);
    return Array.from({ length: POSITIONS }, (_, i) => rows.subarray(i * vocabSize, (i + 1) * vocabSize));
  });
  engine.close();
  return logits;
}

test.each([0, 1])('the experts chosen in layer %d at the last positions are those of float32', (layer) => {
  const whole = lastLogits(layer + 1);
  const chosen: number[][][] = sequences.map(() => Array.from({ length: POSITIONS }, () => []));
  for (let expert = 0; expert < EXPERTS; expert++) {
    lastLogits(layer + 1, expert).forEach((rows, s) =>
      rows.forEach((row, i) => {
        if (row.some((value, id) => value !== whole[s]![i]![id])) chosen[s]![i]!.push(expert);
      }),
    );
  }
  expect(chosen).toStrictEqual(sequences.map(({ router }) => router.experts_float32_last3[layer]));
});
