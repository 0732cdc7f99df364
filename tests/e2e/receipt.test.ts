import { spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

import { digestOf } from '../../lib/receipt/digest.js';
import { packLogprobs, unpackLogprobs } from '../../lib/receipt/logprobs.js';
import type { Receipt } from '../../lib/receipt/receipt.js';
import { type RealServer, startRealServer } from '../unit/server/real-server.js';

// A server with the demo model writes receipts, and `detinfer verify` checks them in a process of its own.

const folder = mkdtempSync(join(tmpdir(), 'detinfer-verify-'));
const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const PUBLIC_KEY = join(folder, 'key.pub');
const SIGNING_KEY = join(folder, 'key.pem');
writeFileSync(PUBLIC_KEY, publicKey.export({ type: 'spki', format: 'pem' }));
writeFileSync(SIGNING_KEY, privateKey.export({ type: 'pkcs8', format: 'pem' }));

let real: RealServer;
beforeAll(async () => {
  real = await startRealServer({ signingKey: SIGNING_KEY });
});
afterAll(async () => {
  await real.server.stop();
  rmSync(folder, { recursive: true });
});

const PROMPT = 'Tell me a joke';
const GREEDY = { temperature: 0, max_new_tokens: 24 };
const SAMPLED = {
  ...{ temperature: 0.9, top_k: 50, top_p: 0.95, min_p: 0.01, sampling_seed: 7, max_new_tokens: 24, min_new_tokens: 20 },
  ...{ frequency_penalty: 0.5, presence_penalty: 0.3, repetition_penalty: 1.2, logit_bias: { 300: 2 } },
};

async function receiptOf(sampling: object, text = PROMPT): Promise<Receipt> {
  const body = { text, sampling_params: sampling, return_receipt: true };
  return (await real.post('/generate', body)).meta_info.receipt;
}

let files = 0;
async function verify(receipt: object | string, ...flags: string[]): Promise<{ code: number | null; output: string }> {
  const path = join(folder, `receipt-${files++}.json`);
  writeFileSync(path, typeof receipt === 'string' ? receipt : JSON.stringify(receipt));
  const child = spawn(process.execPath, ['bin/detinfer.js', 'verify', path, '--device', 'cpu', '--threads', '1', ...flags]);
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => (output += data));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, output };
}

/** The receipt of somebody who fits the digest to his log-probabilities. */
function withLogprob(receipt: Receipt, index: number, change: (value: number) => number): Receipt {
  const values = unpackLogprobs(Buffer.from(receipt.logprobs, 'base64'));
  values[index] = change(values[index]!);
  const bytes = packLogprobs(values);
  return { ...receipt, logprobs: bytes.toString('base64'), logprobs_digest: digestOf(bytes) };
}

describe('detinfer verify', () => {
  test.each([
    ['greedy', GREEDY],
    ['sampled with penalties, biases and filters', SAMPLED],
    ['of a regular expression', { temperature: 1, sampling_seed: 3, regex: '[a-z]{3,8}( [a-z]{2,6}){3}', max_new_tokens: 30 }],
  ])('verifies an answer: %s', async (_, sampling) => {
    const receipt = await receiptOf(sampling);
    expect(receipt.output_ids.length).toBeGreaterThan(3);
    const { code, output } = await verify(receipt, '--public-key', PUBLIC_KEY);
    expect(output).toContain(`VERIFIED: ${receipt.output_ids.length} output tokens`);
    expect(output).toContain(`Signed by ${receipt.signature!.key}`);
    expect(output).not.toContain('Not checked');
    expect(code).toBe(0);
  });

  test('says what it did not check', async () => {
    const receipt = await receiptOf({ ...GREEDY, stop: ' about' });
    const { code, output } = await verify(receipt);
    expect(output).toContain('Not checked: the signature');
    expect(output).toContain('Not checked: that the text ends with the stop string " about"');
    expect(code).toBe(0);
  });

  test('names the token that was changed', async () => {
    const greedy = await receiptOf(GREEDY);
    const flipped = { ...greedy, output_ids: greedy.output_ids.with(5, greedy.output_ids[5]! ^ 1) };
    expect(await verify(flipped)).toEqual({
      code: 1,
      output: expect.stringContaining(`DIFFERENT: output token 5: the receipt has id ${flipped.output_ids[5]}`),
    });
    const sampled = await receiptOf(SAMPLED);
    const seed = { ...sampled, sampling: { ...sampled.sampling, seed: 8 } };
    expect(await verify(seed)).toEqual({ code: 1, output: expect.stringMatching(/DIFFERENT: output token \d+: /) });
    const penalty = { ...sampled, sampling: { ...sampled.sampling, frequency_penalty: 2, repetition_penalty: 2 } };
    expect(await verify(penalty)).toEqual({ code: 1, output: expect.stringMatching(/DIFFERENT: output token \d+: /) });
  });

  test('names the log-probability that was changed by one bit, and a prompt that was', async () => {
    const receipt = await receiptOf(GREEDY);
    const bit = withLogprob(receipt, 7, (value) => {
      const word = new Uint32Array(Float32Array.of(value).buffer);
      word[0]! ^= 1;
      return new Float32Array(word.buffer)[0]!;
    });
    expect(await verify(bit)).toEqual({
      code: 1,
      output: expect.stringContaining(`output token 7 (id ${receipt.output_ids[7]}): the receipt has the log-probability`),
    });
    const prompt = { ...receipt, prompt_ids: receipt.prompt_ids.with(0, receipt.prompt_ids[0]! ^ 1) };
    expect(await verify(prompt)).toEqual({ code: 1, output: expect.stringContaining('DIFFERENT: output token 0') });
  });

  test('refuses an answer that was cut, and a signature that does not fit', async () => {
    const receipt = await receiptOf(SAMPLED);
    const cut = { ...receipt, output_ids: receipt.output_ids.slice(0, 10) };
    const logprobs = Buffer.from(receipt.logprobs, 'base64').subarray(0, 40);
    const fitted = { ...cut, logprobs: logprobs.toString('base64'), logprobs_digest: digestOf(logprobs) };
    const wrongEnd = expect.stringContaining('DIFFERENT: the output does not end with');
    expect(await verify(fitted)).toEqual({ code: 1, output: wrongEnd });
    const signature = await verify({ ...receipt, numeric_contract: 'x' }, '--public-key', PUBLIC_KEY);
    expect(signature).toEqual({ code: 1, output: expect.stringContaining('the signature does not fit') });
  });

  test('ends with 2 when it cannot check', async () => {
    const receipt = await receiptOf(GREEDY);
    const other = await verify({ ...receipt, numeric_contract: 'detinfer-numerics/0' });
    expect(other).toEqual({ code: 2, output: expect.stringContaining('INVALID_RECEIPT') });
    const model = await verify(receipt, '--json-model-override-args', '{"rope_theta":5000}');
    expect(model).toEqual({ code: 2, output: expect.stringContaining('the digest of config is') });
    expect(await verify('{')).toEqual({ code: 2, output: expect.stringContaining('not valid JSON') });
  });
});

