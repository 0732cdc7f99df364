import { afterEach, describe, expect, test } from '@jest/globals';

import { DetinferError } from '../../../lib/protocol/errors.js';
import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { type RunningServer, type ServerOptions, startServer } from '../../../lib/server/server.js';
import type { WorkerHandlers } from '../../../lib/worker/supervisor.js';
import { FakeWorker } from './fake-worker.js';
import { serverArgs, until } from './test-server.js';

let running: RunningServer | undefined;
afterEach(async () => {
  await running?.stop();
  running = undefined;
});

/** Starts a server with a fake worker that loads when it is told to. */
function begin(overrides: Partial<ServerArgs> = {}) {
  const worker = new FakeWorker();
  let handlers: WorkerHandlers | undefined;
  let load!: (outcome: FakeWorker | Error) => void;
  const loaded = new Promise<FakeWorker | Error>((resolve) => (load = resolve));
  let restart!: (outcome: FakeWorker | Error) => void;
  const restarted = new Promise<FakeWorker | Error>((resolve) => (restart = resolve));
  const progress: number[] = [];
  const options: ServerOptions = {
    version: '1.2.3',
    log: () => {},
    onProgress: (done) => progress.push(done),
    async startWorker(_args, given) {
      const isFirst = handlers === undefined;
      handlers = given;
      const outcome = await (isFirst ? loaded : restarted);
      if (outcome instanceof Error) throw outcome;
      outcome.handlers = given;
      return outcome;
    },
  };
  const starting = startServer(serverArgs(overrides), options);
  starting.catch(() => {});
  return { worker, starting, load, restart, progress, handlers: () => handlers };
}

async function start(overrides: Partial<ServerArgs> = {}) {
  const begun = begin(overrides);
  begun.load(begun.worker);
  running = await begun.starting;
  return { ...begun, server: running };
}

async function generate(server: RunningServer, params: object = {}) {
  const response = await fetch(`${server.url}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ input_ids: [1], sampling_params: { temperature: 0, max_new_tokens: 2, ...params } }),
  });
  return { status: response.status, json: (await response.json()) as any };
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const { server } = await start();
  await server.stop();
  running = undefined;
  return Number(new URL(server.url).port);
}

describe('starting', () => {
  test('listens while the model loads, and is ready when it resolves', async () => {
    const port = await freePort();
    const { worker, starting, load, handlers, progress } = begin({ port });
    await until(() => handlers() !== undefined);
    const health = async () => (await fetch(`http://127.0.0.1:${port}/health`)).status;
    expect(await health()).toBe(503);
    handlers()!.onProgress(5, 10);
    expect(progress).toEqual([5]);
    load(worker);
    running = await starting;
    expect(await health()).toBe(200);
    expect(running.url).toBe(`http://127.0.0.1:${port}`);
    expect(running.info).toBe(worker.info);
  });

  test('sends itself a request, unless told not to', async () => {
    const { worker } = await start({ skipServerWarmup: false });
    expect(worker.submitted).toHaveLength(1);
    await running!.stop();
    expect((await start({ skipServerWarmup: true })).worker.submitted).toEqual([]);
  });

  test.each([
    [1, [0], 0],
    [2, [0], 1],
    [4, [0, 1, 2], 1],
    [9, [0, 1, 2, 3], 5],
    [512, [0, 1, 2, 3], 8],
  ])('the request fits into a context of %s tokens', async (contextLength, inputIds, maxNewTokens) => {
    const { worker, starting, load } = begin({ skipServerWarmup: false });
    Object.assign(worker.info, { contextLength });
    load(worker);
    running = await starting;
    expect(worker.submitted).toMatchObject([{ inputIds, stop: { maxNewTokens } }]);
  });

  test('port 0 is any free port', async () => {
    const { server } = await start({ port: 0 });
    expect(Number(new URL(server.url).port)).toBeGreaterThan(0);
    expect((await generate(server)).status).toBe(200);
  });

  test('a port in use is a clear error', async () => {
    const { server } = await start();
    const port = Number(new URL(server.url).port);
    await expect(begin({ port }).starting).rejects.toMatchObject({
      code: 'INVALID_FLAG',
      message: expect.stringMatching(/can't listen on 127\.0\.0\.1:\d+.*EADDRINUSE/),
    });
  });

  test('a folder without a tokenizer is a clear error', async () => {
    await expect(begin({ tokenizerPath: 'tests/fixtures/qwen3-tiny' }).starting).rejects.toMatchObject({
      code: 'INVALID_MODEL',
    });
    const { server } = await start({ tokenizerPath: 'tests/fixtures/qwen3-tiny', skipTokenizerInit: true });
    expect((await generate(server)).json).not.toHaveProperty('text');
  });

  test('a model that can not be loaded leaves nothing behind', async () => {
    const port = await freePort();
    const { starting, load } = begin({ port });
    load(new DetinferError('INVALID_WEIGHTS', 'broken'));
    await expect(starting).rejects.toMatchObject({ code: 'INVALID_WEIGHTS', message: 'broken' });
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
  });

  test('a failing warm-up is a failing start, and ends the worker', async () => {
    const { worker, starting, load } = begin({ skipServerWarmup: false });
    worker.failures.set(0, { type: 'abort', message: 'no memory', code: 'OUT_OF_MEMORY' });
    load(worker);
    await expect(starting).rejects.toMatchObject({ code: 'OUT_OF_MEMORY', message: 'no memory' });
    expect(worker.isShutDown).toBe(true);
  });
});

