import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';

import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Agent, request } from 'undici';

import { type RunningServer, startServer } from '../../../lib/server/server.js';
import { startWorker, type WorkerHandle } from '../../../lib/worker/supervisor.js';
import { serverArgs, until } from './test-server.js';

// The demo model in a worker process of its own, over real sockets.

interface Running {
  server: RunningServer;
  worker: WorkerHandle;
}

const agent = new Agent();
afterAll(() => agent.destroy());

async function start(overrides: Parameters<typeof serverArgs>[0] = {}): Promise<Running> {
  let worker: WorkerHandle | undefined;
  const server = await startServer(
    serverArgs({ maxTotalTokens: 16_384, threads: 1, maxRunningRequests: 64, ...overrides }),
    {
      version: '1.2.3',
      log: () => {},
      onProgress: () => {},
      startWorker: async (args, handlers) => (worker = await startWorker(args, handlers)),
    },
  );
  return { server, worker: worker! };
}

async function send(
  { server }: Running,
  path: string,
  body?: object,
): Promise<{ status: number; text: string; json: any }> {
  const response = await request(server.url + path, {
    method: body ? 'POST' : 'GET',
    dispatcher: agent,
    headers: { 'content-type': 'application/json' },
    body: body ? JSON.stringify(body) : null,
  });
  const text = await response.body.text();
  return { status: response.statusCode, text, json: /^[[{]/.test(text) ? safeParse(text) : undefined };
}

function safeParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

describe('the demo model', () => {
  let running: Running;
  beforeAll(async () => (running = await start()));
  afterAll(() => running.server.stop());

  const generate = async (body: object) => (await send(running, '/generate', body)).json;
  const lastEvent = async (body: object) => {
    const { text } = await send(running, '/generate', { ...body, stream: true });
    const payloads = text.split('\n\n').map((event) => event.replace(/^data: /, ''));
    expect(payloads.slice(-2)).toEqual(['[DONE]', '']);
    return JSON.parse(payloads.at(-3)!);
  };
  const withoutTimes = (answer: any) => {
    const { e2e_latency: _, cached_tokens: __, ...meta } = answer.meta_info;
    return { ...answer, meta_info: meta };
  };

  test("answers with the reference implementation's greedy tokens", async () => {
    const reference = JSON.parse(await readFile('tests/fixtures/demo/reference.json', 'utf8'));
    for (const sequence of reference.sequences) {
      const { ids, gap_to_second: gaps } = sequence.greedy_float32;
      const body = {
        text: sequence.text,
        sampling_params: { temperature: 0, max_new_tokens: ids.length, ignore_eos: true },
      };
      const answer = await generate(body);
      expect(answer.meta_info.prompt_tokens).toBe(sequence.input_ids.length);
      // A choice between two almost equal logits may go the other way in bf16.
      const sure = gaps.findIndex((gap: number) => gap < 0.5);
      const count = sure < 0 ? ids.length : sure;
      expect(answer.output_ids.slice(0, count)).toEqual(ids.slice(0, count));
    }
  });

  test('streams what it answers, with every kind of logprob', async () => {
    const body = {
      text: ['Tell me a joke', 'Once upon a time'],
      rid: ['a', 'b'],
      return_logprob: true,
      logprob_start_len: 0,
      top_logprobs_num: 2,
      token_ids_logprob: [1, 2],
      return_text_in_logprobs: true,
      sampling_params: { temperature: 0.8, top_p: 0.9, top_k: 40, sampling_seed: 7, max_new_tokens: 24 },
    };
    const whole = await generate(body);
    const { index, ...last } = await lastEvent(body);
    expect(withoutTimes(last)).toEqual(withoutTimes(whole[index]));
    const { meta_info } = whole[0];
    expect(meta_info.input_token_logprobs).toHaveLength(4);
    expect(meta_info.input_top_logprobs[0]).toBeNull();
    expect(meta_info.output_top_logprobs[5]).toHaveLength(2);
    expect(meta_info.output_token_ids_logprobs[5].map((entry: unknown[]) => entry[1])).toEqual([1, 2]);
    const text = meta_info.output_token_logprobs.map((entry: unknown[]) => entry[2]).join('');
    expect(text).toBe(whole[0].text);
  });

  test('scores a text with the very logprobs that generated it', async () => {
    const params = { temperature: 1, sampling_seed: 3 };
    const first = await generate({
      text: 'Once upon a time',
      return_logprob: true,
      sampling_params: { ...params, max_new_tokens: 40 },
    });
    const prompt = (await send(running, '/tokenize', { prompt: 'Once upon a time' })).json.tokens;
    await send(running, '/flush_cache', {});
    const scored = await generate({
      input_ids: [...prompt, ...first.output_ids],
      return_logprob: true,
      logprob_start_len: prompt.length - 1,
      sampling_params: { ...params, max_new_tokens: 0 },
    });
    expect(scored.meta_info.input_token_logprobs.slice(1)).toEqual(first.meta_info.output_token_logprobs);
  });

  test('n copies differ, and a reported seed makes one of them again', async () => {
    const body = { text: 'Tell me about ', sampling_params: { n: 4, max_new_tokens: 20, temperature: 1 } };
    const copies = await generate(body);
    expect(new Set(copies.map(({ text }: any) => text)).size).toBe(4);
    const sampling_seed = copies[2].meta_info.sampling_seed;
    const again = await generate({ ...body, sampling_params: { ...body.sampling_params, n: 1, sampling_seed } });
    expect(again.output_ids).toEqual(copies[2].output_ids);
  });

  test('a stop string ends the text, and nothing goes on in the worker', async () => {
    const body = {
      text: 'Tell me a joke',
      sampling_params: { temperature: 0, max_new_tokens: 200, stop: ['orders a'] },
    };
    const answer = await generate(body);
    expect(answer.text).toBe(' about a fox.\n\nA fox walks into a hotel and ');
    expect(answer.meta_info.finish_reason).toEqual({ type: 'stop', matched: 'orders a' });
    await untilIdle();
  });

  test('the model ends its answer by itself', async () => {
    const text = '<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n';
    const answer = await generate({ text, sampling_params: { temperature: 0, max_new_tokens: 100 } });
    expect(answer.text).toBe('The capital of France is Paris.');
    expect(answer.meta_info.finish_reason).toEqual({ type: 'stop', matched: 4095 });
  });

  test('a prompt is cached until the cache is flushed', async () => {
    const text = 'word '.repeat(100);
    const cached = async () =>
      (await generate({ text, sampling_params: { max_new_tokens: 1 } })).meta_info.cached_tokens;
    await send(running, '/flush_cache', {});
    expect(await cached()).toBe(0);
    expect(await cached()).toBeGreaterThanOrEqual(64);
    expect((await send(running, '/flush_cache')).status).toBe(200);
    expect(await cached()).toBe(0);
  });

  test('a client that disconnects frees the worker', async () => {
    const { hostname, port } = new URL(running.server.url);
    const json = JSON.stringify({
      text: 'a',
      stream: true,
      sampling_params: { max_new_tokens: 4000, ignore_eos: true },
    });
    const socket = connect(Number(port), hostname);
    socket.write(`POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: ${json.length}\r\n\r\n${json}`);
    await new Promise((resolve) => socket.once('data', resolve));
    socket.destroy();
    await untilIdle();
  });

  test('all kinds of parameters at once do not disturb each other', async () => {
    const kinds = [
      { temperature: 0 },
      { temperature: 0.7, top_k: 5, sampling_seed: 1 },
      { temperature: 1.3, top_p: 0.7, min_p: 0.01, sampling_seed: 2 },
      { temperature: 1, frequency_penalty: 1, presence_penalty: 0.5, repetition_penalty: 1.2, sampling_seed: 3 },
      { temperature: 1, logit_bias: { '256': -100, '13': 2 }, sampling_seed: 4 },
      { temperature: 0, min_new_tokens: 20, stop_token_ids: [13] },
    ].map((params) => ({ max_new_tokens: 30, ...params }));
    const prompts = kinds.map((_, i) => 'Once upon a time there was a dog. '.repeat(i + 1));
    const together = await generate({ text: prompts, return_logprob: true, sampling_params: kinds });
    for (const [i, sampling_params] of kinds.entries()) {
      const alone = await generate({
        text: prompts[i],
        rid: together[i].meta_info.id,
        return_logprob: true,
        sampling_params,
      });
      expect(withoutTimes(alone)).toEqual(withoutTimes(together[i]));
    }
    expect(together[5].output_ids.length).toBeGreaterThan(20);
  });

  async function untilIdle(): Promise<void> {
    let isIdle = false;
    await until(() => {
      void running.worker
        .status()
        .then(({ runningRequests, waitingRequests }) => (isIdle = runningRequests + waitingRequests === 0));
      return isIdle;
    });
  }
});

describe('a model without a tokenizer', () => {
  test('takes ids and gives ids', async () => {
    const model = 'tests/fixtures/qwen3-tiny';
    const running = await start({ modelPath: model, tokenizerPath: model, skipTokenizerInit: true });
    try {
      const { json } = await send(running, '/generate', {
        input_ids: [1, 2, 3],
        sampling_params: { temperature: 0, max_new_tokens: 3 },
      });
      expect(json).not.toHaveProperty('text');
      expect(json.output_ids).toHaveLength(3);
      expect((await send(running, '/health_generate')).status).toBe(200);
    } finally {
      await running.server.stop();
    }
  });
});
