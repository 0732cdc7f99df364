import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

import { readModelFolder } from '../../../lib/engine/model-folder.js';
import { FIXTURES, MODEL_FOLDERS } from '../../accuracy/engine-runs.js';
import { makeFolder, tinyConfig } from './checkpoint.js';

describe('readModelFolder', () => {
  test('reads the demo model', () => {
    const folder = readModelFolder(MODEL_FOLDERS.demo!);
    expect(folder).toMatchObject({
      architectures: ['Qwen3ForCausalLM'],
      modelType: 'qwen3',
      vocabSize: 4096,
      contextLength: 4096,
      eosTokenIds: [4095, 4093],
      hasTokenizer: true,
      tokenizerPath: join(MODEL_FOLDERS.demo!, 'tokenizer.json'),
    });
  });

  test('takes the stop tokens of config.json where there is no generation_config.json', () => {
    const folder = readModelFolder(join(FIXTURES, 'llama31-tiny'));
    expect(folder.eosTokenIds).toEqual([2]);
    expect(folder.hasTokenizer).toBe(false);
  });

  test('lays overrides over config.json', () => {
    const overrides = '{"max_position_embeddings": 99, "eos_token_id": [4, 5]}';
    expect(readModelFolder(join(FIXTURES, 'llama31-tiny'), overrides)).toMatchObject({
      contextLength: 99,
      eosTokenIds: [4, 5],
    });
  });

  test('a model without stop tokens has none', () => {
    const folder = makeFolder({ 'config.json': { ...tinyConfig(), eos_token_id: null } });
    expect(readModelFolder(folder).eosTokenIds).toEqual([]);
  });

  test.each<[string, object | string, string]>([
    ['no JSON', '{"a": ', 'not valid JSON'],
    ['no object', '[1]', 'must be a JSON object'],
    ['no vocabulary', { ...tinyConfig(), vocab_size: undefined }, 'vocab_size is missing'],
    ['a vocabulary of no size', { ...tinyConfig(), vocab_size: -3 }, 'vocab_size is -3'],
    ['no context', { ...tinyConfig(), max_position_embeddings: 'long' }, 'max_position_embeddings is "long"'],
    ['no architectures', { ...tinyConfig(), architectures: 'Qwen3' }, 'architectures'],
    ['a stop token outside the vocabulary', { ...tinyConfig(), eos_token_id: 512 }, 'eos_token_id has 512'],
  ])('refuses %s', (_, config, message) => {
    expect(() => readModelFolder(makeFolder({ 'config.json': config }))).toThrow(
      expect.objectContaining({ code: 'INVALID_MODEL', message: expect.stringContaining(message) }),
    );
  });
});
