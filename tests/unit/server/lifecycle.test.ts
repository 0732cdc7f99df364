import { connect, type Socket } from 'node:net';

import { afterEach, describe, expect, test } from '@jest/globals';

import { DetinferError } from '../../../lib/protocol/errors.js';
import { TestServer, until } from './test-server.js';

let server: TestServer;
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server?.close();
});

const LONG = { temperature: 0, max_new_tokens: 400 };

/** Sends a request and leaves the answer unread. */
function sendOnly(body: object): Socket {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  sockets.push(socket);
  socket.pause();
  const json = JSON.stringify(body);
  const headers = ['Host: x', 'Content-Type: application/json', `Content-Length: ${json.length}`];
  socket.write(`POST /generate HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n${json}`);
  return socket;
}

describe('a client that disconnects', () => {
  test.each([false, true])('aborts its requests at the worker, stream %s', async (stream) => {
    server = await TestServer.start();
    server.worker.pause();
    const socket = sendOnly({ input_ids: [[1], [2]], rid: 'mine', stream, sampling_params: LONG });
    await until(() => server.worker.liveCount === 2);
    server.worker.step();
    socket.destroy();
    await until(() => server.worker.liveCount === 0);
    expect(server.worker.aborted.map(({ message }) => message)).toEqual([
      'the client disconnected',
      'the client disconnected',
    ]);
    server.worker.resume();
    // Its name is free again.
    expect(
      (await server.generate({ input_ids: [1], rid: 'mine_0', sampling_params: { max_new_tokens: 1 } })).status,
    ).toBe(200);
  });

  test('a finished answer aborts nothing', async () => {
    server = await TestServer.start();
    await server.stream({ input_ids: [1], sampling_params: LONG });
    await server.generate({ input_ids: [1], sampling_params: LONG });
    expect(server.worker.aborted).toEqual([]);
  });
});

describe('a client that reads slowly', () => {
  test('gets the whole text at last, and no more than one event is kept for it', async () => {
    server = await TestServer.start({ info: { contextLength: 60_000, maxTotalTokens: 60_000 } });
    server.worker.tokensPerStep = 10;
    const socket = sendOnly({
      input_ids: [1],
      stream: true,
      sampling_params: { temperature: 0, max_new_tokens: 20_000 },
    });
    await until(() => server.worker.submitted.length === 1);
    await until(() => server.worker.liveCount === 0);
    let received = 0;
    let tail = '';
    await new Promise<void>((resolve) => {
      socket.on('data', (chunk) => {
        received += chunk.length;
        tail = (tail + chunk.toString('latin1')).slice(-400_000);
        if (tail.includes('data: [DONE]\n\n')) resolve();
      });
      socket.resume();
    });
    const events = tail.split('data: ');
    const last = JSON.parse(
      events
        .at(-2)!
        .replace(/\r\n[0-9a-f]+\r\n/g, '')
        .trim(),
    );
    expect(last.output_ids).toHaveLength(20_000);
    // All 2000 events would be some 200 MB; the socket's buffers hold a few of them.
    expect(received).toBeLessThan(40e6);
  });
});

describe('/abort_request', () => {
  const paused = async () => {
    server = await TestServer.start();
    server.worker.pause();
    const answers = [
      server.generate({ input_ids: [[1], [2]], rid: 'batch', sampling_params: LONG }),
      server.generate({ input_ids: [3], rid: 'copies', sampling_params: { ...LONG, n: 2 } }),
      server.generate({ input_ids: [4], rid: 'copies_not', sampling_params: LONG }),
    ] as const;
    await until(() => server.worker.liveCount === 5);
    server.worker.step();
    return answers;
  };
  const abort = (body: object) => server.send('POST', '/abort_request', body);

  test('ends a request by its name with what it has so far', async () => {
    const [batch, copies, other] = await paused();
    expect(await abort({ rid: 'copies_not' })).toMatchObject({ status: 200, text: '' });
    expect((await other).json).toMatchObject({
      output_ids: [4],
      meta_info: { id: 'copies_not', finish_reason: { type: 'abort', message: 'aborted by /abort_request' } },
    });
    await abort({ rid: 'batch_1' });
    await abort({ rid: 'copies' });
    expect((await copies).json.map((item: any) => item.meta_info.finish_reason.type)).toEqual(['abort', 'abort']);
    expect(server.worker.liveCount).toBe(1);
    await abort({ rid: 'batch' });
    expect((await batch).json.map((item: any) => item.meta_info.finish_reason.type)).toEqual(['abort', 'abort']);
  });

  test('abort_all ends everything', async () => {
    const answers = await paused();
    await abort({ abort_all: true });
    for (const { status, json } of await Promise.all(answers)) {
      expect(status).toBe(200);
      expect([json].flat().every((item: any) => item.meta_info.finish_reason.type === 'abort')).toBe(true);
    }
  });

  test('an unknown name is fine, none is not', async () => {
    server = await TestServer.start();
    expect((await abort({ rid: 'nobody' })).status).toBe(200);
    expect((await abort({})).json.error.message).toMatch(/rid.*abort_all/);
    expect((await abort({ rid: 5 })).json.param).toBe('rid');
  });

  test('a stream ends with a regular event', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const streaming = server.stream({ input_ids: [4], rid: 'x', sampling_params: LONG });
    await until(() => server.worker.liveCount === 1);
    server.worker.step();
    await abort({ rid: 'x' });
    const { events, done } = await streaming;
    expect(done).toBe(true);
    expect(events.at(-1)).toMatchObject({ output_ids: [4], meta_info: { finish_reason: { type: 'abort' } } });
  });
});

