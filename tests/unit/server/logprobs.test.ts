import { afterEach, describe, expect, test } from '@jest/globals';

import { fakeLogprob } from './fake-worker.js';
import { demoTokenizer, GREEDY, TestServer } from './test-server.js';

let server: TestServer;
afterEach(async () => server?.close());

describe('logprobs', () => {
  test('of the output', async () => {
    server = await TestServer.start();
    const { text, json } = await server.generate({
      input_ids: [10, 20],
      return_logprob: true,
      sampling_params: GREEDY,
    });
    expect(json.meta_info.input_token_logprobs).toEqual([]);
    expect(json.meta_info.output_token_logprobs).toEqual([30, 31, 32, 33].map((id) => [fakeLogprob(id), id, null]));
    expect(json.meta_info).not.toHaveProperty('output_top_logprobs');
    expect(text).toContain(String(fakeLogprob(30)));
  });

  test('of the prompt too, with top and chosen ids and texts', async () => {
    server = await TestServer.start();
    const { json } = await server.generate({
      input_ids: [10, 20, 4095],
      return_logprob: true,
      logprob_start_len: 1,
      top_logprobs_num: 2,
      token_ids_logprob: [7, 5],
      return_text_in_logprobs: true,
      sampling_params: { ...GREEDY, max_new_tokens: 1 },
    });
    const entry = (id: number) => [fakeLogprob(id), id, demoTokenizer.decode([id])];
    const last = 10 + 20 + 4095 - 4000;
    expect(json.meta_info).toMatchObject({
      input_token_logprobs: [
        [null, 20, '5'],
        [fakeLogprob(4095), 4095, '<|im_end|>'],
      ],
      input_top_logprobs: [null, [entry(0), entry(1)]],
      input_token_ids_logprobs: [null, [entry(7), entry(5)]],
      output_token_logprobs: [entry(last)],
      output_top_logprobs: [[entry(0), entry(1)]],
      output_token_ids_logprobs: [[entry(7), entry(5)]],
    });
  });

  test('what the worker is asked for', async () => {
    server = await TestServer.start();
    const ask = async (fields: object) => {
      await server.generate({ input_ids: [1, 2, 3], sampling_params: GREEDY, ...fields });
      return server.worker.submitted.at(-1)!.logprobs;
    };
    expect(await ask({})).toBeNull();
    expect(await ask({ logprob_start_len: 0 })).toBeNull();
    expect(await ask({ return_logprob: true })).toEqual({ promptStart: 3, top: 0, tokenIds: [] });
    expect(await ask({ return_logprob: true, logprob_start_len: 0 })).toMatchObject({ promptStart: 0 });
    expect(await ask({ return_logprob: true, logprob_start_len: 3 })).toMatchObject({ promptStart: 3 });
    expect(
      (await server.generate({ input_ids: [1], return_logprob: true, logprob_start_len: 2 })).json.error.message,
    ).toMatch(/logprob_start_len is 2, but the prompt has only 1 tokens/);
  });
});
