import { afterEach, describe, expect, test } from '@jest/globals';

import { TestServer } from './test-server.js';

let server: TestServer;
afterEach(async () => server?.close());

describe('the end of a text', () => {
  test('a stop token is among the ids but not in the text', async () => {
    server = await TestServer.start();
    const ids = server.answerWith('Hello, world!');
    const { json } = await server.generate({ input_ids: [1], sampling_params: { temperature: 0 } });
    expect(json).toMatchObject({
      text: 'Hello, world!',
      output_ids: [...ids, 4095],
      meta_info: { finish_reason: { type: 'stop', matched: 4095 }, completion_tokens: ids.length + 1 },
    });
  });

  test('a plain stop token is trimmed too, and kept with no_stop_trim', async () => {
    server = await TestServer.start();
    const ids = server.answerWith('Hello, world!');
    const ask = (params: object) =>
      server.generate({ input_ids: [1], sampling_params: { stop_token_ids: [ids[2]], ...params } });
    expect((await ask({})).json.text).toBe('Hello,');
    expect((await ask({ no_stop_trim: true })).json.text).toBe('Hello, world');
  });

  test('special tokens are shown with skip_special_tokens false', async () => {
    server = await TestServer.start();
    server.worker.script = () => [4094, 871, 4095];
    const ask = (params: object) =>
      server.generate({ input_ids: [1], sampling_params: { stop_token_ids: [4095], ...params } });
    expect((await ask({})).json.text).toBe('Hello');
    expect((await ask({ skip_special_tokens: false })).json.text).toBe('<|im_start|>Hello');
    const kept = await ask({ skip_special_tokens: false, no_stop_trim: true });
    expect(kept.json.text).toBe('<|im_start|>Hello<|im_end|>');
  });

  test('a stop string over token borders cuts the text, and the ids at the token that completed it', async () => {
    server = await TestServer.start();
    const ids = server.answerWith('Hello, world! And more.');
    const { json } = await server.generate({
      input_ids: [1],
      return_logprob: true,
      sampling_params: { stop: ['xyz', 'o, wor'] },
    });
    expect(json.text).toBe('Hell');
    expect(json.output_ids).toEqual(ids.slice(0, 3));
    expect(json.meta_info).toMatchObject({ completion_tokens: 3, finish_reason: { type: 'stop', matched: 'o, wor' } });
    expect(json.meta_info.output_token_logprobs).toHaveLength(3);
    expect(server.worker.aborted).toEqual([{ id: server.worker.submitted[0]!.id, message: 'ended by a stop string' }]);
    expect(server.worker.liveCount).toBe(0);
  });

  test('tokens of the same event after a stop string are dropped', async () => {
    server = await TestServer.start();
    const ids = server.answerWith('Hello, world! And more.');
    server.worker.tokensPerStep = 100;
    const { json } = await server.generate({
      input_ids: [1],
      return_logprob: true,
      sampling_params: { stop: 'o, wor' },
    });
    expect([json.text, json.output_ids]).toEqual(['Hell', ids.slice(0, 3)]);
    expect(json.meta_info.output_token_logprobs).toHaveLength(3);
    expect(server.worker.aborted).toEqual([]);
  });

  test('no_stop_trim keeps the stop string and the token that completed it', async () => {
    server = await TestServer.start();
    server.answerWith('Hello, world! And more.');
    const { json } = await server.generate({ input_ids: [1], sampling_params: { stop: 'o, wor', no_stop_trim: true } });
    expect(json.text).toBe('Hello, world');
  });

  test('a stop string that is a special token is found though the text leaves it out', async () => {
    server = await TestServer.start();
    server.worker.script = () => [871, 4094, 11];
    const { json } = await server.generate({ input_ids: [1], sampling_params: { stop: ['<|im_start|>'] } });
    expect(json).toMatchObject({
      text: 'Hello',
      output_ids: [871, 4094],
      meta_info: { finish_reason: { type: 'stop', matched: '<|im_start|>' } },
    });
  });

  test('stop_regex', async () => {
    server = await TestServer.start();
    server.answerWith('Hello, world! And more.');
    const { json } = await server.generate({ input_ids: [1], sampling_params: { stop_regex: ['\\d', '[A-Z]n'] } });
    expect(json.text).toBe('Hello, world! ');
    expect(json.meta_info.finish_reason).toEqual({ type: 'stop', matched: '[A-Z]n' });
  });

  test('a stop string at the last token wins over length', async () => {
    server = await TestServer.start();
    server.answerWith('Hello, world! And more.');
    const { json } = await server.generate({ input_ids: [1], sampling_params: { stop: 'world', max_new_tokens: 3 } });
    expect(json.meta_info.finish_reason).toEqual({ type: 'stop', matched: 'world' });
    expect(json.text).toBe('Hello, ');
  });

  test('half a stop string, and half a character, are shown when nothing follows', async () => {
    server = await TestServer.start();
    const ids = server.answerWith('Hello 😀');
    const max_new_tokens = ids.length - 1;
    const { json } = await server.generate({ input_ids: [1], sampling_params: { stop: 'lo wor', max_new_tokens } });
    expect(json.text).toBe('Hello \ufffd');
  });
});
