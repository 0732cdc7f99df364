/** The models of the supported families, with the values of their own config.json. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

import { loadAddon } from '../../../lib/engine/load-addon.js';
import type { JsonObject } from '../../../lib/engine/json.js';
import { FIXTURES, load, MODEL_FOLDERS, readJson, scorePrompt } from '../../accuracy/engine-runs.js';
import { makeFolder } from './checkpoint.js';

const shape = (name: string): JsonObject => readJson(join(FIXTURES, name, 'config.json'));

/** hidden_size, intermediate_size, layers, query heads, key heads, whether the embedding is the head. */
type Dense = [number, number, number, number, number, boolean];

const qwen3 = ([hidden, intermediate, layers, heads, kvHeads, tied]: Dense): JsonObject => ({
  ...shape('qwen3-8b-shape'),
  hidden_size: hidden,
  intermediate_size: intermediate,
  max_window_layers: layers,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: kvHeads,
  tie_word_embeddings: tied,
});

const LLAMA_32_1B: JsonObject = {
  ...shape('llama-3.1-8b-shape'),
  head_dim: 64,
  hidden_size: 2048,
  intermediate_size: 8192,
  num_hidden_layers: 16,
  rope_scaling: { ...(shape('llama-3.1-8b-shape').rope_scaling as JsonObject), factor: 32 },
  tie_word_embeddings: true,
};

const QWEN3_235B: JsonObject = {
  ...shape('qwen3-30b-a3b-shape'),
  hidden_size: 4096,
  intermediate_size: 12288,
  max_window_layers: 94,
  moe_intermediate_size: 1536,
  num_attention_heads: 64,
  num_hidden_layers: 94,
};

/** With the number of parameters that each is published to have. */
const MODELS: [string, JsonObject, number][] = [
  ['Qwen3-0.6B', qwen3([1024, 3072, 28, 16, 8, true]), 596_049_920],
  ['Qwen3-1.7B', qwen3([2048, 6144, 28, 16, 8, true]), 1_720_574_976],
  ['Qwen3-4B', qwen3([2560, 9728, 36, 32, 8, true]), 4_022_468_096],
  ['Qwen3-8B', qwen3([4096, 12288, 36, 32, 8, false]), 8_190_735_360],
  ['Qwen3-14B', qwen3([5120, 17408, 40, 40, 8, false]), 14_768_307_200],
  ['Qwen3-32B', qwen3([5120, 25600, 64, 64, 8, false]), 32_762_123_264],
  ['Qwen3-30B-A3B', shape('qwen3-30b-a3b-shape'), 30_532_122_624],
  ['Qwen3-235B-A22B', QWEN3_235B, 235_093_634_560],
  ['Llama-3.1-8B', shape('llama-3.1-8b-shape'), 8_030_261_248],
  ['Llama-3.2-1B', LLAMA_32_1B, 1_235_814_400],
];

test.each(MODELS)('%s has its published number of parameters', (_, config, parameters) => {
  const { NativeEngine } = loadAddon('cpu');
  const engine = new NativeEngine({ config, threads: 1, weights: null });
  expect(engine.facts().weightBytes).toBe(2 * parameters);
  expect(engine.facts().maxPositions).toBe(config.max_position_embeddings);
  engine.close();
});

test('the dense shape of 8B is the one of the table', () => {
  expect(qwen3([4096, 12288, 36, 32, 8, false])).toEqual(shape('qwen3-8b-shape'));
});

// One layer of its true width; a smaller vocabulary and fewer experts where a layer would take gigabytes.
test.each(MODELS.filter(([, , parameters]) => parameters < 5e9 || parameters === 30_532_122_624))(
  '%s computes with a layer of its width',
  (_, config) => {
    const experts = config.num_experts === undefined ? {} : { num_experts: 24 };
    const cut = { ...config, ...experts, num_hidden_layers: 1, vocab_size: 512, eos_token_id: 2, bos_token_id: 1 };
    const engine = load(makeFolder({ 'config.json': cut }), { loadFormat: 'dummy', contextLength: 64 });
    const logprobs = scorePrompt(engine, [5, 300, 17, 8, 9, 100]);
    expect(logprobs.every((logprob) => logprob < 0 && logprob > -20)).toBe(true);
    expect(new Set(logprobs).size).toBe(5);
    engine.close();
  },
);

