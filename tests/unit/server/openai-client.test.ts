import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import OpenAI from 'openai';

import { startRealServer, type RealServer } from './real-server.js';
import { demoTokenizer } from './test-server.js';

// OpenAI's own client against a real server with the demo model; /generate says what the answers must be.

let real: RealServer;
beforeAll(async () => (real = await startRealServer()));
afterAll(() => real.server.stop());

const MESSAGES: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'What is the capital of France?' }];
const CHAT_PROMPT = '<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n';
const model = 'models/demo';

/** What is left of chunks when they are put together, per choice. */
async function collect(stream: AsyncIterable<OpenAI.ChatCompletionChunk>) {
  const texts: string[] = [];
  const finishes: unknown[] = [];
  const logprobs: OpenAI.ChatCompletionTokenLogprob[][] = [];
  let usage: OpenAI.CompletionUsage | null | undefined;
  let chunks = 0;
  for await (const chunk of stream) {
    chunks += 1;
    usage = chunk.usage ?? usage;
    for (const { index, delta, finish_reason: finish, logprobs: entries } of chunk.choices) {
      texts[index] = (texts[index] ?? '') + (delta.content ?? '');
      (logprobs[index] ??= []).push(...(entries?.content ?? []));
      if (finish) finishes[index] = finish;
    }
  }
  return { texts, finishes, logprobs, usage, chunks };
}

describe('chat completions', () => {
  test('answer a message by the chat template', async () => {
    const answer = await real.client.chat.completions.create({ model, messages: MESSAGES, temperature: 0 });
    expect(answer).toMatchObject({
      object: 'chat.completion',
      model,
      system_fingerprint: 'detinfer-numerics/1:default',
    });
    expect(answer.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: 'The capital of France is Paris.', refusal: null },
        logprobs: null,
        finish_reason: 'stop',
        matched_stop: 4095,
      },
    ]);
    const ids = demoTokenizer.encode(CHAT_PROMPT, false);
    const same = await real.post('/generate', { input_ids: ids, sampling_params: { temperature: 0 } });
    expect(same.text).toBe('The capital of France is Paris.');
    const { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total } = answer.usage!;
    expect([prompt, completion, total]).toEqual([ids.length, same.output_ids.length, prompt + completion]);
  });

  test('log-probabilities are those of /generate, to the last bit', async () => {
    const { choices } = await real.client.chat.completions.create({
      model,
      messages: MESSAGES,
      temperature: 0.8,
      seed: 5,
      logprobs: true,
      top_logprobs: 3,
      max_tokens: 12,
    });
    const generated = await real.post('/generate', {
      input_ids: demoTokenizer.encode(CHAT_PROMPT, false),
      sampling_params: { temperature: 0.8, sampling_seed: 5, max_new_tokens: 12 },
      return_logprob: true,
      top_logprobs_num: 3,
    });
    const shown = (id: number, logprob: number) => ({
      token: demoTokenizer.decode([id]),
      bytes: [...demoTokenizer.bytes(id)],
      logprob,
    });
    const { output_token_logprobs: tokens, output_top_logprobs: tops } = generated.meta_info;
    expect(choices[0]!.logprobs!.content).toEqual(
      tokens.map(([logprob, id]: [number, number], i: number) => ({
        ...shown(id, logprob),
        top_logprobs: tops[i].map(([value, other]: [number, number]) => shown(other, value)),
      })),
    );
    expect(choices[0]!.message.content).toBe(generated.text);
  });

  test('a stream adds up to the whole answer, with n and usage', async () => {
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Tell me a joke' }];
    const body = { model, messages, n: 3, seed: 7, max_tokens: 20, logprobs: true, top_logprobs: 1 };
    const whole = await real.client.chat.completions.create(body);
    const stream = await real.client.chat.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    const { texts, finishes, logprobs, usage, chunks } = await collect(stream);
    expect(texts).toEqual(whole.choices.map(({ message }) => message.content));
    expect(finishes).toEqual(whole.choices.map(({ finish_reason: finish }) => finish));
    expect(logprobs).toEqual(whole.choices.map((choice) => choice.logprobs!.content));
    expect({ ...usage, prompt_tokens_details: null }).toEqual({ ...whole.usage, prompt_tokens_details: null });
    expect(chunks).toBeGreaterThan(6);
    expect(new Set(texts).size).toBe(3);
  });

  test('a seed makes an answer again, alone or as a copy', async () => {
    const ask = async (seed: number, n: number) => {
      const { choices } = await real.client.chat.completions.create({
        model,
        messages: MESSAGES,
        seed,
        n,
        max_tokens: 16,
      });
      return choices.map(({ message }) => message.content);
    };
    const copies = await ask(11, 4);
    expect(await Promise.all([11, 12, 13, 14].map(async (seed) => (await ask(seed, 1))[0]))).toEqual(copies);
  });

  test('stop strings, and the continuous usage of a stream', async () => {
    const stream = await real.client.chat.completions.create({
      model,
      messages: MESSAGES,
      temperature: 0,
      stop: [' of'],
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true } as OpenAI.ChatCompletionStreamOptions,
    });
    const chunks: OpenAI.ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    expect(text).toBe('The capital');
    expect(chunks.at(-2)!.choices[0]).toMatchObject({ finish_reason: 'stop', matched_stop: ' of' });
    const counts = chunks.map(({ usage }) => usage!.completion_tokens);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts.at(-1)).toBe(3);
  });

  test('the last message can be continued', async () => {
    const { choices } = await real.client.chat.completions.create({
      model,
      messages: [...MESSAGES, { role: 'assistant', content: 'The capital of' }],
      temperature: 0,
      ...{ continue_final_message: true },
    });
    expect(choices[0]!.message.content).toBe(' France is Paris.');
  });
});

