import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

import { DetinferError } from '../../../lib/protocol/errors.js';
import { SchemaError } from '../../../lib/server/errors.js';
import { readGenerateRequest } from '../../../lib/server/validate.js';

const LIMITS = { vocabSize: 100, hasTokenizer: true };
const read = (body: unknown, limits = LIMITS) => readGenerateRequest(body, limits);
const sampling = (params: object) => read({ text: 'a', sampling_params: params }).prompts[0]!.sampling;

function refusal(body: unknown, limits = LIMITS): DetinferError {
  try {
    read(body, limits);
  } catch (error) {
    if (error instanceof DetinferError) return error;
    throw error;
  }
  throw new Error(`accepted: ${JSON.stringify(body)}`);
}

describe('defaults', () => {
  test('of a body with nothing but a prompt', () => {
    expect(read({ text: 'a' })).toEqual({
      prompts: [
        {
          rids: [expect.stringMatching(/^[0-9a-f]{32}$/)],
          prompt: 'a',
          addSpecialTokens: true,
          logprobs: null,
          withReceipt: false,
          sampling: {
            token: {
              temperature: 1,
              topK: -1,
              topP: 1,
              minP: 0,
              frequencyPenalty: 0,
              presencePenalty: 0,
              repetitionPenalty: 1,
              logitBias: [],
              grammar: null,
            },
            seed: null,
            maxNewTokens: 128,
            minNewTokens: 0,
            stopTokenIds: [],
            stopStrings: [],
            stopRegexes: [],
            ignoreEos: false,
            skipSpecialTokens: true,
            noStopTrim: false,
            n: 1,
          },
        },
      ],
      isList: false,
      stream: false,
    });
  });

  test('null is the default everywhere', () => {
    const bare = read({ text: 'a', rid: 'r' });
    const names = ['input_ids', 'sampling_params', 'return_logprob', 'logprob_start_len', 'top_logprobs_num'];
    const fields = [...names, 'token_ids_logprob', 'return_text_in_logprobs', 'return_receipt', 'stream', 'image_data', 'lora_path'];
    expect(read({ text: 'a', rid: 'r', ...Object.fromEntries(fields.map((name) => [name, null])) })).toEqual(bare);
    const params = [
      'max_new_tokens',
      'stop',
      'temperature',
      'logit_bias',
      'sampling_seed',
      'n',
      'json_schema',
      'regex',
      'ebnf',
    ];
    expect(sampling(Object.fromEntries(params.map((name) => [name, null])))).toEqual(bare.prompts[0]!.sampling);
  });

  test('unknown fields of the body are tolerated', () => {
    expect(
      read({ text: 'a', use_fancy_new_thing: { deep: [1] }, return_hidden_states: false, image_data: [] }).prompts,
    ).toHaveLength(1);
  });
});

describe('prompts', () => {
  test.each<[string, object, (string | number[])[], boolean]>([
    ['a text', { text: 'a' }, ['a'], false],
    ['a list of one text', { text: ['a'] }, ['a'], true],
    ['texts', { text: ['a', 'b'] }, ['a', 'b'], true],
    ['ids', { input_ids: [1, 2] }, [[1, 2]], false],
    ['a list of one list of ids', { input_ids: [[1, 2]] }, [[1, 2]], true],
    ['lists of ids', { input_ids: [[1], [2, 3]] }, [[1], [2, 3]], true],
    ['one text, two copies', { text: 'a', sampling_params: { n: 2 } }, ['a'], true],
  ])('%s', (_, body, prompts, isList) => {
    const request = read(body);
    expect(request.prompts.map(({ prompt }) => prompt)).toEqual(prompts);
    expect(request.isList).toBe(isList);
  });

  test('a batch spreads what is given once, and takes lists', () => {
    const { prompts } = read({
      text: ['a', 'b'],
      sampling_params: [{ max_new_tokens: 1 }, null],
      return_logprob: [true, false],
      logprob_start_len: [0, 1],
      top_logprobs_num: 2,
      token_ids_logprob: [[5], null],
      return_text_in_logprobs: true,
      rid: ['x', 'y'],
    });
    expect(prompts.map(({ sampling }) => sampling.maxNewTokens)).toEqual([1, 128]);
    expect(prompts.map(({ logprobs }) => logprobs)).toEqual([
      { start: 0, top: 2, tokenIds: [5], withText: true },
      null,
    ]);
    expect(prompts.map(({ rids }) => rids)).toEqual([['x'], ['y']]);
  });

  test('one list of ids to report is for all prompts', () => {
    const { prompts } = read({ text: ['a', 'b'], return_logprob: true, token_ids_logprob: [5, 6] });
    expect(prompts.map(({ logprobs }) => logprobs!.tokenIds)).toEqual([
      [5, 6],
      [5, 6],
    ]);
  });

  test('a rid given once names the batch and numbers its prompts', () => {
    expect(read({ text: ['a', 'b'], rid: 'x' }).prompts.map(({ rids }) => rids)).toEqual([
      ['x', 'x_0'],
      ['x', 'x_1'],
    ]);
  });
});

