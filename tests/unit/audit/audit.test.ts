import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from '@jest/globals';

import { audit } from '../../../lib/audit/audit.js';
import { endingOf } from '../../../lib/audit/ending.js';
import { toServerArgs } from '../../../lib/cli/server-flags.js';
import { loadEngine } from '../../../lib/engine/engine.js';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { digestOf } from '../../../lib/receipt/digest.js';
import { packLogprobs, unpackLogprobs } from '../../../lib/receipt/logprobs.js';
import { makeReceipt, type Receipt } from '../../../lib/receipt/receipt.js';
import { Scheduler } from '../../../lib/scheduler/scheduler.js';
import { makeRequest, runToEnd } from '../scheduler/requests.js';

const FIXTURES = fileURLToPath(new URL('../../../../tests/fixtures', import.meta.url));
const MODEL = join(FIXTURES, 'qwen3-tiny');
const DIGEST = digestOf('');

// Chunks and steps are smaller than prompt and output, so that several of each are needed.
const given = { modelPath: MODEL, maxTotalTokens: 160, threads: 1, maxRunningRequests: 5, chunkedPrefillSize: 7 };
const engine = loadEngine(toServerArgs(given, MODEL), () => {});
afterAll(() => engine.close());

const PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2];

function answer(request: WorkerRequest): Receipt {
  const { chunkedPrefillSize, maxRunningRequests } = engine.info;
  const options = { chunkedPrefillSize, maxRunningRequests, maxPrefillTokens: 512, disableRadixCache: true, overlap: false };
  const scheduler = new Scheduler(engine, options, null);
  scheduler.add(request);
  const { tokens, logprobs, finish } = runToEnd(scheduler).get(request.id);
  const model = { weights: DIGEST, config: DIGEST, tokenizer: null };
  return makeReceipt('c/1', model, {
    ...request,
    outputIds: tokens,
    logprobs: logprobs.map(({ logprob }) => logprob!),
    finish: finish!,
  });
}

function ask(sampling: object, stop: object = {}, prompt = PROMPT): Receipt {
  const logprobs = { promptStart: prompt.length, top: 0, tokenIds: [] };
  return answer(makeRequest('r', prompt, { sampling, stop: { maxNewTokens: 23, ...stop }, logprobs }));
}

/** What was sampled: every parameter changes what is drawn somewhere. */
const SAMPLED = {
  ...{ temperature: 1.3, topK: 60, topP: 0.95, minP: 0.002, seed: 11 },
  ...{ frequencyPenalty: 0.4, presencePenalty: 0.5, repetitionPenalty: 1.3 },
};

/** A few tokens come again and again, until their penalties weigh as much as their bias. */
const REPEATED = { ...SAMPLED, repetitionPenalty: 1, logitBias: [[9, 10], [10, 10], [11, 10]] };