describe('request ids', () => {
  test('one that a copy of another prompt has is refused', async () => {
    server = await TestServer.start();
    const body = { input_ids: [[1], [2]], rid: ['x', 'x_0'] };
    const { status, json } = await server.generate({ ...body, sampling_params: [{ n: 2 }, { n: 1 }] });
    expect(status).toBe(400);
    expect(json.error.message).toBe('rid "x_0" names two answers of this request; choose others.');
    expect((await server.generate({ ...body, sampling_params: { max_new_tokens: 1 } })).status).toBe(200);
  });

  test('one that is in use is refused, and free again afterwards', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const first = server.generate({ input_ids: [1], rid: 'x', sampling_params: LONG });
    await until(() => server.worker.liveCount === 1);
    const { status, json } = await server.generate({ input_ids: [[1], [2]], rid: ['y', 'x'], sampling_params: LONG });
    expect(status).toBe(400);
    expect(json.error.message).toMatch(/rid "x" is in use/);
    expect(server.worker.submitted).toHaveLength(1);
    server.worker.resume();
    expect((await first).status).toBe(200);
    expect((await server.generate({ input_ids: [[1], [2]], rid: ['y', 'x'], sampling_params: LONG })).status).toBe(200);
  });

  test('a name is free as soon as the answer is there, though the worker has not ended the request', async () => {
    server = await TestServer.start();
    server.worker.script = () => [871, 11];
    const body = { input_ids: [1], rid: 'x', sampling_params: { stop: 'Hello' } };
    for (let i = 0; i < 5; ++i) expect((await server.generate(body)).status).toBe(200);
    const ids = server.worker.submitted.map(({ id }) => id);
    expect(new Set(ids).size).toBe(5);
  });
});

describe('overload', () => {
  test('more than --max-queued-requests waiting: 503 for the whole request', async () => {
    server = await TestServer.start({ args: { maxQueuedRequests: 2 }, info: { maxRunningRequests: 1 } });
    server.worker.pause();
    const running = server.generate({ input_ids: [[1], [2]], sampling_params: LONG });
    await until(() => server.worker.liveCount === 2);
    const { status, json } = await server.generate({ input_ids: [3], sampling_params: { ...LONG, n: 2 } });
    expect([status, json.error.code]).toEqual([503, 'OVERLOADED']);
    const fits = server.generate({ input_ids: [3], sampling_params: LONG });
    await until(() => server.worker.liveCount === 3);
    server.worker.resume();
    expect((await running).status).toBe(200);
    expect((await fits).status).toBe(200);
  });

  test.each([false, true])('what the worker refuses fails the whole request, stream %s', async (stream) => {
    server = await TestServer.start();
    server.worker.failures.set(7, { type: 'abort', message: 'too many', code: 'OVERLOADED' });
    const body = { input_ids: [[1], [7], [2]], sampling_params: LONG };
    if (stream) {
      const { events, done } = await server.stream(body);
      expect(events.at(-1)).toEqual({ error: { message: 'too many', code: 'OVERLOADED' } });
      expect(done).toBe(true);
    } else {
      const { status, json } = await server.generate(body);
      expect([status, json]).toEqual([503, { error: { message: 'too many', code: 'OVERLOADED' } }]);
    }
    await until(() => server.worker.liveCount === 0);
    expect(server.worker.aborted).toHaveLength(2);
  });
});

describe('the death of the worker', () => {
  test('ends live requests with an error, new ones too, and health says 503', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const plain = server.generate({ input_ids: [[1], [2]], sampling_params: LONG });
    const streaming = server.stream({ input_ids: [3], sampling_params: LONG });
    await until(() => server.worker.liveCount === 3);
    server.worker.step();
    server.frontend.fail(new DetinferError('WORKER_DIED', 'the worker process was killed'));
    const error = { error: { message: 'the worker process was killed', code: 'WORKER_DIED' } };
    expect(await plain).toMatchObject({ status: 500, json: error });
    const { events, done } = await streaming;
    expect(events).toMatchObject([{ output_ids: [3] }, error]);
    expect(done).toBe(true);
    expect(await server.generate({ input_ids: [1] })).toMatchObject({ status: 500, json: error });
    expect((await server.send('GET', '/health')).status).toBe(503);
    expect((await server.send('GET', '/health_generate')).status).toBe(503);
  });

  test('during a health check', async () => {
    server = await TestServer.start();
    server.worker.pause();
    const health = server.send('GET', '/health_generate');
    await until(() => server.worker.liveCount === 1);
    server.frontend.fail(new DetinferError('WORKER_DIED', 'gone'));
    expect((await health).status).toBe(503);
  });
});

describe('many streams', () => {
  test('64 at once are all right', async () => {
    server = await TestServer.start();
    const params = { temperature: 0, max_new_tokens: 40 };
    const streams = Array.from({ length: 64 }, (_, i) => server.stream({ input_ids: [i], sampling_params: params }));
    for (const [i, { events, done }] of (await Promise.all(streams)).entries()) {
      expect(done).toBe(true);
      expect(events).toHaveLength(40);
      expect(events.at(-1).output_ids).toEqual(Array.from({ length: 40 }, (_, k) => i + k));
    }
  });
});

describe('--log-requests', () => {
  test('logs a request and its end, not its text', async () => {
    server = await TestServer.start({ args: { logRequests: true } });
    await server.generate({ text: 'secret', rid: 'x', sampling_params: { temperature: 0, max_new_tokens: 2 } });
    expect(server.lines).toEqual([
      expect.stringMatching(/^info request x: 3 prompt tokens, .*"maxNewTokens":2/),
      'info request x: ended after 2 tokens, {"type":"length","length":2}',
    ]);
  });
});