describe('sampling parameters that are accepted', () => {
  test.each<[string, object, object]>([
    ['a temperature below 1e-6 is greedy', { temperature: 1e-7 }, { token: { temperature: 0 } }],
    ['a temperature of 1e-6 is not', { temperature: 1e-6 }, { token: { temperature: 1e-6 } }],
    ['top_k -1', { top_k: -1 }, { token: { topK: -1 } }],
    ['top_k 1', { top_k: 1 }, { token: { topK: 1 } }],
    ['a huge top_k is the vocabulary', { top_k: 2 ** 40 }, { token: { topK: 100 } }],
    ['top_p 1', { top_p: 1 }, { token: { topP: 1 } }],
    ['min_p 0 and 1', { min_p: 1 }, { token: { minP: 1 } }],
    [
      'penalties at their limits',
      { frequency_penalty: -2, presence_penalty: 2, repetition_penalty: 2 },
      { token: { frequencyPenalty: -2, presencePenalty: 2, repetitionPenalty: 2 } },
    ],
    [
      'logit_bias',
      { logit_bias: { '3': -5, '99': 1.5 } },
      {
        token: {
          logitBias: [
            [3, -5],
            [99, 1.5],
          ],
        },
      },
    ],
    ['max_new_tokens 0', { max_new_tokens: 0 }, { maxNewTokens: 0 }],
    ['min_new_tokens', { max_new_tokens: 5, min_new_tokens: 5 }, { minNewTokens: 5 }],
    ['one stop string', { stop: 'x' }, { stopStrings: ['x'] }],
    ['stop strings', { stop: ['x', '\n'] }, { stopStrings: ['x', '\n'] }],
    ['no stop strings', { stop: [] }, { stopStrings: [] }],
    ['stop_token_ids', { stop_token_ids: [0, 99] }, { stopTokenIds: [0, 99] }],
    ['stop_regex', { stop_regex: '\\d+' }, { stopRegexes: [expect.objectContaining({ pattern: '\\d+' })] }],
    ['a seed', { sampling_seed: 0 }, { seed: 0 }],
    ['a negative seed', { sampling_seed: -7 }, { seed: -7 }],
    ['the largest seed', { sampling_seed: Number.MAX_SAFE_INTEGER }, { seed: Number.MAX_SAFE_INTEGER }],
    [
      'flags',
      { ignore_eos: true, skip_special_tokens: false, no_stop_trim: true, spaces_between_special_tokens: false },
      { ignoreEos: true, skipSpecialTokens: false, noStopTrim: true },
    ],
  ])('%s', (_, params, expected) => expect(sampling(params)).toMatchObject(expected));
});

