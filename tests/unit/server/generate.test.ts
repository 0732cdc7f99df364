import { afterEach, describe, expect, test } from '@jest/globals';

import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { fakeLogprob } from './fake-worker.js';
import { demoTokenizer, GREEDY, TestServer } from './test-server.js';

let server: TestServer;
afterEach(async () => server?.close());

describe('one prompt', () => {
  test('as ids: text, ids and meta_info', async () => {
    server = await TestServer.start();
    const { status, headers, json } = await server.generate({
      input_ids: [10, 20],
      rid: 'me',
      sampling_params: GREEDY,
    });
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('application/json; charset=utf-8');
    expect(json).toEqual({
      text: demoTokenizer.decode([30, 31, 32, 33]),
      output_ids: [30, 31, 32, 33],
      meta_info: {
        id: 'me',
        finish_reason: { type: 'length', length: 4 },
        prompt_tokens: 2,
        completion_tokens: 4,
        cached_tokens: 0,
        weight_version: 'default',
        e2e_latency: expect.any(Number),
      },
    });
  });

  test('as text: encoded as the model expects', async () => {
    server = await TestServer.start();
    await server.generate({ text: 'Tell me about Richard Feynman: ', sampling_params: GREEDY });
    expect(server.worker.submitted[0]!.inputIds).toEqual([529, 356, 369, 1413, 739, 25, 220]);
  });

  test('PUT does the same', async () => {
    server = await TestServer.start();
    const { json } = await server.send('PUT', '/generate', { input_ids: [1], sampling_params: GREEDY });
    expect(json.output_ids).toEqual([1, 2, 3, 4]);
  });

  test('without max_new_tokens: 128', async () => {
    server = await TestServer.start();
    expect((await server.generate({ input_ids: [1] })).json.output_ids).toHaveLength(128);
  });

  test('max_new_tokens 0 only reads the prompt', async () => {
    server = await TestServer.start();
    const { json } = await server.generate({ input_ids: [1, 2], sampling_params: { max_new_tokens: 0 } });
    expect(json).toMatchObject({
      text: '',
      output_ids: [],
      meta_info: { finish_reason: { type: 'length', length: 0 } },
    });
  });

  test('output ends with the context', async () => {
    server = await TestServer.start({ info: { contextLength: 16 } });
    const { json } = await server.generate({
      input_ids: new Array(14).fill(1),
      sampling_params: { max_new_tokens: 100 },
    });
    expect(json.output_ids).toHaveLength(2);
    expect(json.meta_info.finish_reason).toEqual({ type: 'length', length: 2 });
  });

  test('what the worker gets', async () => {
    server = await TestServer.start();
    const sampling_params = {
      temperature: 0.5,
      top_k: 7,
      top_p: 0.9,
      min_p: 0.1,
      frequency_penalty: 0.1,
      presence_penalty: 0.2,
      repetition_penalty: 1.1,
      logit_bias: { '5': -1 },
      sampling_seed: 9,
      max_new_tokens: 3,
      min_new_tokens: 2,
      stop_token_ids: [77],
    };
    await server.generate({ input_ids: [1], sampling_params });
    expect(server.worker.submitted[0]).toEqual({
      id: '0',
      inputIds: [1],
      outputIds: [],
      sampling: {
        temperature: 0.5,
        topK: 7,
        topP: 0.9,
        minP: 0.1,
        frequencyPenalty: 0.1,
        presencePenalty: 0.2,
        repetitionPenalty: 1.1,
        logitBias: [[5, -1]],
        grammar: null,
        seed: 9,
      },
      stop: { stopTokenIds: [77, 4095, 4093], minNewTokens: 2, maxNewTokens: 3 },
      logprobs: null,
    } satisfies WorkerRequest);
  });

  test('ignore_eos leaves only the stop ids of the request', async () => {
    server = await TestServer.start();
    await server.generate({ input_ids: [1], sampling_params: { ...GREEDY, ignore_eos: true, stop_token_ids: [7] } });
    expect(server.worker.submitted[0]!.stop.stopTokenIds).toEqual([7]);
  });
});

describe('batches', () => {
  test('answers come in order, a list of one gives a list', async () => {
    server = await TestServer.start();
    const { json } = await server.generate({ input_ids: [[5], [3], [9]], sampling_params: GREEDY });
    expect(json.map((item: any) => item.output_ids[0])).toEqual([5, 3, 9]);
    expect((await server.generate({ input_ids: [[5]], sampling_params: GREEDY })).json).toHaveLength(1);
    expect((await server.generate({ text: ['a'], sampling_params: GREEDY })).json).toHaveLength(1);
  });

  test('with parameters and names of their own', async () => {
    server = await TestServer.start();
    const { json } = await server.generate({
      input_ids: [[5], [3]],
      rid: ['a', 'b'],
      sampling_params: [{ ...GREEDY, max_new_tokens: 1 }, GREEDY],
      return_logprob: [false, true],
    });
    expect(json.map((item: any) => [item.meta_info.id, item.output_ids.length])).toEqual([
      ['a', 1],
      ['b', 4],
    ]);
    expect(json.map((item: any) => 'output_token_logprobs' in item.meta_info)).toEqual([false, true]);
  });

  test('n copies follow each other, each with a seed of its own', async () => {
    server = await TestServer.start();
    const sampling_params = { max_new_tokens: 1, n: 3, sampling_seed: 100 };
    const { json } = await server.generate({ input_ids: [[5], [9]], rid: 'r', sampling_params });
    expect(json.map((item: any) => item.meta_info.id)).toEqual(['r_0_0', 'r_0_1', 'r_0_2', 'r_1_0', 'r_1_1', 'r_1_2']);
    expect(json.map((item: any) => item.meta_info.sampling_seed)).toEqual([100, 101, 102, 100, 101, 102]);
    expect(json.map((item: any) => item.output_ids[0])).toEqual([105, 106, 107, 109, 110, 111]);
  });
});

