import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { generate } from '../../../lib/client/generate.js';
import { HttpClient } from '../../../lib/client/http.js';
import { readServerFacts } from '../../../lib/client/server-facts.js';

let server: Server | null = null;
let client: HttpClient | null = null;

afterEach(async () => {
  await client?.close();
  server?.closeAllConnections();
  server?.close();
});

async function serve(listener: RequestListener): Promise<HttpClient> {
  server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = new HttpClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  return client;
}

async function eventsOf(connected: HttpClient): Promise<string[]> {
  const events: string[] = [];
  for await (const event of connected.events('/generate', {})) events.push(event);
  return events;
}

describe('errors name the endpoint and hold the words of the server', () => {
  test.each([
    [400, '{"error":{"message":"bad value"}}', 'GET /x answered with status 400: bad value'],
    [401, '{"error":"Unauthorized"}', 'GET /x answered with status 401: Unauthorized'],
    [404, '{"detail":"Not Found"}', 'GET /x answered with status 404: Not Found'],
    [400, '{"object":"error","message":"no body","code":400}', 'GET /x answered with status 400: no body'],
    [502, 'Bad  gateway\n', 'GET /x answered with status 502: Bad gateway'],
    [503, '', 'GET /x answered with status 503'],
  ])('%i %s', async (status, body, message) => {
    const connected = await serve((_, response) => response.writeHead(status).end(body));
    await expect(connected.json('GET', '/x')).rejects.toMatchObject({
      code: 'BAD_RESPONSE',
      httpStatus: status,
      message,
    });
  });

  test('no connection', async () => {
    const gone = new HttpClient('http://127.0.0.1:1');
    await expect(gone.json('GET', '/x')).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/^could not reach http:\/\/127\.0\.0\.1:1\/x: .*ECONNREFUSED/),
    });
    await gone.close();
  });

  test('a connection that breaks within the answer', async () => {
    const connected = await serve((_, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('{"a":', () => response.destroy());
    });
    await expect(connected.json('GET', '/x')).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });
});

describe('events', () => {
  test('survive chunks that cut events and characters', async () => {
    const bytes = Buffer.from('data: {"text":"Größe 😀"}\n\n: comment\n\ndata: 2\n\ndata: [DONE]\n\n');
    const connected = await serve(async (_, response) => {
      for (const byte of bytes) {
        response.write(Buffer.from([byte]));
        await new Promise(setImmediate);
      }
      response.end();
    });
    expect(await eventsOf(connected)).toEqual(['{"text":"Größe 😀"}', '2']);
  });

  test('without [DONE] are an error', async () => {
    const connected = await serve((_, response) => response.end('data: 1\n\n'));
    await expect(eventsOf(connected)).rejects.toThrow('ended without [DONE]');
  });
});

describe('generate', () => {
  const answer = (text: string): object => ({
    text,
    output_ids: [1],
    meta_info: { finish_reason: { type: 'length', length: 1 } },
  });

  test('keeps the order of a batch whose streams interleave', async () => {
    const connected = await serve((_, response) => {
      for (const [index, text] of [
        [1, 'b'],
        [0, 'a'],
        [1, 'bb'],
        [0, 'aa'],
      ] as const) {
        response.write(`data: ${JSON.stringify({ index, ...answer(text) })}\n\n`);
      }
      response.end('data: [DONE]\n\n');
    });
    const answers = await generate(connected, { prompts: ['x', 'y'], sampling: {}, stream: true });
    expect(answers.map(({ text }) => text)).toEqual(['aa', 'bb']);
  });

  test.each([
    ['{"text":"a"}', 'that is not a list'],
    ['[{"text":"a"}]', 'without meta_info'],
    ['[{"text":"a","meta_info":{"finish_reason":null}}]', 'not finished'],
    ['[{"meta_info":{"finish_reason":{"type":"stop"}}}]', 'neither text nor output_ids'],
    ['[null]', 'not an object'],
    ['[]', '1 prompts got 0 answers'],
    [
      '[{"text":"a","meta_info":{"finish_reason":{"type":"stop"},"output_token_logprobs":[["x",1,null]]}}]',
      'a logprob entry',
    ],
  ])('refuses %s', async (body, message) => {
    const connected = await serve((_, response) => response.end(body));
    await expect(generate(connected, { prompts: ['x'], sampling: {} })).rejects.toThrow(message);
  });

  test('an error within a stream', async () => {
    const connected = await serve((_, response) =>
      response.end('data: {"error":{"message":"worker died"}}\n\ndata: [DONE]\n\n'),
    );
    await expect(generate(connected, { prompts: ['x'], sampling: {}, stream: true })).rejects.toThrow('worker died');
  });
});

test('facts come from the older endpoints where the newer are missing', async () => {
  const bodies: Record<string, object> = {
    '/get_server_info': { version: '0.4', enable_deterministic_inference: true, attention_backend: 'fa3' },
    '/get_model_info': { model_path: 'Qwen/Qwen3-8B' },
    '/v1/models': { data: [{ id: 'x', max_model_len: 40960 }] },
  };
  const connected = await serve((request, response) => {
    const body = bodies[request.url ?? ''];
    response.writeHead(body ? 200 : 404).end(JSON.stringify(body ?? { detail: 'Not Found' }));
  });
  expect(await readServerFacts(connected)).toEqual({
    modelPath: 'Qwen/Qwen3-8B',
    version: '0.4',
    numericContract: null,
    device: null,
    attentionBackend: 'fa3',
    deterministic: true,
    skipTokenizerInit: false,
    vocabSize: null,
    contextLength: 40960,
  });
});