describe('values that are refused', () => {
  test.each<[string, object, RegExp]>([
    ['no prompt', {}, /one of text and input_ids/],
    ['two prompts', { text: 'a', input_ids: [1] }, /only one of text and input_ids/],
    ['no texts', { text: [] }, /text is an empty list/],
    ['no ids', { input_ids: [] }, /input_ids is an empty list/],
    ['an empty prompt in a batch', { input_ids: [[1], []] }, /input_ids\[1\] is empty/],
    [
      'an id of the next vocabulary',
      { input_ids: [1, 100] },
      /input_ids\[1\] must be a token id between 0 and 99; it is 100/,
    ],
    ['a negative id', { input_ids: [[1], [-1]] }, /input_ids\[1\]\[0\] must be a token id/],
    ['a fractional id', { input_ids: [0.5] }, /input_ids\[0\] must be a token id.*0\.5/],
    ['a lone surrogate', { text: '\ud800' }, /lone surrogate/],
    [
      'sampling params for another batch',
      { text: ['a', 'b'], sampling_params: [{}] },
      /sampling_params has 1 elements for 2 prompts/,
    ],
    [
      'more sampling params than prompts',
      { text: ['a', 'b'], sampling_params: [{}, {}, {}] },
      /sampling_params has 3 elements for 2 prompts/,
    ],
    ['more flags than prompts', { text: ['a'], return_logprob: [true, true] }, /return_logprob has 2 elements for 1/],
    ['rids for another batch', { text: ['a', 'b'], rid: ['x'] }, /rid has 1 elements for 2 prompts/],
    ['a repeated rid', { text: ['a', 'b'], rid: ['x', 'x'] }, /rid holds a name twice/],
    ['an empty rid', { text: 'a', rid: '' }, /rid must have 1 to 256 characters/],
    ['a rid like a book', { text: 'a', rid: 'x'.repeat(257) }, /it has 257/],
    [
      'logprob_start_len -2',
      { text: 'a', return_logprob: true, logprob_start_len: -2 },
      /logprob_start_len must be at least -1/,
    ],
    [
      'negative top_logprobs_num',
      { text: 'a', return_logprob: true, top_logprobs_num: -1 },
      /top_logprobs_num must be at least 0, at most 100/,
    ],
    ['an unknown id to report', { text: 'a', token_ids_logprob: [100] }, /token_ids_logprob\[0\] must be a token id/],
    ['too many sequences', { text: new Array(17).fill('a'), sampling_params: { n: 4096 } }, /69632 sequences/],
  ])('%s', (_, body, message) => {
    const error = refusal(body);
    expect(error).not.toBeInstanceOf(SchemaError);
    expect([error.code, error.status]).toEqual(['INVALID_REQUEST', 400]);
    expect(error.message).toMatch(message);
  });

  test.each<[object, RegExp]>([
    [{ temperature: -0.1 }, /temperature must be at least 0/],
    [{ temperature: JSON.parse('1e999') }, /temperature must be .* it is Infinity/],
    [{ top_p: 0 }, /top_p must be greater than 0, at most 1/],
    [{ top_p: 1.01 }, /top_p/],
    [{ top_k: 0 }, /top_k must be at least 1, or -1; it is 0/],
    [{ top_k: -2 }, /top_k/],
    [{ top_k: 1.5 }, /top_k must be an integer/],
    [{ min_p: -0.1 }, /min_p/],
    [{ min_p: 1.1 }, /min_p must be at least 0, at most 1/],
    [{ frequency_penalty: 2.1 }, /frequency_penalty must be at least -2, at most 2/],
    [{ presence_penalty: -2.1 }, /presence_penalty/],
    [{ repetition_penalty: 0 }, /repetition_penalty must be greater than 0, at most 2/],
    [{ repetition_penalty: 2.1 }, /repetition_penalty/],
    [{ repetition_penalty: 5e-324 }, /repetition_penalty is 5e-324, which a 32-bit float cannot tell from 0/],
    [{ max_new_tokens: -1 }, /max_new_tokens must be at least 0/],
    [{ max_new_tokens: 1.5 }, /max_new_tokens must be an integer/],
    [{ max_new_tokens: 1e300 }, /max_new_tokens/],
    [{ min_new_tokens: -1 }, /min_new_tokens/],
    [{ min_new_tokens: 2, max_new_tokens: 1 }, /min_new_tokens \(2\) must not exceed max_new_tokens \(1\)/],
    [{ stop: '' }, /stop must not hold an empty string/],
    [{ stop: new Array(257).fill('x') }, /more than 256 strings/],
    [{ stop_regex: '(' }, /stop_regex "\(" can't be used: .*missing/],
    [{ stop_regex: '(?=a)' }, /can't be used/],
    [{ stop_regex: 'a'.repeat(1025) }, /longer than 1024/],
    [{ stop_regex: '(\\pL{1000}|a){5}'.replace('1000', '900') }, /can't be used|too complex/],
    [{ stop_token_ids: [100] }, /stop_token_ids\[0\] must be a token id between 0 and 99/],
    [{ sampling_seed: 0.5 }, /sampling_seed must be an integer/],
    [{ sampling_seed: 2 ** 53 }, /sampling_seed must be between -\(2\^53 - 1\) and 2\^53 - 1/],
    [{ sampling_seed: Number.MAX_SAFE_INTEGER, n: 2 }, /sampling_seed \+ n - 1/],
    [{ n: 0 }, /n must be at least 1/],
    [{ n: 4097 }, /n must be at least 1, at most 4096/],
    [{ logit_bias: { '100': 1 } }, /logit_bias\.100 must be a token id/],
    [{ logit_bias: { '1': 1e31 } }, /logit_bias\.1 must be/],
    [{ temprature: 1 }, /sampling_params\.temprature is no sampling parameter.*temperature/],
    [{ json_schema: '{}', regex: 'a' }, /Only one of/],
  ])('sampling_params %j', (params, message) => {
    const error = refusal({ text: 'a', sampling_params: params });
    expect(error).not.toBeInstanceOf(SchemaError);
    expect([error.code, error.status]).toEqual(['INVALID_REQUEST', 400]);
    expect(error.message).toMatch(message);
  });
});

describe('what this version does not have is refused', () => {
  test.each<[object, RegExp]>([
    [{ sampling_params: { structural_tag: '{}' } }, /structural_tag/],
    [{ sampling_params: { custom_params: {} } }, /custom_params/],
    [{ image_data: ['http://x'] }, /image_data/],
    [{ lora_path: 'x' }, /lora_path/],
    [{ return_hidden_states: true }, /return_hidden_states/],
  ])('%j', (body, message) => {
    const error = refusal({ text: 'a', ...body });
    expect([error.code, error.status]).toEqual(['UNSUPPORTED', 400]);
    expect(error.message).toMatch(message);
  });
});

describe('wrong types say which field', () => {
  test.each<[unknown, string | null]>([
    [undefined, null],
    [null, null],
    ['text', null],
    [[], null],
    [{ text: 5 }, 'text'],
    [{ text: ['a', 5] }, 'text[1]'],
    [{ text: [['a']] }, 'text[0]'],
    [{ input_ids: 'abc' }, 'input_ids'],
    [{ input_ids: ['1'] }, 'input_ids[0]'],
    [{ input_ids: [1, [2]] }, 'input_ids[0]'],
    [{ input_ids: [[1], ['a']] }, 'input_ids[1][0]'],
    [{ text: 'a', stream: 'yes' }, 'stream'],
    [{ text: 'a', rid: 5 }, 'rid'],
    [{ text: 'a', rid: ['x'] }, 'rid'],
    [{ text: 'a', return_logprob: 1 }, 'return_logprob'],
    [{ text: 'a', return_receipt: 'yes' }, 'return_receipt'],
    [{ text: 'a', logprob_start_len: '0' }, 'logprob_start_len'],
    [{ text: 'a', top_logprobs_num: [1] }, 'top_logprobs_num'],
    [{ text: 'a', token_ids_logprob: 5 }, 'token_ids_logprob'],
    [{ text: 'a', sampling_params: [] }, 'sampling_params'],
    [{ text: ['a'], sampling_params: [5] }, 'sampling_params[0]'],
    [{ text: 'a', sampling_params: { temperature: '1' } }, 'sampling_params.temperature'],
    [{ text: 'a', sampling_params: { max_new_tokens: true } }, 'sampling_params.max_new_tokens'],
    [{ text: 'a', sampling_params: { stop: 5 } }, 'sampling_params.stop'],
    [{ text: 'a', sampling_params: { stop: ['a', null] } }, 'sampling_params.stop[1]'],
    [{ text: 'a', sampling_params: { stop_token_ids: 5 } }, 'sampling_params.stop_token_ids'],
    [{ text: 'a', sampling_params: { logit_bias: [] } }, 'sampling_params.logit_bias'],
    [{ text: 'a', sampling_params: { logit_bias: { x: 1 } } }, 'sampling_params.logit_bias.x'],
    [{ text: 'a', sampling_params: { ignore_eos: 0 } }, 'sampling_params.ignore_eos'],
  ])('%j', (body, param) => {
    const error = refusal(body);
    expect(error).toBeInstanceOf(SchemaError);
    expect(error).toMatchObject({ code: 'INVALID_REQUEST', status: 400, param });
  });
});

describe('without a tokenizer', () => {
  const limits = { vocabSize: 100, hasTokenizer: false };

  test('ids are accepted, with stop ids', () => {
    expect(read({ input_ids: [1], sampling_params: { stop_token_ids: [2] } }, limits).prompts).toHaveLength(1);
  });

  test.each<[object, RegExp]>([
    [{ text: 'a' }, /--skip-tokenizer-init.*send input_ids/],
    [{ input_ids: [1], sampling_params: { stop: 'x' } }, /stop.*stop_token_ids/],
    [{ input_ids: [1], sampling_params: { stop_regex: 'x' } }, /stop.*stop_token_ids/],
  ])('%j is refused', (body, message) => expect(refusal(body, limits).message).toMatch(message));
});

describe('anything at all', () => {
  const names = [
    ...['text', 'input_ids', 'sampling_params', 'rid', 'return_logprob', 'logprob_start_len', 'top_logprobs_num'],
    ...['token_ids_logprob', 'return_text_in_logprobs', 'stream', 'image_data', '__proto__', 'constructor', 'toString'],
  ];
  const params = [
    ...['max_new_tokens', 'stop', 'stop_token_ids', 'stop_regex', 'temperature', 'top_p', 'top_k', 'min_p', 'n'],
    ...['frequency_penalty', 'logit_bias', 'sampling_seed', 'ignore_eos', 'json_schema', '__proto__', 'valueOf'],
  ];
  const object = (keys: string[]) => fc.dictionary(fc.constantFrom(...keys), fc.jsonValue({ maxDepth: 2 }));
  const numbers = fc.constantFrom(0, -1, 1, 99, 100, 0.5, -0, 1e300, Infinity, 2 ** 31, 2 ** 53);
  const likely = fc.record(
    {
      text: fc.oneof(fc.string({ unit: 'binary' }), fc.array(fc.string()), fc.jsonValue()),
      input_ids: fc.oneof(fc.array(numbers), fc.array(fc.array(numbers)), fc.jsonValue()),
      sampling_params: fc.oneof(
        fc.dictionary(fc.constantFrom(...params), fc.oneof(numbers, fc.string(), fc.jsonValue())),
        object(params),
        fc.array(object(params)),
      ),
      rid: fc.oneof(fc.string(), fc.array(fc.string())),
      return_logprob: fc.oneof(fc.boolean(), fc.array(fc.boolean())),
      logprob_start_len: fc.oneof(numbers, fc.array(numbers)),
      token_ids_logprob: fc.oneof(fc.array(numbers), fc.array(fc.array(numbers))),
    },
    { requiredKeys: [] },
  );

  test('is accepted or refused with a DetinferError', () => {
    fc.assert(
      fc.property(fc.oneof(fc.jsonValue(), object(names), likely), fc.boolean(), (body, hasTokenizer) => {
        try {
          const request = read(body, { vocabSize: 100, hasTokenizer });
          expect(request.prompts.length).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof DetinferError)) throw error;
          expect(error.message.length).toBeLessThan(1000);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test('a deeply nested body is refused, not followed', () => {
    const deep = JSON.parse('['.repeat(100_000) + ']'.repeat(100_000));
    expect(refusal({ text: deep })).toBeInstanceOf(SchemaError);
    expect(refusal({ text: 'a', sampling_params: deep })).toBeInstanceOf(SchemaError);
    expect(refusal({ input_ids: deep })).toBeInstanceOf(SchemaError);
    expect(refusal({ text: 'a', sampling_params: { logit_bias: { '1': deep } } })).toBeInstanceOf(SchemaError);
  });
});
