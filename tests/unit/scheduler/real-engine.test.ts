import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { loadEngine } from '../../../lib/engine/engine.js';
import { Grammars } from '../../../lib/grammar/grammars.js';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { Scheduler, type SchedulerOptions } from '../../../lib/scheduler/scheduler.js';
import { Random } from './random.js';
import { Collector, makeRequest, runToEnd } from './requests.js';

const MODEL = fileURLToPath(new URL('../../../../tests/fixtures/qwen3-tiny', import.meta.url));

const GRAMMAR = { kind: 'regex' as const, text: '(?:[a-z]{2,9}[.,é]? ){8,20}end' };

const ALONE: SchedulerOptions = {
  chunkedPrefillSize: -1,
  maxPrefillTokens: 4096,
  maxRunningRequests: 1,
  disableRadixCache: true,
  overlap: false,
};

function setUp(maxTotalTokens: number, options: SchedulerOptions): Scheduler {
  const engine = loadEngine(
    {
      modelPath: MODEL,
      loadFormat: 'auto',
      jsonModelOverrideArgs: '{}',
      contextLength: null,
      maxTotalTokens,
      memFractionStatic: 0.5,
      pageSize: 16,
      threads: 2,
      maxRunningRequests: 16,
      chunkedPrefillSize: -1,
      maxPrefillTokens: 4096,
      attentionBackend: 'triton',
      device: 'cpu',
      baseGpuId: 0,
      disableCudaGraph: false,
      cudaGraphMaxBs: null,
    },
    () => {},
  );
  const bytes = Array.from({ length: engine.info.vocabSize }, (_, id) => (id < 256 ? Uint8Array.of(id) : null));
  return new Scheduler(engine, options, new Grammars(() => bytes));
}

function randomRequests(random: Random, vocabSize: number): WorkerRequest[] {
  const token = (): number => random.integer(0, vocabSize - 1);
  const base = random.list(150, token);
  return Array.from({ length: 24 }, (_, i) => {
    const inputIds = [...base.slice(0, random.integer(0, 150)), ...random.list(random.integer(1, 40), token)];
    return makeRequest(`r${i}`, inputIds, {
      sampling: {
        temperature: random.pick([0, 0.8]),
        topP: random.pick([1, 0.9]),
        frequencyPenalty: random.pick([0, 0.4]),
        seed: random.integer(0, 1e6),
      },
      stop: { maxNewTokens: random.integer(1, 60) },
      logprobs: { promptStart: random.integer(0, inputIds.length), top: 2, tokenIds: [5] },
    });
  });
}

/** The same prompt once more, with an answer of a certain form. */
function withGrammar(request: WorkerRequest): WorkerRequest {
  const stop = { ...request.stop, stopTokenIds: [300] };
  return { ...request, id: `${request.id}g`, sampling: { ...request.sampling, grammar: GRAMMAR }, stop };
}

describe('on the CPU engine', () => {
  test('chunks, shared prefixes, preemption, batch-mates and overlap change no bit', () => {
    const alone = setUp(1024, ALONE);
    const requests = randomRequests(new Random(7), 256).flatMap((request, i) =>
      i % 3 === 0 ? [request, withGrammar(request)] : [request],
    );
    const expected = new Collector();
    for (const request of requests) {
      alone.add(request);
      runToEnd(alone, expected);
    }
    const seen = { preemptions: 0, evictions: 0, cacheHitRate: 0 };
    for (const [chunkedPrefillSize, maxTotalTokens, overlap] of [
      [8, 512, true],
      [50, 400, false],
      [-1, 640, true],
    ] as const) {
      const crowded = setUp(maxTotalTokens, {
        chunkedPrefillSize,
        maxPrefillTokens: 96,
        maxRunningRequests: 8,
        disableRadixCache: false,
        overlap,
      });
      for (const request of requests) crowded.add(request);
      const actual = runToEnd(crowded);
      for (const { id } of requests) {
        const [one, other] = [actual.get(id), expected.get(id)];
        expect(one.tokens).toStrictEqual(other.tokens);
        expect(one.logprobs).toStrictEqual(other.logprobs);
        expect(one.prompt!.logprobs).toStrictEqual(other.prompt!.logprobs);
        expect(one.finish).toStrictEqual(other.finish);
      }
      const status = crowded.status();
      seen.preemptions += status.preemptions;
      seen.evictions += status.evictions;
      seen.cacheHitRate += status.cacheHitRate;
    }
    expect(Math.min(seen.preemptions, seen.evictions, seen.cacheHitRate)).toBeGreaterThan(0);
  });
});
