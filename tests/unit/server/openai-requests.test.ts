import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

import { fakeLogprob } from './fake-worker.js';
import { TestServer } from './test-server.js';

let server: TestServer;
beforeAll(async () => (server = await TestServer.start()));
afterAll(() => server.close());

const CHAT = { messages: [{ role: 'user', content: 'Hi' }], max_tokens: 3 };
const chat = (change: object) => server.send('POST', '/v1/chat/completions', { ...CHAT, ...change });
const complete = (change: object) => server.send('POST', '/v1/completions', { prompt: 'Hi', ...change });
const sent = () => server.worker.submitted.at(-1)!;
const counting = (count: number) => Array.from({ length: count }, (_, i) => i);
const promptText = () => server.frontend.tokenizer!.decode(sent().inputIds);

describe('a chat', () => {
  test.each<[string, object, RegExp]>([
    ['no messages', { messages: null }, /messages must be a list, not null/],
    ['empty messages', { messages: [] }, /messages is an empty list/],
    ['a message that is text', { messages: ['Hi'] }, /messages\[0\] must be an object, not "Hi"/],
    ['a message without a role', { messages: [{ content: 'Hi' }] }, /messages\[0\]\.role must be a string/],
    ['an image', { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] }, /content\[0\] is no text/],
    ['a forced tool', { tool_choice: 'required' }, /tool_choice must be auto or none/],
    [
      'a named tool',
      { tool_choice: { type: 'function', function: { name: 'f' } } },
      /tool_choice must be auto or none/,
    ],
    ['a tool of another shape', { tools: [{ name: 'f' }] }, /tools\[0\] must be an object \{type/],
    ['audio', { modalities: ['text', 'audio'] }, /modalities other than text/],
    ['functions', { functions: [{ name: 'f' }] }, /functions is not supported/],
    ['two limits', { max_completion_tokens: 5 }, /differ; give one/],
    ['top_logprobs alone', { top_logprobs: 2 }, /top_logprobs needs logprobs: true/],
    ['nothing to continue', { continue_final_message: true }, /last message with the role assistant/],
    ['a limit that is no number', { max_tokens: 'x' }, /^max_tokens must be an integer/],
    ['more than the limit at least', { min_tokens: 9 }, /min_tokens \(9\) must not exceed max_tokens \(3\)/],
    ['a seed that is no integer', { seed: 1.5 }, /^seed must be an integer/],
    ['stream options alone', { stream_options: { include_usage: true } }, /only be given with stream: true/],
    ['a bad bias', { logit_bias: { 99999: 1 } }, /logit_bias\.99999 must be a token id/],
  ])('refuses %s', async (_, change, message) => {
    const { status, json } = await chat(change);
    expect(status).toBe(400);
    expect(json).toMatchObject({
      object: 'error',
      type: 'BadRequestError',
      code: 400,
      error: { message: json.message },
    });
    expect(json.message).toMatch(message);
  });

  test('refuses a schema that nests without an end', async () => {
    const schema = `{"const": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    const format = `{"type": "json_schema", "json_schema": {"name": "x", "schema": ${schema}}}`;
    const body = `{"messages": ${JSON.stringify(CHAT.messages)}, "response_format": ${format}}`;
    const { status, json } = await server.send('POST', '/v1/chat/completions', body);
    expect(status).toBe(400);
    expect(json.message).toBe('The JSON schema nests more than 1000 deep.');
  });

  test('takes OpenAI’s fields and SGLang’s extras', async () => {
    const extras = { top_k: 5, min_p: 0.1, min_tokens: 1, repetition_penalty: 1.1, ignore_eos: true, seed: 9 };
    const body = { ...extras, temperature: 0.5, stop_token_ids: [7], logit_bias: { 3: -2 }, user: 'me', store: false };
    expect((await chat(body)).status).toBe(200);
    const { sampling, stop } = sent();
    expect(sampling).toMatchObject({ topK: 5, minP: 0.1, repetitionPenalty: 1.1, seed: 9, temperature: 0.5 });
    expect(sampling.logitBias).toEqual([[3, -2]]);
    expect(stop).toEqual({ stopTokenIds: [7], minNewTokens: 1, maxNewTokens: 3 });
  });

  test('may fill the context without a limit', async () => {
    server.answerWith('Hello');
    await server.send('POST', '/v1/chat/completions', { messages: CHAT.messages });
    expect(sent().stop.maxNewTokens).toBe(server.worker.info.contextLength);
  });

  test('joins the text parts of a message', async () => {
    await chat({
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'a' },
            { type: 'text', text: 'b' },
          ],
        },
      ],
    });
    expect(promptText()).toBe('<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\n');
  });

  test('can leave out the generation prompt', async () => {
    await chat({ add_generation_prompt: false });
    expect(promptText()).toBe('<|im_start|>user\nHi<|im_end|>\n');
  });

  test.each([true, false])('continues the last message in its turn, with add_generation_prompt: %s', async (adds) => {
    const beginning = { role: 'assistant', content: 'I am' };
    const body = { messages: [...CHAT.messages, beginning], continue_final_message: true, add_generation_prompt: adds };
    expect((await chat(body)).status).toBe(200);
    expect(promptText()).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nI am');
  });
});

describe('a completion', () => {
  test.each<[string, object, RegExp]>([
    ['no prompt', { prompt: null }, /prompt must be a string/],
    ['an empty batch', { prompt: [] }, /prompt is an empty list/],
    ['an empty prompt', { prompt: '' }, /prompt is empty/],
    ['an empty prompt in a batch', { prompt: ['a', ''] }, /prompt\[1\] is empty/],
    ['an id outside', { prompt: [[1], [4096]] }, /prompt\[1\]\[0\] must be a token id/],
    ['a suffix', { suffix: 'x' }, /suffix is not supported/],
    ['best_of', { best_of: 3 }, /best_of other than n/],
    ['logprobs that are no number', { logprobs: true }, /logprobs must be an integer/],
  ])('refuses %s', async (_, change, message) => {
    const { status, json } = await complete(change);
    expect(status).toBe(400);
    expect(json.error.message).toMatch(message);
  });

  test('has 16 tokens unless told', async () => {
    await complete({});
    expect(sent().stop.maxNewTokens).toBe(16);
  });

  test('counts a prompt once, however many copies it has', async () => {
    const { usage } = (await complete({ prompt: ['Hi', 'Hello'], n: 3, max_tokens: 2 })).json;
    const ids = server.worker.submitted.slice(-6).map(({ inputIds }) => inputIds.length);
    const prompts = ids[0]! + ids[3]!;
    expect(usage).toMatchObject({ prompt_tokens: prompts, completion_tokens: 12, total_tokens: prompts + 12 });
  });

  test('gives the likeliest of top tokens that read the same, parts of characters, their common key', async () => {
    const { choices } = (await complete({ max_tokens: 1, logprobs: 200 })).json;
    const { tokenizer } = server.frontend;
    // The worker's list is that of the ids 0, 1, …, in which the first is the likeliest by definition.
    const first = counting(200).find((id) => tokenizer!.decode([id]) === '\ufffd')!;
    expect(choices[0].logprobs.top_logprobs[0]['\ufffd']).toBe(fakeLogprob(first));
  });

  test('can be named, and its prompts by number', async () => {
    const { json } = await complete({ prompt: ['a', 'b'], rid: 'mine', max_tokens: 1 });
    expect(json.id).toBe('mine');
    expect(json.choices).toHaveLength(2);
  });
});

test('a body that is no JSON gets an error of the same shape', async () => {
  const { status, json } = await server.send('POST', '/v1/completions', '{');
  expect(status).toBe(400);
  expect(json).toMatchObject({ type: 'BadRequestError', error: { message: expect.stringMatching(/not valid JSON/) } });
});

test('without a tokenizer or a template there is no chat', async () => {
  const ids = await TestServer.start({ args: { skipTokenizerInit: true } });
  const { status, json } = await ids.send('POST', '/v1/chat/completions', CHAT);
  expect([status, json.message]).toEqual([400, expect.stringMatching(/need a tokenizer.*\/generate/)]);
  await ids.close();
});
