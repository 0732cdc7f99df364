import { connect } from 'node:net';

import { afterEach, describe, expect, test } from '@jest/globals';

import { demoTokenizer, GREEDY, TestServer } from './test-server.js';

let server: TestServer;
afterEach(async () => server?.close());

/** A stream as it comes over the wire. */
async function readRaw(url: string, version: string): Promise<{ head: string; body: Buffer }> {
  const { hostname, port } = new URL(url);
  const body = JSON.stringify({ input_ids: [1], rid: 'x', stream: true });
  const lines = [`POST /generate ${version}`, 'host: x', 'connection: close', `content-length: ${body.length}`, '', body];
  const socket = connect(Number(port), hostname);
  socket.write(lines.join('\r\n'));
  const bytes = Buffer.concat(await socket.toArray());
  const headEnd = bytes.indexOf('\r\n\r\n');
  return { head: bytes.toString('latin1', 0, headEnd), body: bytes.subarray(headEnd + 4) };
}

/** The chunks of a whole body, which must end with the empty one. */
function readChunks(body: Buffer): string[] {
  const chunks: string[] = [];
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf('\r\n', at);
    const length = parseInt(body.toString('latin1', at, lineEnd), 16);
    const end = lineEnd + 2 + length;
    expect(body.toString('latin1', end, end + 2)).toBe('\r\n');
    if (length === 0) {
      expect(end + 2).toBe(body.length);
      return chunks;
    }
    chunks.push(body.toString('utf8', lineEnd + 2, end));
    at = end + 2;
  }
}

describe('streams', () => {
  test('events are cumulative and end with [DONE]', async () => {
    server = await TestServer.start();
    const { headers, events, done } = await server.stream({ input_ids: [10, 20], rid: 'x', sampling_params: GREEDY });
    expect(headers['content-type']).toBe('text/event-stream; charset=utf-8');
    expect(done).toBe(true);
    expect(events.map((event) => event.output_ids)).toEqual([[30], [30, 31], [30, 31, 32], [30, 31, 32, 33]]);
    expect(events.map((event) => event.text)).toEqual(
      [1, 2, 3, 4].map((n) => demoTokenizer.decode([30, 31, 32, 33].slice(0, n))),
    );
    expect(events.map((event) => event.meta_info.finish_reason)).toEqual([
      null,
      null,
      null,
      { type: 'length', length: 4 },
    ]);
    expect(events.map((event) => 'e2e_latency' in event.meta_info)).toEqual([false, false, false, true]);
    expect(events.every((event) => !('index' in event))).toBe(true);
  });

  test('the last event is the answer without streaming', async () => {
    server = await TestServer.start();
    server.answerWith('Grüße, 世界! 😀😁 e\u0301 and <|im_start|> more STOP here');
    const body = {
      text: 'a',
      rid: 'r',
      return_logprob: true,
      logprob_start_len: 0,
      top_logprobs_num: 1,
      sampling_params: { stop: ' STOP' },
    };
    const whole = (await server.generate(body)).json;
    const { events } = await server.stream(body);
    delete whole.meta_info.e2e_latency;
    delete events.at(-1).meta_info.e2e_latency;
    expect(events.at(-1)).toEqual(whole);
    for (const { text } of events) expect(whole.text.startsWith(text)).toBe(true);
  });

  test('characters come whole, stop strings not at all', async () => {
    server = await TestServer.start();
    server.answerWith('😀 ab😀 abcd');
    const { events } = await server.stream({ input_ids: [1], sampling_params: { stop: 'abcd' } });
    const texts = events.map(({ text }) => text);
    expect(texts.at(-1)).toBe('😀 ab😀 ');
    for (const text of texts) {
      expect('😀 ab😀 '.startsWith(text)).toBe(true);
      expect(text).not.toMatch(/\p{Surrogate}|\ufffd/u);
    }
  });

  test('items of a batch carry their index', async () => {
    server = await TestServer.start();
    const { events } = await server.stream({ input_ids: [[5], [9]], sampling_params: { ...GREEDY, n: 2 } });
    expect(new Set(events.map(({ index }) => index))).toEqual(new Set([0, 1, 2, 3]));
    for (const index of [0, 1, 2, 3]) {
      const own = events.filter((event) => event.index === index);
      expect(own.map(({ output_ids }) => output_ids.length)).toEqual([1, 2, 3, 4]);
      expect(own[0].output_ids[0]).toBe(index < 2 ? 5 : 9);
    }
    const [only] = (await server.stream({ input_ids: [[5]], sampling_params: GREEDY })).events;
    expect(only.index).toBe(0);
  });

  test('stream_interval: the first token, every third after it, and the end', async () => {
    server = await TestServer.start({ args: { streamInterval: 3 } });
    const { events } = await server.stream({ input_ids: [1], sampling_params: { temperature: 0, max_new_tokens: 9 } });
    expect(events.map(({ output_ids }) => output_ids.length)).toEqual([1, 4, 7, 9]);
  });

  test('over the wire: each event is a chunk of HTTP/1.1, and HTTP/1.0 has no chunks', async () => {
    server = await TestServer.start();
    server.answerWith('Grüße, 世界! 😀');
    const chunked = await readRaw(server.url, 'HTTP/1.1');
    const plain = await readRaw(server.url, 'HTTP/1.0');
    expect(chunked.head).toMatch(/^transfer-encoding: chunked\r?$/im);
    expect(plain.head).not.toMatch(/transfer-encoding/i);
    const chunks = readChunks(chunked.body);
    expect(chunks.length).toBeGreaterThan(3);
    for (const chunk of chunks) expect(chunk).toMatch(/^(data: .*\n\n)+$/);
    const withoutTimes = (text: string): string => text.replace(/"e2e_latency":[\d.e-]+/, '');
    expect(withoutTimes(chunks.join(''))).toBe(withoutTimes(plain.body.toString()));
    expect(chunks.at(-1)).toMatch(/data: \[DONE\]\n\n$/);
  });

  test('a bad value is a 400, not a stream', async () => {
    server = await TestServer.start();
    const { status, json } = await server.generate({ input_ids: [1], stream: true, sampling_params: { top_p: 2 } });
    expect(status).toBe(400);
    expect(json.error.message).toMatch(/top_p/);
  });
});