describe('An audit', () => {
  test.each([
    ['greedy', {}, {}, PROMPT],
    ['sampled', SAMPLED, {}, PROMPT],
    ['sampled with repetitions', REPEATED, {}, PROMPT],
    ['with stop tokens that are banned at first', SAMPLED, { minNewTokens: 9, stopTokenIds: [...Array(128).keys()] }, PROMPT],
    ['behind a prompt of one token', SAMPLED, {}, [7]],
    ['of one token', {}, { maxNewTokens: 1 }, PROMPT],
    ['of no token', {}, { maxNewTokens: 0 }, PROMPT],
  ])('finds nothing in an answer that is right: %s', (_, sampling, stop, prompt) => {
    expect(audit(ask(sampling, stop, prompt), engine, null)).toEqual({ difference: null, unchecked: [] });
  });

  test('finds every single token that is another', () => {
    const receipt = ask(SAMPLED);
    for (const i of receipt.output_ids.keys()) {
      const outputs = receipt.output_ids.with(i, (receipt.output_ids[i]! + 1) % engine.info.vocabSize);
      const { difference } = audit({ ...receipt, output_ids: outputs }, engine, null);
      expect(difference).toContain(`output token ${i}: the receipt has id ${outputs[i]}`);
    }
  });

  test('finds every single log-probability that is another', () => {
    const receipt = ask({});
    const values = unpackLogprobs(Buffer.from(receipt.logprobs, 'base64'));
    for (const i of values.keys()) {
      const bytes = packLogprobs(values.with(i, values[i]! * (1 + 2 ** -22)));
      const changed = { ...receipt, logprobs: bytes.toString('base64'), logprobs_digest: digestOf(bytes) };
      expect(audit(changed, engine, null).difference).toContain(`output token ${i} (id `);
      expect(audit({ ...receipt, logprobs: changed.logprobs }, engine, null).difference).toContain('digest');
    }
  });

  test.each([
    ['temperature', 1.1],
    ['seed', 12],
    ['frequency_penalty', 0],
    ['repetition_penalty', 1],
    ['logit_bias', [[9, 9]]],
    ['top_k', 1],
  ])('finds that %s was another', (name, value) => {
    const receipt = ask(SAMPLED);
    const changed = { ...receipt, sampling: { ...receipt.sampling, [name]: value } };
    expect(audit(changed, engine, null).difference).toMatch(/^output token \d+/);
  });

  test('refuses what no server of the model can have written', () => {
    const receipt = ask({});
    const unknown = { ...receipt, prompt_ids: [engine.info.vocabSize] };
    expect(() => audit(unknown, engine, null)).toThrow(/the model has \d+ tokens/);
    expect(() => audit({ ...receipt, logprobs: '' }, engine, null)).toThrow(/23 output tokens and 0 log-probabilities/);
    const grammar = { kind: 'regex' as const, text: 'a' };
    const structured = { ...receipt, sampling: { ...receipt.sampling, grammar } };
    expect(() => audit(structured, engine, null)).toThrow(/no tokenizer/);
  });

  test.each<Partial<Receipt['sampling']>>([
    { top_p: 0 },
    { min_p: 2 },
    { top_k: 0 },
    { temperature: 1e39 },
    { repetition_penalty: -1 },
    { presence_penalty: 1e39 },
    { logit_bias: [[9, 1e39]] },
    { grammar: { kind: 'regex', text: '(' } },
  ])('refuses sampling that a server refuses: %j', (changed) => {
    const receipt = ask(SAMPLED);
    const impossible = { ...receipt, sampling: { ...receipt.sampling, ...changed } };
    expect(() => audit(impossible, engine, FIXTURES)).toThrow(
      expect.objectContaining({ code: 'INVALID_RECEIPT', message: expect.stringContaining('No server can have answered') }),
    );
  });
});

describe('The end of an answer', () => {
  const base = ask({});
  const ending = (outputs: number[], finish: Receipt['finish_reason'], limit = 4) => {
    const sampling = { ...base.sampling, stop_token_ids: [7], max_new_tokens: limit };
    return endingOf({ ...base, output_ids: outputs, finish_reason: finish, sampling }, PROMPT.length + 6);
  };

  test.each([
    ['a stop token', ending([1, 7], { type: 'stop', matched: 7 })],
    ['a stop string that is a token', ending([1, 7], { type: 'stop', matched: '</s>' })],
    ['the limit', ending([1, 2, 3, 4], { type: 'length', length: 4 })],
    ['the context', ending([1, 2, 3, 4, 5, 6], { type: 'length', length: 6 }, 100)],
  ])('is right at %s', (_, found) => {
    expect(found).toEqual({ problem: null, unchecked: null });
  });

  test.each([
    ['goes on behind it', ending([7, 1], { type: 'length', length: 2 })],
    ['one more than max_new_tokens', ending([1, 2, 3, 4, 5], { type: 'length', length: 5 })],
    ['does not end with the stop token 7', ending([1, 2], { type: 'stop', matched: 7 })],
    ['finish_reason is length', ending([1, 7], { type: 'length', length: 2 })],
    ['finish_reason says 4 output tokens', ending([1, 2], { type: 'length', length: 4 })],
  ])('is wrong: %s', (problem, found) => {
    expect(found).toEqual({ problem: expect.stringContaining(problem), unchecked: null });
  });

  test.each([
    ['stop string "x"', ending([1, 2], { type: 'stop', matched: 'x' })],
    ['no room', ending([1, 2], { type: 'length', length: 2 })],
    ['aborted', ending([1, 2], { type: 'abort', message: 'm' })],
  ])('cannot be told: %s', (unchecked, found) => {
    expect(found).toEqual({ problem: null, unchecked: expect.stringContaining(unchecked) });
  });
});
