import { afterEach, describe, expect, test } from '@jest/globals';

import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { type RunningServer, startServer } from '../../../lib/server/server.js';
import { startWorker, type WorkerHandle } from '../../../lib/worker/supervisor.js';
import { serverArgs, until } from './test-server.js';

// What trainers call, with the demo model in worker processes.

interface Running {
  server: RunningServer;
  /** All that were started, in order. */
  workers: WorkerHandle[];
  /** The folder that each was told to load. */
  loaded: string[];
  post(path: string, body?: object): Promise<{ status: number; json: any }>;
  get(path: string): Promise<{ status: number; json: any }>;
  /** Starts a request of so many greedy tokens. */
  generate(inputIds: number[], count: number): Promise<any>;
}

let running: Running;
afterEach(() => running.server.stop());

async function start(overrides: Partial<ServerArgs> = {}): Promise<Running> {
  const workers: WorkerHandle[] = [];
  const loaded: string[] = [];
  const args = serverArgs({ maxTotalTokens: 16_384, threads: 1, drainTimeout: 60, ...overrides });
  const server = await startServer(args, {
    version: '1.2.3',
    log: () => {},
    onProgress: () => {},
    startWorker: async (workerArgs, handlers, signal) => {
      loaded.push(workerArgs.modelPath);
      const worker = await startWorker(workerArgs, handlers, signal);
      workers.push(worker);
      return worker;
    },
  });
  const read = async (response: Response) => {
    const text = await response.text();
    return { status: response.status, json: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text };
  };
  const post = async (path: string, body?: object) =>
    read(
      await fetch(server.url + path, {
        method: 'POST',
        ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      }),
    );
  const get = async (path: string) => read(await fetch(server.url + path));
  const generate = async (inputIds: number[], count: number) => {
    const sampling = { temperature: 0, max_new_tokens: count, ignore_eos: true };
    return (await post('/generate', { input_ids: inputIds, return_logprob: true, sampling_params: sampling })).json;
  };
  return (running = { server, workers, loaded, post, get, generate });
}

/** How many the schedulers have planned. */
async function steps(): Promise<number> {
  return (await running.get('/server_info')).json.scheduler.steps;
}

async function untilRequests(count: number): Promise<void> {
  for (;;) {
    const { scheduler } = (await running.get('/server_info')).json;
    if (scheduler.running_requests + scheduler.waiting_requests === count) return;
  }
}

const PROMPT = [5, 6, 7, 8];
const outcome = ({ output_ids, meta_info }: any) => [output_ids, meta_info.output_token_logprobs];

describe('/pause_generation', () => {
  test('no step is planned until /continue_generation; then answers are as if nothing had happened', async () => {
    const { generate, post, get } = await start();
    const expected = outcome(await generate(PROMPT, 300));
    const begun = generate(PROMPT, 300);
    await untilRequests(1);
    expect(await post('/pause_generation')).toMatchObject({ status: 200, json: { status: 'ok' } });
    const before = await steps();
    const arrived = generate(PROMPT, 300);
    await untilRequests(2);
    expect((await get('/health')).status).toBe(200);
    expect((await get('/health_generate')).status).toBe(200);
    expect((await get('/server_info')).json.is_paused).toBe(true);
    expect(await steps()).toBe(before);
    expect((await post('/flush_cache')).status).toBe(400);
    expect(await post('/continue_generation')).toMatchObject({ status: 200, json: { status: 'ok' } });
    for (const answer of [await begun, await arrived]) expect(outcome(answer)).toEqual(expected);
    expect((await get('/server_info')).json.is_paused).toBe(false);
    expect(await steps()).toBeGreaterThan(before);
  });

  test.each([1, 2])('--dp-size %s: the worker that replaces another is paused, too', async (dpSize) => {
    const { generate, post, get, workers } = await start({ dpSize });
    const expected = outcome(await generate(PROMPT, 300));
    const answers = [generate(PROMPT, 300), generate([9, ...PROMPT], 300)];
    await untilRequests(2);
    await post('/pause_generation', { mode: 'in_place' });
    for (const { pid } of workers.slice(0, dpSize)) process.kill(pid, 'SIGKILL');
    await until(() => workers.length === 2 * dpSize);
    await untilRequests(2);
    expect((await get('/health_generate')).status).toBe(200);
    expect(await steps()).toBe(0);
    await post('/continue_generation');
    expect(outcome(await answers[0])).toEqual(expected);
    expect((await answers[1]).output_ids).toHaveLength(300);
  });

  test('mode abort ends what runs; what comes later waits', async () => {
    const { generate, post } = await start();
    const begun = generate(PROMPT, 400);
    await untilRequests(1);
    await post('/pause_generation', { mode: 'abort' });
    expect((await begun).meta_info.finish_reason).toMatchObject({ type: 'abort', message: 'aborted by /pause_generation' });
    expect((await post('/flush_cache')).status).toBe(200);
    const later = generate(PROMPT, 4);
    await untilRequests(1);
    await post('/continue_generation');
    expect((await later).output_ids).toHaveLength(4);
  });

  test('other modes are refused', async () => {
    const { post, get } = await start();
    const { status, json } = await post('/pause_generation', { mode: 'retract' });
    expect([status, json.error.message]).toEqual([400, expect.stringContaining('in_place (requests wait) or abort')]);
    expect((await get('/server_info')).json.is_paused).toBe(false);
  });

  test('a paused server stops at once', async () => {
    const { generate, post, server } = await start({ drainTimeout: 3600 });
    const answer = generate(PROMPT, 300);
    await untilRequests(1);
    await post('/pause_generation');
    await server.stop();
    expect((await answer).error.code).toBe('SHUTTING_DOWN');
  });
});