/** The events of a streamed answer but [DONE]. */
async function readEvents(path: string, request: object): Promise<any[]> {
  const body = JSON.stringify({ ...request, stream: true });
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${real.server.url}${path}`, { method: 'POST', headers, body });
  const payloads = (await response.text()).split('\n\n').filter((event) => event.startsWith('data: {'));
  return payloads.map((event) => JSON.parse(event.slice('data: '.length)));
}

describe('A receipt', () => {
  test('comes with each answer of a batch and its copies, and shows no log-probabilities by itself', async () => {
    const body = { text: [PROMPT, 'Hello'], sampling_params: { ...SAMPLED, n: 2 }, return_receipt: [true, false] };
    const answers = await real.post('/generate', body);
    const receipts = answers.map(({ meta_info: info }: any) => info.receipt);
    expect(receipts.map((receipt: Receipt | undefined) => receipt?.sampling.seed)).toEqual([7, 8, undefined, undefined]);
    expect(answers[1].meta_info).not.toHaveProperty('output_token_logprobs');
    expect(receipts[1].output_ids).toEqual(answers[1].output_ids);
  });

  test('is that of the logprobs that are shown', async () => {
    const body = { text: PROMPT, sampling_params: GREEDY, return_receipt: true, return_logprob: true };
    const { receipt, output_token_logprobs: shown } = (await real.post('/generate', body)).meta_info;
    const values = unpackLogprobs(Buffer.from(receipt.logprobs, 'base64'));
    expect([...values]).toEqual(shown.map(([value]: [number]) => value));
  });

  test.each([
    ['/v1/completions', { prompt: [PROMPT, 'Hello'], n: 2, seed: 7, max_tokens: 12 }, 4],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: PROMPT }], temperature: 0, max_tokens: 12 }, 1],
  ])('comes with every choice of %s, streamed or not, and is verified', async (path, request, choices) => {
    const body = { model: 'demo', ...request, return_receipt: true };
    const whole = (await real.post(path, body)).choices.map(({ receipt }: { receipt: Receipt }) => receipt);
    expect(whole).toHaveLength(choices);
    const [first] = whole;
    expect(first.output_ids).toHaveLength(12);
    expect(await verify(first, '--public-key', PUBLIC_KEY)).toEqual({
      code: 0,
      output: expect.stringContaining('VERIFIED: 12 output tokens'),
    });
    const events = await readEvents(path, body);
    const shown = events.flatMap(({ choices: some }) => some.filter((choice: object) => 'receipt' in choice));
    expect(shown.every(({ finish_reason: reason }) => reason !== null)).toBe(true);
    expect(shown.sort((a, b) => a.index - b.index).map(({ receipt }) => receipt)).toEqual(whole);
    const { return_receipt: _, ...without } = body;
    expect((await real.post(path, without)).choices[0]).not.toHaveProperty('receipt');
  });

  test('comes with the last event of a stream, the same as without one', async () => {
    const body = { text: PROMPT, sampling_params: SAMPLED, return_receipt: true };
    const events = await readEvents('/generate', body);
    expect(events.slice(0, -1).some(({ meta_info: info }) => 'receipt' in info)).toBe(false);
    expect(events.at(-1).meta_info.receipt).toEqual(await receiptOf(SAMPLED));
  });
});
