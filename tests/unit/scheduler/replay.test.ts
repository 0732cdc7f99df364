import { describe, expect, test } from '@jest/globals';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { VOCAB_SIZE } from './fake-model.js';
import { Random } from './random.js';
import { Collector, makeRequest, runToEnd } from './requests.js';
import { expectAnswers, prompt, setUp } from './set-up.js';

const ROUNDS = 200;
const GRAMMAR = { kind: 'regex' as const, text: '(abc|[d-w]{1,40})b?([a-f]{2,9}w)+' };

/** Requests with what depends on the output so far: grammars, penalties, bans, seeds, stop ids, logprobs, limits. */
function randomRequest(random: Random, id: string): WorkerRequest {
  const length = random.integer(1, 80);
  const maxNewTokens = random.integer(0, 40);
  const grammar = random.chance(0.3) ? GRAMMAR : null;
  return makeRequest(id, prompt(length, random.integer(0, 3)), {
    sampling: {
      temperature: random.pick([0, 0.7, 1.5]),
      frequencyPenalty: random.pick([0, 0.5]),
      presencePenalty: random.pick([0, 0.3]),
      repetitionPenalty: random.pick([1, 1.2]),
      grammar,
      seed: random.integer(0, 1e9),
    },
    stop: {
      stopTokenIds: grammar
        ? [VOCAB_SIZE - 1]
        : random.list(random.integer(0, 3), () => random.integer(0, VOCAB_SIZE - 1)),
      minNewTokens: Math.min(maxNewTokens, random.pick([0, 0, 15])),
      maxNewTokens,
    },
    logprobs: random.chance(0.5)
      ? null
      : { promptStart: random.integer(0, length), top: random.pick([0, 2]), tokenIds: random.pick([[], [3]]) },
  });
}

/** The requests that have not ended, with what has come of them. */
function unfinished(requests: WorkerRequest[], collector: Collector): WorkerRequest[] {
  return requests
    .filter(({ id }) => collector.requests.get(id)?.finish === undefined)
    .map((request) => ({ ...request, outputIds: [...(collector.requests.get(request.id)?.tokens ?? [])] }));
}

describe('a request that another scheduler began', () => {
  test('ends as if it had never stopped, however often and wherever it did', () => {
    let [replays, promptless] = [0, 0];
    for (let seed = 0; seed < ROUNDS; seed++) {
      const random = new Random(seed);
      const requests = Array.from({ length: 6 }, (_, i) => randomRequest(random, `r${i}`));
      const collector = new Collector();
      for (let deaths = random.integer(1, 6); deaths > 0; deaths--) {
        const { scheduler } = setUp({ pages: 20, contextLength: 1000, chunkedPrefillSize: random.pick([7, 64, -1]), overlap: random.chance(0.5) });
        const rest = unfinished(requests, collector);
        for (const request of rest) scheduler.add(request);
        for (let step = random.integer(0, 20); step > 0 && scheduler.isBusy; step--) collector.add(scheduler.step());
        replays += rest.filter(({ outputIds }) => outputIds.length > 0).length;
        promptless += rest.filter(({ outputIds }) => outputIds.length === 0).length;
      }
      const { scheduler } = setUp({ pages: 20 });
      for (const request of unfinished(requests, collector)) scheduler.add(request);
      runToEnd(scheduler, collector);
      // The collector refuses a prompt that comes twice.
      expectAnswers(collector, requests);
    }
    expect(Math.min(replays, promptless)).toBeGreaterThan(100);
  });

  test('finds its own tokens in the cache, and counts as cached only those of its prompt', () => {
    const { scheduler } = setUp();
    const request = makeRequest('a', prompt(20), { stop: { maxNewTokens: 60 } });
    scheduler.add(request);
    const { tokens } = runToEnd(scheduler).get('a');
    scheduler.add({ ...request, id: 'b', outputIds: tokens.slice(0, 50) });
    const collector = new Collector();
    collector.add(scheduler.step().map((event) => ({ ...event, prompt: { cachedTokens: 0, logprobs: [] } })));
    while (scheduler.isBusy) collector.add(scheduler.step());
    expect(collector.get('b').tokens).toEqual(tokens.slice(50));
    expect(scheduler.status().cacheHitRate).toBe(20 / 40);
  });
});
