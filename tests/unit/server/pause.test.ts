import { afterEach, describe, expect, test } from '@jest/globals';

import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { until } from './test-server.js';
import { outcome, startTrainingServer, type TrainingServer } from './training-server.js';

let running: TrainingServer;
afterEach(() => running.server.stop());

async function start(overrides: Partial<ServerArgs> = {}): Promise<TrainingServer> {
  return (running = await startTrainingServer(overrides));
}

/** How many the schedulers have planned. */
async function steps(): Promise<number> {
  return (await running.get('/server_info')).json.scheduler.steps;
}

const PROMPT = [5, 6, 7, 8];
const LENGTH = 400;

describe('/pause_generation', () => {
  test('no step is planned until /continue_generation; then answers are as if nothing had happened', async () => {
    const { generate, post, get, untilRequests } = await start();
    const expected = outcome(await generate(PROMPT, LENGTH));
    const begun = generate(PROMPT, LENGTH);
    await untilRequests(1);
    expect(await post('/pause_generation', { mode: 'in_place' })).toMatchObject({ status: 200, json: { status: 'ok' } });
    const before = await steps();
    const arrived = generate(PROMPT, LENGTH);
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
    const { generate, post, get, workers, untilRequests } = await start({ dpSize });
    const expected = outcome(await generate(PROMPT, LENGTH));
    const answers = [generate(PROMPT, LENGTH), generate([9, ...PROMPT], LENGTH)];
    await untilRequests(2);
    await post('/pause_generation', { mode: 'in_place' });
    for (const { pid } of workers.slice(0, dpSize)) process.kill(pid, 'SIGKILL');
    await until(() => workers.length === 2 * dpSize);
    await untilRequests(2);
    expect((await get('/health_generate')).status).toBe(200);
    expect(await steps()).toBe(0);
    await post('/continue_generation');
    expect(outcome(await answers[0])).toEqual(expected);
    expect((await answers[1]).output_ids).toHaveLength(LENGTH);
  });

  test.each([{ mode: 'abort' }, {}])('%j ends what runs; what comes later waits', async (body) => {
    const { generate, post, untilRequests } = await start();
    const begun = generate(PROMPT, LENGTH);
    await untilRequests(1);
    await post('/pause_generation', body);
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
    const { generate, post, server, untilRequests } = await start({ drainTimeout: 3600 });
    const answer = generate(PROMPT, LENGTH);
    await untilRequests(1);
    await post('/pause_generation', { mode: 'in_place' });
    await server.stop();
    expect((await answer).error.code).toBe('SHUTTING_DOWN');
  });
});
