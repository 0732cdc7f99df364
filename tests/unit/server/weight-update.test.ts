import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';

import { digestOf } from '../../../lib/receipt/digest.js';
import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { until } from './test-server.js';
import { outcome, startTrainingServer, type TrainingServer } from './training-server.js';

const UPDATE = '/update_weights_from_disk';
const PROMPT = Array.from({ length: 40 }, (_, i) => i + 5);
const LENGTH = 200;
const FILE = 'model.safetensors';

const folders: string[] = [];
let running: TrainingServer;
/** Folder of other weights, and what either model answers. */
let other: string;
let answers: { demo: unknown; other: unknown };

/** A copy of the demo model's folder, with another weights file. */
function modelFolder(change: (file: Buffer, header: any, dataStart: number) => Buffer): string {
  const folder = mkdtempSync(join(tmpdir(), 'detinfer-weights-'));
  folders.push(folder);
  cpSync('models/demo', folder, { recursive: true });
  const path = join(folder, 'model.safetensors');
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE());
  writeFileSync(path, change(file, JSON.parse(file.toString('utf8', 8, 8 + headerBytes)), 8 + headerBytes));
  return folder;
}

/** Doubles the last norm, so that every logit doubles. */
function doubleNorm(file: Buffer, header: any, dataStart: number): Buffer {
  const [begin, end] = header['model.norm.weight'].data_offsets;
  for (let at = dataStart + begin; at < dataStart + end; at += 2) file.writeUInt16LE(file.readUInt16LE(at) + 0x80, at);
  return file;
}

function renameTensor(file: Buffer): Buffer {
  file.write('model.morn.weight', file.indexOf('model.norm.weight'));
  return file;
}

async function start(overrides: Partial<ServerArgs> = {}): Promise<TrainingServer> {
  return (running = await startTrainingServer(overrides));
}