describe('stopping', () => {
  test('lets a request end, then ends the worker and stops listening', async () => {
    const { server, worker } = await start();
    worker.pause();
    const answer = generate(server);
    await until(() => worker.liveCount === 1);
    const stopped = server.stop();
    expect(server.stop()).toBe(stopped);
    worker.resume();
    expect((await answer).status).toBe(200);
    await stopped;
    expect(worker.isShutDown).toBe(true);
    await expect(fetch(server.url)).rejects.toThrow();
  });

  test('a request that does not end in time gets a 503', async () => {
    const { server, worker } = await start({ drainTimeout: 0.2 });
    worker.pause();
    const answer = generate(server);
    await until(() => worker.liveCount === 1);
    await server.stop();
    expect(await answer).toMatchObject({ status: 503, json: { error: { code: 'SHUTTING_DOWN' } } });
  });
});

describe('the end of a worker', () => {
  test('is not seen in the answer; health says when another is there, and requests wait for it', async () => {
    const { server, worker, restart } = await start();
    worker.pause();
    const answer = generate(server, { max_new_tokens: 5 });
    await until(() => worker.liveCount === 1);
    worker.step();
    worker.step();
    worker.die();
    expect((await fetch(`${server.url}/health`)).status).toBe(503);
    const late = generate(server);
    const next = new FakeWorker();
    restart(next);
    expect((await answer).json).toMatchObject({ output_ids: [1, 2, 3, 4, 5], meta_info: { finish_reason: { length: 5 } } });
    expect((await late).json.output_ids).toEqual([1, 2]);
    expect(next.submitted.map(({ outputIds }) => outputIds)).toEqual([[1, 2], []]);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  test('ends the server when no other can be started: requests get the error, then `closed` resolves to it', async () => {
    const { server, worker, restart } = await start();
    worker.pause();
    const answer = generate(server);
    await until(() => worker.liveCount === 1);
    worker.die();
    restart(new DetinferError('OUT_OF_MEMORY', 'no room'));
    const message = 'no worker could be started any more: no room';
    expect(await answer).toMatchObject({ status: 500, json: { error: { code: 'OUT_OF_MEMORY', message } } });
    expect(await server.closed).toMatchObject({ code: 'OUT_OF_MEMORY', message });
    await expect(fetch(server.url)).rejects.toThrow();
  });
});
