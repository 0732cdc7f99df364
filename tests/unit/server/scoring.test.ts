import { afterAll, beforeAll, expect, test } from '@jest/globals';

import { type RealServer, startRealServer } from './real-server.js';

// The example of docs/reinforcement-learning.md.

let running: RealServer;
beforeAll(async () => (running = await startRealServer({ contextLength: 128 })));
afterAll(() => running.server.stop());

const logprobs = (entries: [number, number, null][]): number[] => entries.map(([logprob]) => logprob);

test('a batch of rollouts is scored to the log-probabilities that it was generated with, bit for bit', async () => {
  const prompts = [
    [5, 6, 7, 8],
    [100, 200, 300],
    Array.from({ length: 50 }, (_, i) => i * 7),
  ];
  const sampling = { temperature: 0.8, sampling_seed: 7, max_new_tokens: 32, ignore_eos: true };
  const rollouts = await running.post('/generate', { input_ids: prompts, sampling_params: sampling, return_logprob: true });
  const score = (temperature: number): Promise<any> =>
    running.post('/generate', {
      input_ids: prompts.map((prompt, i) => [...prompt, ...rollouts[i].output_ids]),
      sampling_params: { temperature, max_new_tokens: 0 },
      return_logprob: true,
      logprob_start_len: prompts.map(({ length }) => length - 1),
    });
  const scored = await score(0.8);
  const hotter = await score(0.9);
  for (const [i, { meta_info }] of rollouts.entries()) {
    const generated = logprobs(meta_info.output_token_logprobs);
    expect(generated).toHaveLength(32);
    const [first, ...rest] = logprobs(scored[i].meta_info.input_token_logprobs);
    expect([first, rest]).toEqual([null, generated]);
    expect(logprobs(hotter[i].meta_info.input_token_logprobs).slice(1)).not.toEqual(generated);
  }
});

test('a rollout that fills the context can be scored, too', async () => {
  const { contextLength } = running.server.info;
  const prompt = Array.from({ length: contextLength - 3 }, (_, i) => i % 4000);
  const sampling = { temperature: 0, ignore_eos: true };
  const rollout = await running.post('/generate', {
    ...{ input_ids: prompt, return_logprob: true },
    sampling_params: { ...sampling, max_new_tokens: 9 },
  });
  expect(rollout.meta_info.finish_reason).toEqual({ type: 'length', length: 3 });
  const score = (extra: number[]): Promise<any> =>
    running.post('/generate', {
      ...{ input_ids: [...prompt, ...rollout.output_ids, ...extra], return_logprob: true, logprob_start_len: prompt.length - 1 },
      sampling_params: { ...sampling, max_new_tokens: 0 },
    });
  const { meta_info } = await score([]);
  expect(logprobs(meta_info.input_token_logprobs).slice(1)).toEqual(logprobs(rollout.meta_info.output_token_logprobs));
  expect((await score([5])).error.message).toMatch(/has \d+ tokens; it must fit into the model's context/);
});