describe('completions', () => {
  test('echo a batch of prompts with log-probabilities', async () => {
    const prompts = ['Tell me a joke', 'Ein Café für Ωmega 😀'];
    const { choices, usage } = await real.client.completions.create({
      model,
      prompt: prompts,
      temperature: 0,
      max_tokens: 6,
      echo: true,
      logprobs: 2,
    });
    const generated = await real.post('/generate', {
      text: prompts,
      sampling_params: { temperature: 0, max_new_tokens: 6 },
      return_logprob: true,
      logprob_start_len: 0,
    });
    for (const [i, { text, logprobs }] of choices.entries()) {
      expect(text).toBe(prompts[i] + generated[i].text);
      const { input_token_logprobs: input, output_token_logprobs: output } = generated[i].meta_info;
      expect(logprobs!.token_logprobs).toEqual([...input, ...output].map(([logprob]) => logprob));
      // Tokens that hold whole characters stand in the text where text_offset says.
      const characters = Array.from(text);
      for (const [k, token] of logprobs!.tokens!.entries()) {
        const offset = logprobs!.text_offset![k]!;
        const there = characters.slice(offset, offset + Array.from(token).length).join('');
        if (!token.includes('\ufffd')) expect(there).toBe(token);
      }
      expect(logprobs!.top_logprobs![0]).toBeNull();
      expect(Object.keys(logprobs!.top_logprobs![1]!)).toHaveLength(2);
    }
    expect(usage!.completion_tokens).toBe(12);
  });

  test('score a prompt without generating', async () => {
    const { choices } = await real.client.completions.create({
      model,
      prompt: 'Once upon a time',
      max_tokens: 0,
      echo: true,
      logprobs: 0,
    });
    expect(choices[0]).toMatchObject({ text: 'Once upon a time', finish_reason: 'length' });
    expect(choices[0]!.logprobs!.tokens!.join('')).toBe('Once upon a time');
    expect(choices[0]!.logprobs!.top_logprobs).toBeNull();
  });

  test('take ids, and n copies of each prompt in order', async () => {
    const prompt = [demoTokenizer.encode('Once upon'), demoTokenizer.encode('Tell me')];
    const { choices } = await real.client.completions.create({ model, prompt, n: 2, seed: 3, max_tokens: 5 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    for (const [i, seed] of [3, 4, 3, 4].entries()) {
      const sampling = { sampling_seed: seed, max_new_tokens: 5 };
      const { text } = await real.post('/generate', { input_ids: prompt[i >> 1]!, sampling_params: sampling });
      expect(choices[i]).toMatchObject({ text, sampling_seed: seed });
    }
  });

  test('a stream adds up to the whole answer', async () => {
    const body = {
      model,
      prompt: ['Once upon a time', 'Tell me a joke'],
      temperature: 0,
      max_tokens: 8,
      echo: true,
      logprobs: 1,
    };
    const whole = await real.client.completions.create(body);
    const texts = ['', ''];
    const offsets: number[][] = [[], []];
    const stream = await real.client.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    let usage: unknown;
    for await (const chunk of stream) {
      usage = chunk.usage ?? usage;
      for (const { index, text, logprobs } of chunk.choices) {
        texts[index] += text;
        offsets[index]!.push(...(logprobs?.text_offset ?? []));
      }
    }
    expect(texts).toEqual(whole.choices.map(({ text }) => text));
    expect(offsets).toEqual(whole.choices.map(({ logprobs }) => logprobs!.text_offset));
    expect(usage).toMatchObject({ completion_tokens: 16, total_tokens: whole.usage!.total_tokens });
  });
});

test('models', async () => {
  const { data } = await real.client.models.list();
  expect(data).toMatchObject([{ id: model, object: 'model', max_model_len: 4096 }]);
  expect(await real.client.models.retrieve(model)).toEqual(data[0]);
  await expect(real.client.models.retrieve('gpt-4')).rejects.toThrow(OpenAI.NotFoundError);
});

test('errors reach the client with their message', async () => {
  const refused = real.client.completions.create({ model, prompt: 'a', top_p: 7 });
  await expect(refused).rejects.toThrow(OpenAI.BadRequestError);
  await expect(refused).rejects.toThrow('top_p must be greater than 0, at most 1; it is 7.');
});