describe('seeds of requests that bring none', () => {
  const seedsOf = async (args: object, count = 3) => {
    server = await TestServer.start({ args });
    const bodies = Array.from({ length: count }, () => ({
      input_ids: [1],
      sampling_params: { max_new_tokens: 1, n: 2 },
    }));
    const answers = [];
    for (const body of bodies) answers.push(await server.generate(body));
    return answers.map(({ json }) => json.map((item: any) => item.meta_info.sampling_seed));
  };

  test('42 under --enable-deterministic-inference', async () => {
    expect(await seedsOf({ enableDeterministicInference: true })).toEqual([
      [42, 43],
      [42, 43],
      [42, 43],
    ]);
  });

  test('fresh ones otherwise', async () => {
    const seeds = (await seedsOf({ enableDeterministicInference: false })).flat();
    expect(new Set(seeds).size).toBe(6);
    expect(seeds.every(Number.isSafeInteger)).toBe(true);
  });

  test('a known sequence with --random-seed', async () => {
    expect(await seedsOf({ enableDeterministicInference: false, randomSeed: 7 })).toEqual([
      [7, 8],
      [9, 10],
      [11, 12],
    ]);
  });

  test('greedy answers report none', async () => {
    server = await TestServer.start();
    const { json } = await server.generate({ input_ids: [1], sampling_params: { ...GREEDY, sampling_seed: 5 } });
    expect(json.meta_info).not.toHaveProperty('sampling_seed');
  });
});

describe('prompts that do not fit', () => {
  test.each<[string, object, object, RegExp]>([
    [
      'as long as the context',
      { contextLength: 8 },
      { input_ids: new Array(8).fill(1) },
      /has 8 tokens.*the model's context of 8 tokens/,
    ],
    ['text over the context', { contextLength: 8 }, { text: 'a b c d e f g h i j' }, /has 11 tokens/],
    ['a book', { contextLength: 8 }, { text: 'word '.repeat(1e6) }, /has at least \d+ tokens/],
    [
      'over the KV cache',
      { contextLength: 512, maxTotalTokens: 64 },
      { input_ids: new Array(64).fill(1) },
      /64 tokens that fit into the KV cache \(--max-total-tokens\)/,
    ],
    ['an empty text', {}, { text: '' }, /The prompt is empty/],
    ['one of a batch', { contextLength: 8 }, { input_ids: [[1], new Array(9).fill(1)] }, /has 9 tokens/],
    [
      'the logprobs',
      {},
      {
        input_ids: [[1]],
        return_logprob: true,
        top_logprobs_num: 4096,
        sampling_params: { max_new_tokens: 500, n: 20 },
      },
      /asks for up to \d+ logprobs/,
    ],
    [
      'a tokenizer for another model',
      { vocabSize: 500 },
      { text: 'Richard Feynman' },
      /made token id \d+, but the model's vocabulary has 500/,
    ],
  ])('%s', async (_, info, body, message) => {
    server = await TestServer.start({ info });
    const { status, json } = await server.generate(body);
    expect([status, json.error.code]).toEqual([400, 'INVALID_REQUEST']);
    expect(json.error.message).toMatch(message);
    expect(server.worker.submitted).toEqual([]);
  });

  test('one token less than the context fits', async () => {
    server = await TestServer.start({ info: { contextLength: 8 } });
    expect((await server.generate({ input_ids: new Array(7).fill(1) })).json.output_ids).toHaveLength(1);
  });
});

describe('without a tokenizer', () => {
  test('ids in, ids out, no text', async () => {
    server = await TestServer.start({ args: { skipTokenizerInit: true } });
    const body = { input_ids: [10, 20], return_logprob: true, return_text_in_logprobs: true, sampling_params: GREEDY };
    const { json } = await server.generate(body);
    expect(json).not.toHaveProperty('text');
    expect(json.output_ids).toEqual([30, 31, 32, 33]);
    expect(json.meta_info.output_token_logprobs[0]).toEqual([fakeLogprob(30), 30, null]);
    const { events } = await server.stream(body);
    expect(events.at(-1).output_ids).toEqual([30, 31, 32, 33]);
  });

  test('text is refused', async () => {
    server = await TestServer.start({ args: { skipTokenizerInit: true } });
    const { status, json } = await server.generate({ text: 'a' });
    expect(status).toBe(400);
    expect(json.error.message).toMatch(/--skip-tokenizer-init.*input_ids/);
  });
});
