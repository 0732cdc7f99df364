/** What is wrong with a model folder is said before anything is allocated: by name, with a code. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

import { DetinferError, type ErrorCode } from '../../../lib/protocol/errors.js';
import type { EngineOptions } from '../../../lib/engine/engine.js';
import { FIXTURES, load, scorePrompt } from '../../accuracy/engine-runs.js';
import { makeFolder, safetensors, tinyConfig, tinyTensors, type Config, type Tensors } from './checkpoint.js';

type Header = Record<string, { data_offsets?: number[] }>;

function expectError(
  code: ErrorCode,
  parts: (string | RegExp)[],
  folder: string,
  options?: Partial<EngineOptions>,
): void {
  let thrown: unknown;
  try {
    load(folder, options).close();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(DetinferError);
  const error = thrown as DetinferError;
  for (const part of parts) expect(error.message).toMatch(part);
  expect(error.code).toBe(code);
}

const withWeights = (file: Buffer): string => makeFolder({ 'config.json': tinyConfig(), 'model.safetensors': file });

function withTensors(change: (tensors: Tensors) => void): string {
  const tensors = tinyTensors();
  change(tensors);
  return withWeights(safetensors(tensors));
}

function withConfig(change: Config): string {
  return makeFolder({ 'config.json': { ...tinyConfig(), ...change }, 'model.safetensors': safetensors(tinyTensors()) });
}

const Q_PROJ = 'model.layers.1.self_attn.q_proj.weight';
const NORM = 'model.norm.weight';

describe('weights', () => {
  test('a sound copy loads, whatever the order of its tensors', () => {
    const tensors = Object.fromEntries(Object.entries(tinyTensors()).reverse());
    const copy = load(withWeights(safetensors(tensors)));
    const original = load(join(FIXTURES, 'qwen3-tiny'));
    expect(scorePrompt(copy, [1, 2, 3, 4, 5])).toEqual(scorePrompt(original, [1, 2, 3, 4, 5]));
  });

  test('a truncated file', () => {
    const file = safetensors(tinyTensors());
    const truncated = withWeights(file.subarray(0, file.length - 100));
    expectError('INVALID_WEIGHTS', ['model.safetensors is truncated', 'tensor', 'download it again'], truncated);
    expectError('INVALID_WEIGHTS', ['truncated', 'within its header'], withWeights(file.subarray(0, 50)));
    expectError('INVALID_WEIGHTS', ['truncated', 'too few'], withWeights(file.subarray(0, 3)));
    expectError('INVALID_WEIGHTS', ['truncated'], withWeights(Buffer.alloc(0)));
  });

  test('a file that is no safetensors file', () => {
    const archive = withWeights(Buffer.from('PK\x03\x04 something else entirely'));
    expectError('INVALID_WEIGHTS', ['is no safetensors file'], archive);
    const broken = safetensors({});
    broken[8] = 0x5b;
    expectError('INVALID_WEIGHTS', ['header', 'not valid JSON'], withWeights(broken));
  });

  test('a missing tensor', () => {
    const folder = withTensors((tensors) => delete tensors[Q_PROJ]);
    expectError('INVALID_WEIGHTS', ['model.safetensors', `no tensor ${Q_PROJ}`], folder);
  });

  test('a misshapen tensor', () => {
    const folder = withTensors((tensors) => {
      tensors[Q_PROJ]!.shape = [256, 256];
    });
    expectError('INVALID_WEIGHTS', ['model.safetensors', Q_PROJ, /\[256, 256\].*\[512, 128\]/], folder);
  });

  test('a wrong type', () => {
    const folder = withTensors((tensors) => {
      tensors[NORM] = { dtype: 'F32', shape: [128], data: Buffer.alloc(512) };
    });
    expectError('INVALID_WEIGHTS', ['model.safetensors', NORM, 'F32', 'BF16'], folder);
    const unknown = withTensors((tensors) => {
      tensors[NORM]!.dtype = 'Q4_K';
    });
    expectError('INVALID_WEIGHTS', [NORM, 'unknown type Q4_K'], unknown);
  });

  test.each([
    ['NaN', 0x7fc1],
    ['an infinity', 0xff80],
  ])('%s', (_, bits) => {
    const folder = withTensors((tensors) => {
      const data = Buffer.from(tensors[Q_PROJ]!.data);
      data.writeUInt16LE(bits, 1001 * 2);
      tensors[Q_PROJ]!.data = data;
    });
    expectError('INVALID_WEIGHTS', ['model.safetensors', Q_PROJ, 'infinite or not a number'], folder);
  });

  test('a bias that the architecture does not have', () => {
    const folder = withTensors((tensors) => {
      tensors[Q_PROJ.replace('weight', 'bias')] = { dtype: 'BF16', shape: [512], data: Buffer.alloc(1024) };
    });
    expectError('UNSUPPORTED', ['q_proj.bias'], folder);
  });

  test.each<[string, (header: Header) => unknown, string]>([
    ['overlapping tensors', (header) => (header[NORM]!.data_offsets = [0, 256]), 'overlap'],
    ['a tensor of the wrong length', (header) => (header[NORM]!.data_offsets![1]! += 2), NORM],
    ['a negative offset', (header) => (header[NORM]!.data_offsets = [-2, 254]), NORM],
    ['no offsets', (header) => (header[NORM] = {}), 'malformed'],
  ])('a header with %s', (_, edit, message) => {
    const file = safetensors(tinyTensors(), (header) => edit(header as Header));
    expectError('INVALID_WEIGHTS', ['model.safetensors', message], withWeights(file));
  });

  test('no weights at all, unless they are dummies', () => {
    const folder = makeFolder({ 'config.json': tinyConfig() });
    expectError('INVALID_WEIGHTS', ['neither model.safetensors nor', '--load-format dummy'], folder);
    load(folder, { loadFormat: 'dummy' }).close();
  });
});

describe('shards', () => {
  const names = Object.keys(tinyTensors()).sort();
  const shardOf = (name: string): string => (names.indexOf(name) % 2 === 0 ? 'a.safetensors' : 'b.safetensors');
  const weightMap = Object.fromEntries(names.map((name) => [name, shardOf(name)]));

  function shards(): Record<string, Tensors> {
    const result: Record<string, Tensors> = { 'a.safetensors': {}, 'b.safetensors': {} };
    for (const [name, tensor] of Object.entries(tinyTensors())) result[shardOf(name)]![name] = tensor;
    return result;
  }

  function folderOf(files: Record<string, Tensors>, weight_map: unknown = weightMap): string {
    const contents = Object.entries(files).map(([name, tensors]) => [name, safetensors(tensors)]);
    const index = { 'model.safetensors.index.json': { metadata: {}, weight_map } };
    return makeFolder({ 'config.json': tinyConfig(), ...index, ...Object.fromEntries(contents) });
  }

  test('give the same model as a single file', () => {
    const sharded = load(folderOf(shards()));
    const single = load(join(FIXTURES, 'qwen3-tiny'));
    expect(scorePrompt(sharded, [9, 8, 7, 6])).toEqual(scorePrompt(single, [9, 8, 7, 6]));
  });

  test('a missing shard', () => {
    const { 'a.safetensors': a } = shards();
    expectError('INVALID_WEIGHTS', [/b\.safetensors is missing/, 'index.json'], folderOf({ 'a.safetensors': a! }));
  });

  test('a tensor that its shard lacks', () => {
    const files = shards();
    delete files[shardOf(Q_PROJ)]![Q_PROJ];
    expectError('INVALID_WEIGHTS', [shardOf(Q_PROJ), `no tensor ${Q_PROJ}`], folderOf(files));
  });

  test('an index without a map, or with a path outside the folder', () => {
    expectError('INVALID_WEIGHTS', ['index.json', 'no weight_map'], folderOf(shards(), []));
    expectError('INVALID_WEIGHTS', ['index.json', '../x'], folderOf(shards(), { [NORM]: '../x.safetensors' }));
  });
});

const LLAMA: Config = { architectures: ['LlamaForCausalLM'] };
const SHRUNK_ROPE: Config = {
  rope_scaling: {
    ...{ rope_type: 'llama3', factor: 1e-300, low_freq_factor: 1, high_freq_factor: 4 },
    original_max_position_embeddings: 8192,
  },
};

describe('config.json', () => {
  test.each<[string, Config, ErrorCode, (string | RegExp)[]]>([
    ['an unknown architecture', { architectures: ['GptNeoForCausalLM'] }, 'UNSUPPORTED', ['GptNeo', 'Qwen3For']],
    ['no architectures', { architectures: [] }, 'INVALID_MODEL', ['architectures']],
    ['a missing key', { num_hidden_layers: null }, 'INVALID_MODEL', ['num_hidden_layers is missing']],
    ['a key of the wrong type', { hidden_size: 'big' }, 'INVALID_MODEL', ['hidden_size is "big"', 'positive integer']],
    ['a fraction for a count', { num_attention_heads: 3.5 }, 'INVALID_MODEL', ['num_attention_heads is 3.5']],
    ['heads that do not group', { num_key_value_heads: 3 }, 'INVALID_MODEL', ['multiple of num_key_value_heads']],
    ['quantized weights', { quantization_config: { bits: 4 } }, 'UNSUPPORTED', ['quantization_config']],
    ['a resembling architecture', { architectures: ['Qwen2ForCausalLM'] }, 'UNSUPPORTED', ['Qwen2ForCausalLM']],
    ['other experts', { architectures: ['MixtralForCausalLM'] }, 'UNSUPPORTED', ['MixtralForCausalLM']],
    ['float16', { torch_dtype: 'float16' }, 'UNSUPPORTED', ['torch_dtype "float16"', 'convert']],
    ['float32 in the new style', { torch_dtype: null, dtype: 'float32' }, 'UNSUPPORTED', ['dtype "float32"']],
    ['another activation', { hidden_act: 'gelu' }, 'UNSUPPORTED', ['hidden_act "gelu"']],
    ['biases', { attention_bias: true }, 'UNSUPPORTED', ['attention_bias']],
    ['a sliding window', { use_sliding_window: true }, 'UNSUPPORTED', ['use_sliding_window']],
    ['sliding layers', { layer_types: ['full_attention', 'sliding_attention'] }, 'UNSUPPORTED', ['layer_types.1']],
    ['another rope', { rope_scaling: { rope_type: 'yarn', factor: 4 } }, 'UNSUPPORTED', ['rope type "yarn"']],
    ['an incomplete rope', { rope_scaling: { rope_type: 'llama3' } }, 'INVALID_MODEL', ['rope_scaling.factor']],
    ['two thetas', { rope_parameters: { rope_theta: 5000 } }, 'INVALID_MODEL', ['rope_parameters disagrees']],
    ['an odd head', { head_dim: 100 }, 'UNSUPPORTED', ['head_dim 100']],
    ['more heads than elements', { ...LLAMA, num_attention_heads: 256, head_dim: null }, 'UNSUPPORTED', ['head_dim 0']],
    ['a list for a flag', { use_sliding_window: [true] }, 'INVALID_MODEL', ['use_sliding_window is a list or an obj']],
    ['a theta below 1', { rope_theta: 0.5, rope_parameters: null }, 'INVALID_MODEL', ['rope_theta must be at least 1']],
    ['a factor below 1', { ...SHRUNK_ROPE, rope_parameters: null }, 'INVALID_MODEL', ['rope_scaling.factor must be at']],
    ['too many layers', { num_hidden_layers: 2 ** 31 - 1 }, 'UNSUPPORTED', ['num_hidden_layers above 1024']],
  ])('%s', (_, change, code, parts) => expectError(code, parts, withConfig(change)));

  // Dummy weights have any size, so nothing else notices.
  test.each<[string, Config, string]>([
    ['heads', { num_attention_heads: 2 ** 27, num_key_value_heads: 2 ** 27, head_dim: 32 }, 'q_proj'],
    ['an MLP', { intermediate_size: 2 ** 31 - 8 }, 'gate_proj'],
    ['a vocabulary', { vocab_size: 2 ** 31 - 1 }, 'embed_tokens'],
  ])('more of %s than can be counted', (_, change, tensor) => {
    expectError('UNSUPPORTED', ['a weight matrix of', tensor], withConfig(change), { loadFormat: 'dummy' });
  });

  test('a value that is nested without end', () => {
    const text = JSON.stringify(tinyConfig()).replace(/}$/, `,"x":${'['.repeat(200_000)}${']'.repeat(200_000)}}`);
    expectError('INVALID_MODEL', ['config.json: x is nested more than'], makeFolder({ 'config.json': text }), {
      loadFormat: 'dummy',
    });
  });

  test('overrides replace its keys', () => {
    const folder = join(FIXTURES, 'qwen3-tiny');
    const engine = load(folder, { jsonModelOverrideArgs: '{"num_hidden_layers": 1}' });
    expect(engine.info.weightBytes).toBeLessThan(load(folder).info.weightBytes);
    expectError('INVALID_FLAG', ['--json-model-override-args', 'JSON'], folder, { jsonModelOverrideArgs: '{' });
    expectError('INVALID_FLAG', ['JSON object'], folder, { jsonModelOverrideArgs: '[]' });
  });
});

describe('options', () => {
  const folder = join(FIXTURES, 'qwen3-tiny');

  test.each<[string, Partial<EngineOptions>, ErrorCode, string]>([
    ['too long a context', { contextLength: 513 }, 'INVALID_FLAG', '--context-length 513'],
    ['a page of 8', { pageSize: 8 }, 'INVALID_FLAG', '--page-size 8'],
    ['no threads', { threads: 0 }, 'INVALID_FLAG', '--threads 0'],
    ['less than a page', { maxTotalTokens: 15 }, 'INVALID_FLAG', '--max-total-tokens 15'],
    ['more tokens than memory', { maxTotalTokens: 1e9 }, 'OUT_OF_MEMORY', 'lower --max-total-tokens'],
    ['no memory', { maxTotalTokens: null, memFractionStatic: 1e-9 }, 'OUT_OF_MEMORY', '--mem-fraction-static'],
  ])('%s', (_, options, code, message) => expectError(code, [message], folder, options));

  test('a folder that is none', () => {
    expectError('INVALID_MODEL', ['neither a local model folder'], join(folder, 'nothing'));
    for (const name of ['a'.repeat(5000), 'a\0b']) {
      expectError('INVALID_MODEL', ['neither a local model folder'], join(folder, name));
    }
    expectError('INVALID_MODEL', ['no config.json'], FIXTURES);
  });
});
