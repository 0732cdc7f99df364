import { connect } from 'node:net';

import { afterEach, describe, expect, test } from '@jest/globals';

import { TestServer, until } from './test-server.js';

let server: TestServer;
afterEach(async () => server?.close());

const PROMPT = { input_ids: [1], sampling_params: { temperature: 0, max_new_tokens: 1 } };

async function expectAlive(): Promise<void> {
  expect((await server.generate(PROMPT)).status).toBe(200);
}

/** Sends bytes as they are and reads until the server closes. */
function raw(text: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket
      .on('data', (chunk) => (answer += chunk))
      .on('end', () => resolve(answer))
      .on('error', reject);
  });
}

describe('bodies that are no request', () => {
  test.each<[string, string | Buffer, Record<string, string>, number, RegExp]>([
    ['malformed JSON', '{"text": "a"', {}, 400, /not valid JSON/],
    ["Python's NaN", '{"text": "a", "sampling_params": {"temperature": NaN}}', {}, 400, /not valid JSON/],
    ['an empty body', '', {}, 400, /must be a JSON object, not null/],
    ['a list', '[]', {}, 400, /must be a JSON object, not a list/],
    [
      'another content type',
      '{"text": "a"}',
      { 'content-type': 'text/plain' },
      400,
      /text\/plain.*Content-Type: application\/json/,
    ],
    [
      'a form',
      'text=a',
      { 'content-type': 'application/x-www-form-urlencoded' },
      400,
      /application\/x-www-form-urlencoded/,
    ],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0x22]), {}, 400, /not valid UTF-8/],
    ['a deeply nested body', '['.repeat(200_000) + ']'.repeat(200_000), {}, 400, /must be a JSON object/],
    [
      'a deeply nested field',
      `{"text": ${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`,
      {},
      400,
      /text must be a string, not an object/,
    ],
    ['a huge body', Buffer.alloc(64 * 1024 * 1024 + 1, 32), {}, 413, /too large/],
  ])('%s', async (_, body, headers, status, message) => {
    server = await TestServer.start();
    const reply = await server.send('POST', '/generate', body, headers);
    expect(reply.status).toBe(status);
    expect(reply.json).toMatchObject({ object: 'error', type: 'Bad Request', code: status });
    expect(reply.json.message).toMatch(message);
    await expectAlive();
  });

  test('a wrong type names its field', async () => {
    server = await TestServer.start();
    const reply = await server.generate({ text: 'a', sampling_params: { top_p: 'x' } });
    expect(reply.status).toBe(400);
    expect(reply.json).toEqual({
      object: 'error',
      message: 'sampling_params.top_p must be a number, not "x".',
      type: 'Bad Request',
      param: 'sampling_params.top_p',
      code: 400,
    });
  });

  test('a bad value has a message and a code', async () => {
    server = await TestServer.start();
    const reply = await server.generate({ text: 'a', sampling_params: { top_p: 2 } });
    expect(reply.status).toBe(400);
    expect(reply.json).toEqual({
      error: { message: 'sampling_params.top_p must be greater than 0, at most 1; it is 2.', code: 'INVALID_REQUEST' },
    });
  });

  test('a charset, other JSON types and no content type are fine', async () => {
    server = await TestServer.start();
    for (const type of ['application/json; charset=utf-8', 'application/vnd.api+json', 'Application/JSON']) {
      expect((await server.send('POST', '/generate', PROMPT, { 'content-type': type })).status).toBe(200);
    }
    const body = JSON.stringify(PROMPT);
    const answer = await raw(
      `POST /generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('garbage instead of HTTP', async () => {
    server = await TestServer.start();
    expect(await raw('\x16\x03\x01 hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    await expectAlive();
  });

  test('a body that never comes whole', async () => {
    server = await TestServer.start();
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.write(
      'POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"te',
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    await expectAlive();
    expect(server.worker.submitted).toHaveLength(1);
  });
});

describe('unknown routes', () => {
  test('404 names the closest ones', async () => {
    server = await TestServer.start();
    const { status, json } = await server.send('POST', '/generat', PROMPT);
    expect(status).toBe(404);
    expect(json).toMatchObject({ object: 'error', type: 'NotFound', code: 404 });
    expect(json.message).toMatch(/There is no POST \/generat\. The closest are: POST or PUT \/generate, /);
    expect((await server.send('GET', '/v1/model')).json.message).toMatch(/GET \/v1\/models/);
    expect((await server.send('GET', `/${'x'.repeat(5000)}`)).status).toBe(404);
  });

  test('another method says which one to use', async () => {
    server = await TestServer.start();
    const { status, json } = await server.send('GET', '/generate');
    expect([status, json.message]).toEqual([404, 'GET is not possible here; use POST or PUT /generate.']);
  });
});

describe('before the model is loaded', () => {
  test('health is 503, so is everything else', async () => {
    server = await TestServer.start({ isLoading: true });
    expect(await server.send('GET', '/health')).toMatchObject({ status: 503, text: '' });
    expect(await server.send('GET', '/health_generate')).toMatchObject({ status: 503, text: '' });
    for (const path of ['/server_info', '/model_info', '/v1/models', '/flush_cache']) {
      const { status, json } = await server.send('GET', path);
      expect([path, status, json.error.code]).toEqual([path, 503, 'NOT_READY']);
    }
    const { status, json } = await server.generate(PROMPT);
    expect([status, json.error.code]).toEqual([503, 'NOT_READY']);
    server.frontend.attach(server.workers);
    expect(await server.send('GET', '/health')).toMatchObject({ status: 200, text: '' });
    await expectAlive();
  });
});

describe('/health_generate', () => {
  test('runs one token and leaves nothing behind', async () => {
    server = await TestServer.start({ args: { maxQueuedRequests: 0 }, info: { maxRunningRequests: 0 } });
    expect(await server.send('GET', '/health_generate')).toMatchObject({ status: 200, text: '' });
    expect(server.worker.submitted).toMatchObject([{ stop: { maxNewTokens: 1 } }]);
    expect(server.worker.liveCount).toBe(0);
  });

  test('a worker that is busy with others is alive', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const other = server.generate({ input_ids: [5], sampling_params: { max_new_tokens: 3 } });
    await until(() => server.worker.liveCount === 1);
    const health = server.send('GET', '/health_generate');
    await until(() => server.worker.liveCount === 2);
    server.worker.step();
    expect((await health).status).toBe(200);
    server.worker.resume();
    expect((await other).json.output_ids).toHaveLength(3);
  });
});

describe('info', () => {
  test('/server_info and /get_server_info: arguments, engine, scheduler, version, contract', async () => {
    server = await TestServer.start();
    const { json } = await server.send('GET', '/server_info');
    expect(json).toMatchObject({
      model_path: 'models/demo',
      enable_deterministic_inference: true,
      skip_tokenizer_init: false,
      context_length: 512,
      chunked_prefill_size: -1,
      attention_backend: 'fa3',
      dtype: 'auto',
      max_total_tokens: 4096,
      max_total_num_tokens: 4096,
      numeric_contract: 'detinfer-numerics/1',
      vocab_size: 4096,
      version: '1.2.3',
      scheduler: { running_requests: 0, cache_hit_rate: 0 },
      internal_states: [{ running_requests: 0 }],
    });
    expect((await server.send('GET', '/get_server_info')).json).toEqual(json);
  });

  test('/model_info and /get_model_info', async () => {
    server = await TestServer.start({ args: { weightVersion: 'v7' } });
    const { json } = await server.send('GET', '/model_info');
    expect(json).toEqual({
      model_path: 'models/demo',
      tokenizer_path: 'models/demo',
      is_generation: true,
      preferred_sampling_params: null,
      weight_version: 'v7',
      model_type: 'fake',
      architectures: ['FakeForCausalLM'],
      vocab_size: 4096,
      context_length: 512,
    });
    expect((await server.send('GET', '/get_model_info')).json).toEqual(json);
    expect((await server.generate(PROMPT)).json.meta_info.weight_version).toBe('v7');
  });

  test('/v1/models', async () => {
    server = await TestServer.start({ args: { servedModelName: 'demo' } });
    expect((await server.send('GET', '/v1/models')).json).toEqual({
      object: 'list',
      data: [
        expect.objectContaining({
          id: 'demo',
          object: 'model',
          owned_by: 'detinfer',
          root: 'models/demo',
          max_model_len: 512,
        }),
      ],
    });
  });

  test('/v1/models/NAME, with slashes as they are or escaped', async () => {
    server = await TestServer.start({ args: { servedModelName: 'Qwen/Qwen3-8B' } });
    for (const name of ['Qwen/Qwen3-8B', 'Qwen%2FQwen3-8B']) {
      const { status, json } = await server.send('GET', `/v1/models/${name}`);
      expect([status, json.id]).toEqual([200, 'Qwen/Qwen3-8B']);
    }
    const { status, json } = await server.send('GET', '/v1/models/Qwen/other');
    expect(status).toBe(404);
    expect(json.message).toBe('There is no model Qwen/other; this server has Qwen/Qwen3-8B.');
  });
});

describe('/tokenize and /detokenize', () => {
  test('one text and many', async () => {
    server = await TestServer.start();
    const post = async (path: string, body: object) => (await server.send('POST', path, body)).json;
    expect(await post('/tokenize', { prompt: 'Hello, world!' })).toEqual({
      tokens: [871, 11, 820, 0],
      count: 4,
      max_model_len: 512,
    });
    expect(await post('/v1/tokenize', { text: ['Hello', ''], model: 'x' })).toEqual({
      tokens: [[871], []],
      count: [1, 0],
      max_model_len: 512,
    });
    expect(await post('/detokenize', { tokens: [871, 11, 4095] })).toEqual({ text: 'Hello,', prompt: 'Hello,' });
    expect(await post('/v1/detokenize', { tokens: [[871], []] })).toMatchObject({ text: ['Hello', ''] });
    expect((await post('/detokenize', { tokens: [4095], skip_special_tokens: false })).text).toBe('<|im_end|>');
    expect((await post('/detokenize', { tokens: [] })).text).toBe('');
  });

  test.each<[string, object, RegExp]>([
    ['/tokenize', {}, /Give prompt/],
    ['/tokenize', { prompt: 5 }, /prompt must be a string/],
    ['/detokenize', {}, /Give tokens/],
    ['/detokenize', { tokens: [4096] }, /tokens\[0\] must be a token id between 0 and 4095/],
    ['/detokenize', { tokens: 'a' }, /tokens must be a list/],
  ])('%s %j is refused', async (path, body, message) => {
    server = await TestServer.start();
    const { status, json } = await server.send('POST', path, body);
    expect(status).toBe(400);
    expect(json.message ?? json.error.message).toMatch(message);
  });

  test('without a tokenizer they are refused', async () => {
    server = await TestServer.start({ args: { skipTokenizerInit: true } });
    expect((await server.send('POST', '/tokenize', { prompt: 'a' })).json.error.message).toMatch(/without a tokenizer/);
    expect((await server.send('POST', '/detokenize', { tokens: [1] })).status).toBe(400);
  });
});

describe('/flush_cache', () => {
  test('by GET and POST', async () => {
    server = await TestServer.start();
    for (const method of ['GET', 'POST'] as const) {
      const { status, text, headers } = await server.send(method, '/flush_cache');
      expect([status, text, headers['content-type']]).toEqual([200, 'the prefix cache is empty\n', 'text/plain; charset=utf-8']);
    }
    expect((await server.send('POST', '/flush_cache', {})).status).toBe(200);
  });

  test('400 while requests run; with a timeout it waits', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const running = server.generate(PROMPT);
    await until(() => server.worker.liveCount === 1);
    expect(await server.send('POST', '/flush_cache')).toMatchObject({ status: 400, text: 'requests run\n' });
    expect((await server.send('GET', '/flush_cache?timeout=0.05')).status).toBe(400);
    const { flushes } = server.worker;
    const waiting = server.send('POST', '/flush_cache?timeout=20');
    await until(() => server.worker.flushes > flushes);
    server.worker.resume();
    expect((await waiting).status).toBe(200);
    expect((await running).status).toBe(200);
  });

  test.each(['x', '', '-1', 'NaN', '1e9'])('timeout=%s is refused', async (timeout) => {
    server = await TestServer.start();
    expect((await server.send('GET', `/flush_cache?timeout=${timeout}`)).status).toBe(400);
  });
});