beforeAll(async () => {
  other = modelFolder(doubleNorm);
  const { server, generate } = await startTrainingServer({ modelPath: other });
  const otherAnswer = outcome(await generate(PROMPT, LENGTH));
  await server.stop();
  const demo = await startTrainingServer();
  answers = { demo: outcome(await demo.generate(PROMPT, LENGTH)), other: otherAnswer };
  await demo.server.stop();
  expect(answers.other).not.toEqual(answers.demo);
});
afterEach(() => running.server.stop());
afterAll(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

describe('/update_weights_from_disk', () => {
  test.each([1, 2])('--dp-size %s: what runs ends with the old weights, what comes begins with the new', async (dpSize) => {
    const { generate, post, get, workers, loaded, untilRequests } = await start({ dpSize });
    const begun = generate(PROMPT, LENGTH);
    await untilRequests(1);
    const update = post(UPDATE, { model_path: other, weight_version: 'v2' });
    const during = new Promise((resolve) => setImmediate(resolve)).then(() => generate(PROMPT, LENGTH));
    expect(await update).toMatchObject({ status: 200, json: { success: true, message: expect.stringContaining('v2') } });
    const before = await begun;
    expect([outcome(before), before.meta_info.weight_version]).toEqual([answers.demo, 'default']);
    // It may have come before the update or after, but has one of the two models in it, not both.
    const { meta_info: { weight_version: version }, ...answer } = await during;
    expect(outcome(await during)).toEqual(version === 'v2' ? answers.other : answers.demo);
    expect(answer.output_ids).toHaveLength(LENGTH);
    const after = await generate(PROMPT, LENGTH);
    expect([outcome(after), after.meta_info.weight_version]).toEqual([answers.other, 'v2']);
    for (const path of ['/model_info', '/server_info']) {
      expect((await get(path)).json).toMatchObject({ model_path: other, weight_version: 'v2' });
    }
    // Every worker after it has the new weights.
    for (const { pid } of workers.slice(dpSize)) process.kill(pid, 'SIGKILL');
    await until(() => workers.length === 3 * dpSize);
    expect(outcome(await generate(PROMPT, LENGTH))).toEqual(answers.other);
    expect(loaded.slice(dpSize)).toEqual(new Array(2 * dpSize).fill(other));
  });

  test('nothing of the old prefix cache is used', async () => {
    const { generate, post } = await start();
    await generate(PROMPT, 1);
    expect((await generate(PROMPT, 1)).meta_info.cached_tokens).toBe(32);
    expect((await post(UPDATE, { model_path: other, flush_cache: false })).json.success).toBe(true);
    const { meta_info } = await generate(PROMPT, 1);
    expect([meta_info.cached_tokens, meta_info.weight_version]).toEqual([0, 'default']);
  });

  test('abort_all_requests ends what runs with what it has', async () => {
    const { generate, post, untilRequests } = await start();
    const begun = generate(PROMPT, LENGTH);
    await untilRequests(1);
    const update = await post(UPDATE, { model_path: other, abort_all_requests: true });
    expect(update.json.success).toBe(true);
    const message = 'aborted by /update_weights_from_disk';
    expect((await begun).meta_info.finish_reason).toMatchObject({ type: 'abort', message });
    expect(outcome(await generate(PROMPT, LENGTH))).toEqual(answers.other);
  });

  test('receipts name the weights that answered', async () => {
    const { post } = await start();
    const weightsOf = async (): Promise<string> => {
      const sampling_params = { temperature: 0, max_new_tokens: 2 };
      const { json } = await post('/generate', { input_ids: PROMPT, return_receipt: true, sampling_params });
      return json.meta_info.receipt.model.weights;
    };
    const before = await weightsOf();
    await post(UPDATE, { model_path: other });
    const after = await weightsOf();
    const files = [join('models/demo', FILE), join(other, FILE)];
    expect([before, after]).toEqual(files.map((file) => digestOf(readFileSync(file))));
    expect(after).not.toBe(before);
  });

  test('so does the first receipt that is asked for meanwhile, whatever another update does', async () => {
    const { generate, post, untilRequests } = await start();
    const begun = generate(PROMPT, LENGTH);
    await untilRequests(1);
    const update = post(UPDATE, { model_path: other });
    const refused = await post(UPDATE, { model_path: other });
    expect(refused.json.message).toContain('under way');
    const sampling_params = { temperature: 0, max_new_tokens: 2 };
    const { json } = await post('/generate', { input_ids: PROMPT, return_receipt: true, sampling_params });
    expect(json.meta_info.receipt.model.weights).toBe(digestOf(readFileSync(join(other, FILE))));
    await Promise.all([begun, update]);
  });

  test('while paused, answers in the middle are in the way; requests that have not begun wait for the new weights', async () => {
    const { generate, post, get, untilRequests } = await start();
    const begun = generate(PROMPT, LENGTH);
    while ((await get('/server_info')).json.scheduler.steps < 3);
    await post('/pause_generation', { mode: 'in_place' });
    const arrived = generate([9, ...PROMPT], 4);
    await untilRequests(2);
    const refused = await post(UPDATE, { model_path: other });
    expect([refused.status, refused.json.success]).toEqual([400, false]);
    expect(refused.json.message).toMatch(/paused in the middle of 1 answers: continue generation, or pass abort_all/);
    await post('/continue_generation');
    expect(outcome(await begun)).toEqual(answers.demo);
    await arrived;
    await post('/pause_generation');
    const later = generate(PROMPT, LENGTH);
    await untilRequests(1);
    const update = await post(UPDATE, { model_path: other, weight_version: 'v2' });
    expect(update.json).toMatchObject({ success: true, num_paused_requests: 1 });
    expect((await get('/server_info')).json).toMatchObject({ is_paused: true, scheduler: { steps: 0 } });
    await post('/continue_generation');
    expect(outcome(await later)).toEqual(answers.other);
    expect((await later).meta_info.weight_version).toBe('v2');
  });

  test('a bad folder leaves the old weights, in the same worker', async () => {
    const { generate, post, get, workers } = await start();
    const truncated = modelFolder((file) => file.subarray(0, file.length - 2));
    const cases: [string, RegExp][] = [
      ['/nowhere', /\/nowhere is no local folder/],
      ['tests/fixtures/qwen3-tiny', /another model: vocabSize is/],
      ['tests/fixtures/llama31-tiny', /another model: architectures is \["LlamaForCausalLM"\]/],
      [truncated, /is truncated/],
    ];
    for (const [folder, message] of cases) {
      const { status, json } = await post(UPDATE, { model_path: folder, weight_version: 'v2' });
      expect([status, json]).toEqual([400, { success: false, message: expect.stringMatching(message), num_paused_requests: 0 }]);
    }
    expect(workers).toHaveLength(1);
    expect((await get('/model_info')).json).toMatchObject({ model_path: 'models/demo', weight_version: 'default' });
    expect(outcome(await generate(PROMPT, LENGTH))).toEqual(answers.demo);
    expect((await post(UPDATE, {})).json.error.message).toContain('Give model_path');
  });

  test('weights that the engine refuses: all workers go back to the old ones', async () => {
    const { generate, post, loaded } = await start({ dpSize: 2 });
    const bad = modelFolder(renameTensor);
    const waiting = post(UPDATE, { model_path: bad, weight_version: 'v2' });
    await until(() => loaded.includes(bad));
    const second = await post(UPDATE, { model_path: other });
    expect(second.json.message).toContain('another update of the weights is under way');
    expect((await waiting).json).toMatchObject({ success: false, message: expect.stringContaining('model.norm.weight') });
    expect(loaded.slice(-2)).toEqual(['models/demo', 'models/demo']);
    const answer = await generate(PROMPT, LENGTH);
    expect([outcome(answer), answer.meta_info.weight_version]).toEqual([answers.demo, 'default']);
    expect((await post(UPDATE, { model_path: other })).json.success).toBe(true);
    expect(outcome(await generate(PROMPT, LENGTH))).toEqual(answers.other);
  });
});
