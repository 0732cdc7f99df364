import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from '@jest/globals';

import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { outcome, startTrainingServer, type TrainingServer } from './training-server.js';

const RELEASE = '/release_memory_occupation';
const RESUME = '/resume_memory_occupation';
const PROMPT = Array.from({ length: 40 }, (_, i) => i + 5);
const LENGTH = 40;
const DONE = { status: 200, json: 'null' };

let running: TrainingServer;
const folders: string[] = [];

async function start(overrides: Partial<ServerArgs> = {}): Promise<TrainingServer> {
  return (running = await startTrainingServer(overrides));
}

function copyOfDemo(): string {
  const folder = mkdtempSync(join(tmpdir(), 'detinfer-memory-'));
  folders.push(folder);
  cpSync('models/demo', folder, { recursive: true });
  return folder;
}

/** Resident memory of a process in bytes; 0 when it has ended. */
function residentBytes(pid: number): number {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

const workersBytes = ({ workers }: TrainingServer): number =>
  workers.reduce((sum, { pid }) => sum + residentBytes(pid), 0);

afterEach(async () => {
  await running.server.stop();
  folders.splice(0).forEach((folder) => rmSync(folder, { recursive: true }));
});

describe('/release_memory_occupation and /resume_memory_occupation', () => {
  test.each([1, 2])('--dp-size %s: the memory goes, and comes back with the same bits', async (dpSize) => {
    const server = await start({ dpSize });
    const { generate, post, get, workers } = server;
    const before = await generate(PROMPT, LENGTH);
    expect(workersBytes(server)).toBeGreaterThan(dpSize * server.server.info.weightBytes);

    expect(await post(RELEASE)).toEqual(DONE);
    expect(workersBytes(server)).toBe(0);
    expect((await get('/health')).status).toBe(503);
    expect((await get('/health_generate')).status).toBe(503);
    const info = (await get('/server_info')).json;
    expect(info).toMatchObject({ released_memory: ['cuda_graph', 'kv_cache', 'weights'], internal_states: [] });
    for (const [path, body] of [
      ['/generate', { input_ids: [1] }],
      ['/v1/completions', { model: 'm', prompt: 'a' }],
    ] as const) {
      const { status, json } = await post(path, body);
      expect([status, JSON.stringify(json)]).toEqual([503, expect.stringContaining('/resume_memory_occupation')]);
    }

    expect(await post(RELEASE, { tags: ['kv_cache'] })).toEqual(DONE);
    expect(await post(RESUME, { tags: ['weights'] })).toEqual(DONE);
    expect((await get('/server_info')).json.released_memory).toEqual(['cuda_graph', 'kv_cache']);
    expect((await get('/health')).status).toBe(503);
    expect(await post(RESUME)).toEqual(DONE);
    expect((await get('/health')).status).toBe(200);
    expect(workers).toHaveLength(2 * dpSize);
    const after = await generate(PROMPT, LENGTH);
    expect(outcome(after)).toEqual(outcome(before));
    expect(after.meta_info.cached_tokens).toBe(0);
    expect((await get('/server_info')).json).toMatchObject({
      ...{ released_memory: [], worker_deaths: 0, max_total_tokens: info.max_total_tokens },
    });
    // There is nothing to resume.
    expect(await post(RESUME)).toEqual(DONE);
    expect(workers).toHaveLength(2 * dpSize);
  }, 60_000);

  test('requests that have not ended are in the way, those that are aborted are not', async () => {
    const { generate, post, untilRequests, get } = await start();
    const begun = generate(PROMPT, 2000);
    await untilRequests(1);
    const refused = await post(RELEASE);
    expect([refused.status, refused.json.error.message]).toEqual([400, expect.stringContaining('1 requests have not ended')]);
    expect((await get('/server_info')).json.released_memory).toEqual([]);
    const aborting = post('/pause_generation');
    expect(await post(RELEASE)).toEqual(DONE);
    expect((await aborting).status).toBe(200);
    expect((await begun).meta_info.finish_reason.type).toBe('abort');
    // The new worker is paused as the old one was.
    expect(await post(RESUME)).toEqual(DONE);
    const waits = generate(PROMPT, 5);
    await untilRequests(1);
    await post('/continue_generation');
    expect((await waits).output_ids).toHaveLength(5);
  }, 60_000);

  test('new weights that come meanwhile are served; bad ones leave the memory released', async () => {
    const { generate, post, get, loaded } = await start();
    const before = await generate(PROMPT, LENGTH);
    await post(RELEASE);
    const [good, bad] = [copyOfDemo(), copyOfDemo()];
    const update = (folder: string, version: string) =>
      post('/update_weights_from_disk', { model_path: folder, weight_version: version });
    expect(await update(bad, 'bad')).toMatchObject({ status: 200, json: { success: true } });
    expect(loaded).toHaveLength(1);
    truncateSync(join(bad, 'model.safetensors'), 100_000);
    const failed = await post(RESUME);
    expect([failed.status, failed.json.error.code]).toEqual([400, 'INVALID_WEIGHTS']);
    expect((await get('/server_info')).json.released_memory).toHaveLength(3);
    expect(await update(good, 'v2')).toMatchObject({ status: 200, json: { success: true } });
    expect(await post(RESUME)).toEqual(DONE);
    expect(loaded.at(-1)).toBe(good);
    const after = await generate(PROMPT, LENGTH);
    expect([outcome(after), after.meta_info.weight_version]).toEqual([outcome(before), 'v2']);
  }, 60_000);

  test('unknown tags are refused', async () => {
    const { post, get } = await start();
    const { status, json } = await post(RELEASE, { tags: ['kv_cache', 'optimizer'] });
    expect([status, json.error.message]).toEqual([400, expect.stringContaining('"optimizer"')]);
    expect((await post(RESUME, { tags: 'weights' })).status).toBe(400);
    expect((await get('/health')).status).toBe(200);
  });
});
