/**
 * The memory of a server on a GPU, given back and taken again (/release_memory_occupation, /resume_memory_occupation),
 * with each backend: what nvidia-smi calls free, and answers that must be the same. Needs a GPU that nothing else uses,
 * and the demo model: node dist/tests/gpu/memory.js. Ends with a line "N passed, N failed".
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

import { PACKAGE_ROOT } from '../../lib/cli/package.js';
import { startOwnServer } from '../../lib/cli/own-server.js';
import { ATTENTION_BACKENDS } from '../../lib/protocol/server-args.js';

const TOKENS = 1_000_000;
const DEMO = join(PACKAGE_ROOT, 'models', 'demo');
const LAUNCH = ['--model-path', DEMO, '--device', 'cuda', '--max-total-tokens', String(TOKENS)];
/** The KV cache: keys and values of 6 layers, 2 heads of 128, in 2 bytes. */
const LEAST_FREED_MIB = (TOKENS * 2 * 6 * 2 * 128 * 2) / 2 ** 20;
/** What a driver may hold more or less of after a second start. */
const TOLERATED_MIB = 64;
const REQUEST = {
  input_ids: [[5, 6, 7, 8], [100, 200, 300], Array.from({ length: 700 }, (_, i) => i)],
  sampling_params: { temperature: 0.8, sampling_seed: 7, max_new_tokens: 48, ignore_eos: true },
  return_logprob: true,
};

/** MiB of the first GPU that no program has. */
function freeMemory(): number {
  const query = ['--query-gpu=memory.free', '--format=csv,noheader,nounits', '--id=0'];
  return Number(execFileSync('nvidia-smi', query, { encoding: 'utf8' }));
}

async function post(url: string, path: string, body: object): Promise<{ status: number; text: string }> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, text: await response.text() };
}

/** What is the same in every answer to the same request. */
async function answer(url: string): Promise<string> {
  const { status, text } = await post(url, '/generate', REQUEST);
  if (status !== 200) throw new Error(`/generate answers ${status}: ${text}`);
  const answers = JSON.parse(text) as { output_ids: number[]; meta_info: { output_token_logprobs: unknown[] } }[];
  return JSON.stringify(answers.map(({ output_ids, meta_info }) => [output_ids, meta_info.output_token_logprobs]));
}

async function expectStatus(url: string, path: string, body: object, wanted: number): Promise<void> {
  const { status, text } = await post(url, path, body);
  if (status !== wanted) throw new Error(`${path} answers ${status}, not ${wanted}: ${text}`);
}

async function releaseAndResume(url: string): Promise<void> {
  const before = await answer(url);
  for (const tags of [undefined, ['kv_cache']]) {
    const held = freeMemory();
    await expectStatus(url, '/release_memory_occupation', { tags }, 200);
    const freed = freeMemory() - held;
    await expectStatus(url, '/generate', REQUEST, 503);
    await expectStatus(url, '/resume_memory_occupation', { tags }, 200);
    const taken = freed - (freeMemory() - held);
    const name = tags?.join() ?? 'all';
    console.log(`  ${name}: ${freed} MiB freed, ${taken} taken again`);
    if (freed < LEAST_FREED_MIB) throw new Error(`${name}: only ${freed} MiB were freed`);
    if (Math.abs(taken - freed) > TOLERATED_MIB) throw new Error(`${name}: ${taken} MiB were taken again`);
    if ((await answer(url)) !== before) throw new Error(`${name}: another answer than before`);
  }
}

let failed = 0;
for (const backend of ATTENTION_BACKENDS) {
  const server = await startOwnServer([...LAUNCH, '--attention-backend', backend], new AbortController().signal);
  const found = await releaseAndResume(server.url).then(() => null, String);
  await server.stop();
  console.log(`${backend} ... ${found ?? 'ok'}`);
  if (found !== null) failed++;
}
console.log(`${ATTENTION_BACKENDS.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
