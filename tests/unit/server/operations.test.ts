import { afterEach, describe, expect, test } from '@jest/globals';

import { TestServer, until } from './test-server.js';

let server: TestServer;
afterEach(() => server?.close());

const LONG = { temperature: 0, max_new_tokens: 400 };

describe('--api-key', () => {
  const KEY = 'correct horse';
  const get = (path: string, authorization?: string) =>
    server.send('GET', path, undefined, authorization === undefined ? {} : { authorization });

  test('asks every endpoint but those of probes for it', async () => {
    server = await TestServer.start({ args: { apiKey: KEY, enableMetrics: true } });
    for (const path of ['/server_info', '/v1/models', '/flush_cache', '/no_such_path', '/healthy', '/metricsx']) {
      for (const authorization of [undefined, KEY, `Basic ${KEY}`, `Bearer ${KEY} `, 'Bearer ', 'Bearer wrong horse']) {
        const { status, text } = await get(path, authorization);
        // Node's client trims what stands around a header.
        if (authorization === `Bearer ${KEY} `) continue;
        expect([path, authorization, status, text]).toEqual([path, authorization, 401, '{"error":"Unauthorized"}']);
      }
    }
    expect((await server.generate({ input_ids: [1] })).status).toBe(401);
    const { status, text } = await server.send('POST', '/v1/completions', { prompt: [1] });
    expect([status, text]).toEqual([401, '{"error":"Unauthorized"}']);
    for (const path of ['/health', '/health_generate', '/metrics', '/health?x=1']) expect((await get(path)).status).toBe(200);
  });

  test('lets those in who have it, and shows it to nobody', async () => {
    server = await TestServer.start({ args: { apiKey: KEY } });
    const authorization = `Bearer ${KEY}`;
    expect((await server.send('POST', '/generate', { input_ids: [1] }, { authorization })).status).toBe(200);
    const { status, text, json } = await get('/server_info', authorization);
    expect([status, json.api_key, text.includes(KEY)]).toEqual([200, '***', false]);
  });

  test('without it nobody is asked', async () => {
    server = await TestServer.start();
    const { status, json } = await get('/server_info');
    expect([status, 'api_key' in json]).toEqual([200, false]);
  });
});

describe('/metrics', () => {
  /** The samples of the text format by name and labels. */
  async function samples(): Promise<Record<string, number>> {
    const { status, headers, text } = await server.send('GET', '/metrics');
    expect([status, headers['content-type']]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return Object.fromEntries(
      lines.map((line) => {
        const [, name, labels = '', value] = /^([a-z_:0-9]+)(?:\{(.*)\})? (\S+)$/.exec(line)!;
        return [name + labels.replace(/,?model_name="m"/, '').replace(/^(.+)$/, '{$1}'), Number(value)];
      }),
    );
  }

  test('is there only when it is asked for', async () => {
    server = await TestServer.start();
    expect((await server.send('GET', '/metrics')).status).toBe(404);
  });

  test('counts requests, tokens and latencies', async () => {
    server = await TestServer.start({ args: { enableMetrics: true } });
    await server.generate({ input_ids: [[1, 2, 3], [4]], sampling_params: { temperature: 0, max_new_tokens: 5, n: 2 } });
    await server.stream({ input_ids: [1], sampling_params: { temperature: 0, max_new_tokens: 1 } });
    await server.send('GET', '/health_generate');
    expect((await server.generate({ input_ids: [] })).status).toBe(400);
    expect(await samples()).toMatchObject({
      'sglang:num_requests_total': 5,
      'sglang:num_aborted_requests_total': 0,
      'sglang:prompt_tokens_total': 9,
      'sglang:generation_tokens_total': 21,
      'sglang:cached_tokens_total': 0,
      'sglang:time_to_first_token_seconds_count': 5,
      'sglang:inter_token_latency_seconds_count': 16,
      'sglang:time_per_output_token_seconds_count': 4,
      'sglang:e2e_request_latency_seconds_count': 5,
      'sglang:num_running_reqs': 0,
      'sglang:num_queue_reqs': 0,
      'sglang:token_usage': 0,
      'sglang:cache_hit_rate': 0,
      'detinfer:workers_ready': 1,
      'detinfer:worker_deaths_total': 0,
      'detinfer:replays_total': 0,
      'detinfer:http_responses_total{code="200"}': 3,
      'detinfer:http_responses_total{code="400"}': 1,
      'detinfer:build_info{version="1.2.3",numeric_contract="c/1"}': 1,
    });
  });

  test('shows what runs, what was aborted, and what was replayed', async () => {
    server = await TestServer.start({ args: { enableMetrics: true } });
    server.worker.pause();
    const answer = server.generate({ input_ids: [[1], [2]], sampling_params: LONG });
    await until(() => server.worker.liveCount === 2);
    expect(await samples()).toMatchObject({ 'sglang:num_running_reqs': 2, 'sglang:num_requests_total': 0 });
    server.worker.die();
    await until(() => server.worker.liveCount === 2);
    await server.send('POST', '/abort_request', { abort_all: true });
    await answer;
    expect(await samples()).toMatchObject({
      'sglang:num_running_reqs': 0,
      'sglang:num_requests_total': 2,
      'sglang:num_aborted_requests_total': 2,
      'detinfer:worker_deaths_total': 1,
      'detinfer:replays_total': 2,
    });
  });

  test('answers while the model loads', async () => {
    server = await TestServer.start({ args: { enableMetrics: true }, isLoading: true });
    expect(await samples()).toMatchObject({ 'detinfer:workers_ready': 0, 'sglang:num_running_reqs': 0 });
  });
});

describe('limits', () => {
  test('--max-body-size', async () => {
    server = await TestServer.start({ args: { maxBodySize: 2000 } });
    const body = (length: number) => ({ text: 'a'.repeat(length), sampling_params: { max_new_tokens: 1 } });
    expect((await server.generate(body(1900))).status).not.toBe(413);
    expect(await server.generate(body(2000))).toMatchObject({ status: 413, json: { code: 413 } });
  });

  test.each([false, true])('--request-timeout ends a request with 504, stream %s', async (stream) => {
    server = await TestServer.start({ args: { requestTimeout: 0.2 } });
    server.worker.pause();
    const error = { error: { code: 'TIMED_OUT', message: 'The request took more than 0.2 s (--request-timeout).' } };
    const body = { input_ids: [[1], [2]], sampling_params: LONG };
    if (stream) expect((await server.stream(body)).events).toEqual([error]);
    else expect(await server.generate(body)).toMatchObject({ status: 504, json: error });
    await until(() => server.worker.liveCount === 0);
    // One that is quick enough is left alone.
    server.worker.resume();
    expect((await server.generate({ ...body, sampling_params: { max_new_tokens: 1 } })).status).toBe(200);
  });

  test('a 503 says when to come again', async () => {
    server = await TestServer.start({ isLoading: true });
    for (const [path, body] of [
      ['/generate', { input_ids: [1] }],
      ['/v1/completions', { prompt: [1] }],
    ] as const) {
      const { status, headers } = await server.send('POST', path, body);
      expect([path, status, headers['retry-after']]).toEqual([path, 503, '1']);
    }
  });
});