describe('layers of a mixture of experts', () => {
  const tiny = readJson<JsonObject>(join(MODEL_FOLDERS['qwen3moe-tiny']!, 'config.json'));
  const HIDDEN = 128;
  const sparse = HIDDEN * 16 + 16 * 3 * HIDDEN * 64;
  const dense = 3 * HIDDEN * 256;

  const bytesOf = (change: JsonObject): number => {
    const config = { ...tiny, num_hidden_layers: 4, ...change };
    const engine = new (loadAddon('cpu').NativeEngine)({ config, threads: 1, weights: null });
    const { weightBytes } = engine.facts();
    engine.close();
    return weightBytes;
  };
  const allSparse = bytesOf({});
  const withDense = (layers: number): number => allSparse - 2 * layers * (sparse - dense);

  test.each<[string, JsonObject, number]>([
    ['every second one', { decoder_sparse_step: 2 }, 2],
    ['every third one', { decoder_sparse_step: 3 }, 3],
    ['all but the named ones', { mlp_only_layers: [0, 3] }, 2],
    ['both rules', { decoder_sparse_step: 2, mlp_only_layers: [0, 1] }, 3],
    ['none', { decoder_sparse_step: 5 }, 4],
  ])('%s', (_, change, denseLayers) => expect(bytesOf(change)).toBe(withDense(denseLayers)));

  test('the dense ones are where the configuration says', () => {
    const folder = (change: JsonObject): string => makeFolder({ 'config.json': { ...tiny, ...change } });
    const engines = [{ mlp_only_layers: [0] }, { mlp_only_layers: [1] }, { decoder_sparse_step: 2 }].map((change) =>
      load(folder(change), { loadFormat: 'dummy' }),
    );
    const [first, second, step] = engines.map((engine) => scorePrompt(engine, [1, 2, 3, 4, 5, 6]));
    expect(step).toEqual(first);
    expect(second).not.toEqual(first);
    engines.forEach((engine) => engine.close());
  });

  test('a decoded token reads only the experts that it chooses', () => {
    const engine = load(MODEL_FOLDERS['qwen3moe-tiny']!);
    const embedding = 320 * HIDDEN;
    const unread = 2 * 12 * 3 * HIDDEN * 64 + embedding;
    // A CPU reads 64 outputs at a time, so that the 16 of a router are padded.
    const padding = 2 * (64 - 16) * HIDDEN;
    expect(engine.info.weightBytesPerToken).toBe(engine.info.weightBytes - 2 * (unread - padding));
    engine.close();
  });

  test.each<[string, JsonObject, string | RegExp]>([
    ['too large a choice', { num_experts_per_tok: 17 }, '17 experts per token are more than the 16'],
    ['too many experts', { num_experts: 1024 }, '4 of 1024 experts are not supported'],
    ['no number of experts', { num_experts: null }, 'num_experts is missing'],
    ['two numbers of experts', { num_local_experts: 8 }, 'num_experts disagrees with num_local_experts'],
    ['no width of an expert', { moe_intermediate_size: null }, 'moe_intermediate_size is missing'],
    ['a ragged expert', { moe_intermediate_size: 60 }, /moe_intermediate_size 60 \(it must be a multiple of 8\)/],
    ['a ragged MLP', { intermediate_size: 100 }, /intermediate_size 100 \(it must be a multiple of 8\)/],
    ['a layer that is not there', { mlp_only_layers: [2] }, /mlp_only_layers.0 is 2; it must be .* from 0 to 1/],
    ['no list of layers', { mlp_only_layers: 1 }, 'mlp_only_layers is 1; it must be a list'],
    ['no step', { decoder_sparse_step: 0 }, 'decoder_sparse_step is 0'],
    ['shared experts', { shared_expert_intermediate_size: 64 }, 'shared_expert_intermediate_size is not supported'],
    ['experts without a rule', { norm_topk_prob: 'yes' }, 'norm_topk_prob is "yes"; it must be true or false'],
  ])('%s is refused', (_, change, message) => {
    expect(() => load(makeFolder({ 'config.json': { ...tiny, ...change } }), { loadFormat: 'dummy' })).toThrow(message);
  });
});
