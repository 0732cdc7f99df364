import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from '@jest/globals';

import { Tokenizer } from '../../../lib/tokenizer/tokenizer.js';
import { llama2, llama3 } from './synthetic.js';

interface Case {
  text: string;
  ids: number[];
  decoded: string;
  decoded_skip_special: string;
}

const demo = Tokenizer.load('models/demo');
const cases: Case[] = JSON.parse(await readFile('tests/fixtures/tokenizer.json', 'utf8')).cases;
const json = async (path: string) => JSON.parse(await readFile(path, 'utf8'));

describe('the demo tokenizer against Hugging Face', () => {
  test('there are 40 recorded cases', () => expect(cases).toHaveLength(40));

  test.each(cases.map((c) => [JSON.stringify(c.text).slice(0, 50), c] as const))('%s', (_, c) => {
    expect(demo.encode(c.text)).toEqual(c.ids);
    expect(demo.decode(c.ids)).toBe(c.decoded);
    expect(demo.decode(c.ids, true)).toBe(c.decoded_skip_special);
  });

  test('merges written as strings mean the same', async () => {
    const contents = await json('models/demo/tokenizer.json');
    contents.model.merges = contents.model.merges.map((pair: string[]) => pair.join(' '));
    const tokenizer = new Tokenizer(contents, await json('models/demo/tokenizer_config.json'));
    for (const c of cases) expect(tokenizer.encode(c.text)).toEqual(c.ids);
  });

  test('knows its special tokens', () => {
    expect(demo.eosTokenId).toBe(4095);
    expect(demo.specialTokenId('<|im_start|>')).toBe(4094);
    expect(demo.specialTokenId('hello')).toBeUndefined();
    expect([4092, 4093, 4094, 4095].map((id) => demo.isSpecial(id))).toEqual([false, true, true, true]);
  });

  test('ids that the tokenizer does not know have no text', () => {
    expect(demo.decode([871, 100_000, 11])).toBe('Hello,');
  });

  test('a byte order mark is text', () => {
    expect(demo.decode(demo.encode('\ufeffa\ufeff'))).toBe('\ufeffa\ufeff');
  });

  test('text that is not Unicode is refused', () => {
    expect(() => demo.encode('a\ud800b')).toThrow(expect.objectContaining({ code: 'INVALID_REQUEST' }));
  });

  test('no token stands for more text than maxUnitsPerToken', () => {
    expect(demo.maxUnitsPerToken).toBeGreaterThanOrEqual(4);
    for (const c of cases) expect(c.text.length).toBeLessThanOrEqual(c.ids.length * demo.maxUnitsPerToken!);
  });
});

// Expected values were made with Hugging Face's own library (tokenizers 0.23.2).
describe('a Llama 3 style tokenizer', () => {
  const tokenizer = new Tokenizer(llama3(), { eos_token: { content: '<|eot_id|>' } });

  test('begins a text with its begin-of-text token', () => {
    expect(tokenizer.encode('hell')).toEqual([260, 258]);
    expect(tokenizer.encode('hell', false)).toEqual([258]);
    expect(tokenizer.encode('')).toEqual([260]);
  });

  test('leaves special tokens out of decoded text when asked to', () => {
    expect(tokenizer.decode([260, 258, 261])).toBe('<|begin_of_text|>hell<|eot_id|>');
    expect(tokenizer.decode([260, 258, 261], true)).toBe('hell');
    expect(tokenizer.eosTokenId).toBe(261);
  });

  test('does not "clean up" spaces, even when told to', () => {
    const told = new Tokenizer(llama3(), { clean_up_tokenization_spaces: true });
    expect(told.decode(told.encode('x != y , z'), true)).toBe('x != y , z');
  });
});

describe('a Llama 2 style tokenizer', () => {
  const tokenizer = new Tokenizer(llama2(), {});
  const byte = (value: number) => 3 + value;

  test('encodes with a prefix space and falls back to bytes', () => {
    const hello = 272;
    expect(tokenizer.encode('hello')).toEqual([1, hello]);
    expect(tokenizer.encode('€')).toEqual([1, 259, byte(0xe2), byte(0x82), byte(0xac)]);
  });

  test('decodes bytes, and strips the first space of a text only', () => {
    expect(tokenizer.decode(tokenizer.encode('hello  hello €'), true)).toBe('hello  hello €');
    expect(tokenizer.decode([byte(0x0a)])).toBe('\n');
  });

  test('a continuation keeps its first space', () => {
    const continuation = tokenizer.detokenizer(true);
    expect(continuation.push(272)).toBe(' hello');
  });
});

describe('tokenizer_config.json', () => {
  test('marks and adds special tokens', () => {
    const contents = llama3();
    contents['added_tokens'][1].special = false;
    const config = {
      eos_token: '<|eot_id|>',
      added_tokens_decoder: { '262': { content: '<|extra|>', special: true, normalized: false } },
    };
    const tokenizer = new Tokenizer(contents, config);
    expect(tokenizer.isSpecial(261)).toBe(true);
    expect(tokenizer.encode('<|extra|>', false)).toEqual([262]);
    expect(tokenizer.decode([262, 258], true)).toBe('hell');
  });
});

describe('a folder that can not be used is a clear error', () => {
  async function load(files: Record<string, string>): Promise<unknown> {
    const folder = await mkdtemp(join(tmpdir(), 'detinfer-tokenizer-'));
    try {
      for (const [name, contents] of Object.entries(files)) await writeFile(join(folder, name), contents);
      return Tokenizer.load(folder);
    } catch (error) {
      return error;
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  test.each<[string, Record<string, string>, string, RegExp]>([
    ['nothing there', {}, 'INVALID_MODEL', /no tokenizer\.json.*--tokenizer-path.*--skip-tokenizer-init/],
    ['not JSON', { 'tokenizer.json': '{' }, 'INVALID_MODEL', /tokenizer\.json is not JSON/],
    ['not an object', { 'tokenizer.json': '[]' }, 'INVALID_MODEL', /must hold a JSON object/],
    ['no model', { 'tokenizer.json': '{"decoder":{"type":"ByteLevel"}}' }, 'INVALID_MODEL', /can't be used/],
    [
      'an unknown decoder',
      { 'tokenizer.json': '{"decoder":{"type":"CTC"}}' },
      'UNSUPPORTED',
      /CTC.*--skip-tokenizer-init/,
    ],
    [
      'a damaged config',
      { 'tokenizer.json': JSON.stringify(llama3()), 'tokenizer_config.json': 'x' },
      'INVALID_MODEL',
      /config\.json is not JSON/,
    ],
  ])('%s', async (_, files, code, message) => {
    expect(await load(files)).toMatchObject({ code, message: expect.stringMatching(message) });
  });
});
