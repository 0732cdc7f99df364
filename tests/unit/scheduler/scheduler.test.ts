import { describe, expect, test } from '@jest/globals';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { Scheduler, type SchedulerOptions } from '../../../lib/scheduler/scheduler.js';
import { FakeEngine } from './fake-engine.js';
import { referenceAnswer } from './reference-answer.js';
import { Collector, makeRequest, runToEnd } from './requests.js';

const OPTIONS: SchedulerOptions = {
  chunkedPrefillSize: 64,
  maxPrefillTokens: 128,
  maxRunningRequests: 64,
  disableRadixCache: false,
};

function setUp(
  given: Partial<SchedulerOptions> & { pages?: number; contextLength?: number } = {},
): { engine: FakeEngine; scheduler: Scheduler } {
  const { pages = 100, contextLength = 1000, ...options } = given;
  const engine = new FakeEngine(16, pages, contextLength);
  return { engine, scheduler: new Scheduler(engine, { ...OPTIONS, ...options }) };
}

/** `length` token ids; different salts differ from the first token on. */
function prompt(length: number, salt = 0): number[] {
  return Array.from({ length }, (_, i) => (salt + i * i + Math.floor(i / 7)) % 24);
}

/** Tokens of each slice of each step. */
const shape = (engine: FakeEngine): number[][] =>
  engine.forwards.map((slices) => slices.map(({ tokens }) => tokens.length));

function expectAnswers(collector: Collector, requests: WorkerRequest[], lengthLimit = 1000): void {
  for (const request of requests) {
    const expected = referenceAnswer(request, lengthLimit);
    const actual = collector.get(request.id);
    expect(actual.tokens).toEqual(expected.tokens);
    expect(actual.finish).toEqual(expected.finish);
    expect(actual.logprobs).toEqual(expected.logprobs);
    expect(actual.prompt!.logprobs).toEqual(expected.promptLogprobs);
  }
}

describe('batching', () => {
  test('decodes run in every step beside the chunks of a long prompt', () => {
    const { engine, scheduler } = setUp();
    const short = makeRequest('short', prompt(5), { stop: { maxNewTokens: 20 } });
    const long = makeRequest('long', prompt(300, 3), { stop: { maxNewTokens: 2 } });
    scheduler.add(short);
    const collector = new Collector();
    collector.add(scheduler.step());
    scheduler.add(long);
    runToEnd(scheduler, collector);
    expectAnswers(collector, [short, long]);
    expect(shape(engine).slice(0, 7)).toEqual([[5], [1, 64], [1, 64], [1, 64], [1, 64], [1, 44], [1, 1]]);
  });

  test('prompts share the budget of a step in order of arrival, while decodes go on', () => {
    const { engine, scheduler } = setUp({ maxPrefillTokens: 100 });
    scheduler.add(makeRequest('a', prompt(3, 1)));
    const collector = new Collector();
    collector.add(scheduler.step());
    for (const [i, id] of ['b', 'c', 'd'].entries()) scheduler.add(makeRequest(id, prompt(90, 5 + i)));
    runToEnd(scheduler, collector);
    expect(shape(engine).slice(1, 5)).toEqual([
      [1, 64, 36],
      [1, 26, 54, 20],
      [1, 1, 1, 64],
      [1, 1, 1, 6],
    ]);
  });

  test('without chunked prefill each prompt runs whole', () => {
    const { engine, scheduler } = setUp({ chunkedPrefillSize: -1, maxPrefillTokens: 100 });
    for (const [i, length] of [300, 60, 40, 10].entries()) {
      scheduler.add(makeRequest(`r${i}`, prompt(length, i), { stop: { maxNewTokens: 1 } }));
    }
    runToEnd(scheduler);
    expect(shape(engine)).toEqual([[300], [60, 40], [10]]);
  });

  test('no more requests run than allowed; they start first come, first served', () => {
    const { engine, scheduler } = setUp({ maxRunningRequests: 2 });
    for (let i = 0; i < 5; i++) scheduler.add(makeRequest(`r${i}`, prompt(4, i), { stop: { maxNewTokens: 3 } }));
    const order: string[] = [];
    while (scheduler.isBusy) {
      for (const { id, prompt: first } of scheduler.step()) if (first !== undefined) order.push(id);
    }
    expect(order).toEqual(['r0', 'r1', 'r2', 'r3', 'r4']);
    expect(Math.max(...engine.forwards.map((slices) => slices.length))).toBe(2);
  });

  test('the events of a step are in order of arrival', () => {
    const { scheduler } = setUp();
    // The copy waits for the page that `first` computes, so `other` starts before it.
    for (const [id, salt] of [['first', 0], ['copy', 0], ['other', 9]] as const) {
      scheduler.add(makeRequest(id, prompt(40, salt)));
    }
    expect(scheduler.step().map(({ id }) => id)).toEqual(['first', 'other']);
    for (let i = 0; i < 2; i++) {
      expect(scheduler.step().map(({ id }) => id)).toEqual(['first', 'copy', 'other']);
    }
  });
});

describe('prefix cache', () => {
  test('fifty copies that arrive together compute their prompt once', () => {
    const { engine, scheduler } = setUp();
    const requests = Array.from({ length: 50 }, (_, i) =>
      makeRequest(`r${i}`, prompt(70), { sampling: { temperature: 1, seed: 42 + i }, stop: { maxNewTokens: 4 } }),
    );
    for (const request of requests) scheduler.add(request);
    const collector = runToEnd(scheduler);
    expectAnswers(collector, requests);
    expect(requests.map(({ id }) => collector.get(id).prompt!.cachedTokens)).toEqual([0, ...new Array(49).fill(64)]);
    const prefilled = shape(engine).flat().filter((length) => length > 1);
    expect(prefilled.reduce((sum, length) => sum + length)).toBe(70 + 49 * 6);
  });

  test('a request waits only for the pages that it shares', () => {
    const { engine, scheduler } = setUp();
    const shared = prompt(32);
    scheduler.add(makeRequest('long', [...shared, ...prompt(300, 5)], { stop: { maxNewTokens: 1 } }));
    scheduler.add(makeRequest('short', [...shared, ...prompt(10, 7)], { stop: { maxNewTokens: 1 } }));
    runToEnd(scheduler);
    expect(shape(engine).slice(0, 2)).toEqual([[64], [64, 10]]);
  });

  test('a request waits for nobody with whom it shares less than a page', () => {
    const { engine, scheduler } = setUp();
    scheduler.add(makeRequest('a', [...prompt(15), 1, ...prompt(20)]));
    scheduler.add(makeRequest('b', [...prompt(15), 2, ...prompt(20)]));
    scheduler.step();
    expect(shape(engine)).toEqual([[36, 36]]);
  });

  test('pages that follow different prefixes are not mistaken for the ones awaited', () => {
    const { engine, scheduler } = setUp({ maxPrefillTokens: 1000, chunkedPrefillSize: 16 });
    scheduler.add(makeRequest('cached', prompt(17, 1), { stop: { maxNewTokens: 1 } }));
    runToEnd(scheduler);
    // `running` is about to compute the tokens that come second in `other`, but after another first page.
    scheduler.add(makeRequest('running', [...prompt(16, 2), ...prompt(40, 3)]));
    scheduler.step();
    scheduler.add(makeRequest('other', [...prompt(16, 1), ...prompt(40, 3)]));
    scheduler.step();
    expect(engine.forwards.at(-1)!.map(({ start, tokens }) => [start, tokens.length])).toEqual([[16, 16], [16, 16]]);
  });

  test('a request whose donor is aborted goes on by itself', () => {
    const { scheduler } = setUp();
    const copy = makeRequest('copy', prompt(200));
    scheduler.add(makeRequest('donor', prompt(200)));
    scheduler.add(copy);
    scheduler.step();
    scheduler.abort(['donor'], 'gone');
    const collector = runToEnd(scheduler);
    expectAnswers(collector, [copy]);
    expect(collector.get('copy').prompt!.cachedTokens).toBe(64);
  });

  test('output is cached too, and at least one prompt token is always computed', () => {
    const { scheduler } = setUp();
    const first = makeRequest('first', prompt(20), { stop: { maxNewTokens: 28 } });
    scheduler.add(first);
    const { tokens } = runToEnd(scheduler).get('first');
    const whole = [...first.inputIds, ...tokens];
    const again = makeRequest('again', whole);
    scheduler.add(again);
    const exact = makeRequest('exact', whole.slice(0, 32));
    scheduler.add(exact);
    const collector = runToEnd(scheduler);
    // 48 tokens are known, but the last one drawn was never computed.
    expect(collector.get('again').prompt!.cachedTokens).toBe(32);
    expect(collector.get('exact').prompt!.cachedTokens).toBe(16);
    expectAnswers(collector, [again, exact]);
    expect(scheduler.status().cacheHitRate).toBe(48 / 100);
  });

  test('prompt logprobs are computed, never skipped by a cached prefix', () => {
    const { scheduler } = setUp();
    scheduler.add(makeRequest('first', prompt(100)));
    runToEnd(scheduler);
    const cached = [0, 15, 16, 50, 99, 100].map((promptStart, i) => {
      const request = makeRequest(`r${i}`, prompt(100), { logprobs: { promptStart, top: 2, tokenIds: [3] } });
      scheduler.add(request);
      const collector = runToEnd(scheduler);
      expectAnswers(collector, [request]);
      expect(collector.get(request.id).prompt!.logprobs).toHaveLength(100 - promptStart);
      return collector.get(request.id).prompt!.cachedTokens;
    });
    expect(cached).toEqual([0, 0, 16, 48, 96, 96]);
  });

  test('flushCache empties it, but not under live requests', () => {
    const { scheduler } = setUp();
    scheduler.add(makeRequest('a', prompt(100)));
    expect(scheduler.flushCache()).toEqual({ success: false, message: expect.stringContaining('0 requests run and 1 wait') });
    runToEnd(scheduler);
    expect(scheduler.status().cachedTokens).toBe(96);
    expect(scheduler.flushCache().success).toBe(true);
    expect(scheduler.status()).toMatchObject({ cachedTokens: 0, usedTokens: 0, evictions: 0 });
    scheduler.add(makeRequest('b', prompt(100)));
    expect(runToEnd(scheduler).get('b').prompt!.cachedTokens).toBe(0);
  });

  test('disableRadixCache shares nothing, nor waits for anybody', () => {
    const { engine, scheduler } = setUp({ disableRadixCache: true });
    for (const id of ['a', 'b']) scheduler.add(makeRequest(id, prompt(50)));
    const collector = runToEnd(scheduler);
    expect(shape(engine)[0]).toEqual([50, 50]);
    expect(collector.get('b').prompt!.cachedTokens).toBe(0);
    expect(scheduler.status().cachedTokens).toBe(0);
  });

  test('makes room by evicting what was used least recently', () => {
    const { scheduler } = setUp({ pages: 10 });
    const run = (id: string, salt: number, length: number): number => {
      scheduler.add(makeRequest(id, prompt(length, salt), { stop: { maxNewTokens: 1 } }));
      return runToEnd(scheduler).get(id).prompt!.cachedTokens;
    };
    run('a', 1, 64);
    run('b', 2, 64);
    expect(run('a again', 1, 65)).toBe(64);
    run('c', 3, 64);
    expect(scheduler.status().evictions).toBeGreaterThan(0);
    expect(run('a still', 1, 65)).toBe(64);
  });
});

describe('running out of pages', () => {
  test('the youngest request gives way, comes back and ends with the same answer', () => {
    const { scheduler } = setUp({ pages: 8 });
    const requests = ['old', 'middle', 'young'].map((id, salt) =>
      makeRequest(id, prompt(20, salt), {
        sampling: { temperature: 1, frequencyPenalty: 0.3 },
        stop: { maxNewTokens: 60 },
        logprobs: { promptStart: 0, top: 2, tokenIds: [1] },
      }),
    );
    for (const request of requests) scheduler.add(request);
    const ends: string[] = [];
    const collector = new Collector();
    while (scheduler.isBusy) {
      const events = scheduler.step();
      collector.add(events);
      for (const { id, finish } of events) if (finish !== undefined) ends.push(id);
    }
    expectAnswers(collector, requests);
    expect(scheduler.status().preemptions).toBeGreaterThan(0);
    expect(ends).toEqual(['old', 'middle', 'young']);
  });

  test('a preempted request keeps its place before younger ones', () => {
    const { scheduler } = setUp({ pages: 6, maxRunningRequests: 2 });
    for (const [i, id] of ['a', 'b', 'c'].entries()) {
      scheduler.add(makeRequest(id, prompt(17, i), { stop: { maxNewTokens: 40 } }));
    }
    const firsts: string[] = [];
    const ends: string[] = [];
    while (scheduler.isBusy) {
      for (const event of scheduler.step()) {
        if (event.prompt !== undefined) firsts.push(event.id);
        if (event.finish !== undefined) ends.push(event.id);
      }
    }
    expect(scheduler.status().preemptions).toBeGreaterThan(0);
    expect(firsts).toEqual(['a', 'b', 'c']);
    expect(ends).toEqual(['a', 'b', 'c']);
  });

  test('a preempted prefill does not score its prompt twice', () => {
    const { engine, scheduler } = setUp({ pages: 9, chunkedPrefillSize: 1 });
    const old = makeRequest('old', prompt(30, 1), { stop: { maxNewTokens: 90 } });
    scheduler.add(old);
    const collector = new Collector();
    for (let i = 0; i < 30; i++) collector.add(scheduler.step());
    const young = makeRequest('young', prompt(70, 2), {
      stop: { maxNewTokens: 5 },
      logprobs: { promptStart: 0, top: 0, tokenIds: [] },
    });
    scheduler.add(young);
    runToEnd(scheduler, collector);
    expect(scheduler.status().preemptions).toBeGreaterThan(0);
    expectAnswers(collector, [old, young]);
    const scored = engine.forwards.flat().reduce((sum, { score }) => sum + (score?.targets.length ?? 0), 0);
    expect(scored).toBe(69);
    // What it found when it came back was its own.
    expect(collector.get('young').prompt!.cachedTokens).toBe(0);
  });

  test('a request may fill all pages', () => {
    const { scheduler } = setUp({ pages: 4 });
    const request = makeRequest('full', prompt(60), { stop: { maxNewTokens: 100 } });
    scheduler.add(makeRequest('other', prompt(30, 2)));
    scheduler.add(request);
    const collector = runToEnd(scheduler);
    expectAnswers(collector, [request], 64);
    expect(collector.get('full').finish).toEqual({ type: 'length', length: 4 });
  });
});

describe('the end of a request', () => {
  test('the context ends a generation', () => {
    const { scheduler } = setUp({ contextLength: 30 });
    scheduler.add(makeRequest('a', prompt(25), { stop: { maxNewTokens: 100 } }));
    scheduler.add(makeRequest('full', prompt(30, 1)));
    const collector = runToEnd(scheduler);
    expect(collector.get('a').finish).toEqual({ type: 'length', length: 5 });
    expect(collector.get('full').finish).toEqual({ type: 'length', length: 0 });
  });

  test('max_new_tokens 0 only scores', () => {
    const { engine, scheduler } = setUp();
    const request = makeRequest('a', prompt(100), {
      stop: { maxNewTokens: 0 },
      logprobs: { promptStart: 0, top: 1, tokenIds: [] },
    });
    scheduler.add(request);
    const collector = runToEnd(scheduler);
    expectAnswers(collector, [request]);
    expect(collector.get('a').prompt!.logprobs).toHaveLength(100);
    expect(engine.forwards.flat().every(({ sample }) => sample === null)).toBe(true);
  });

  test('a stop id ends a generation and is part of it, but not before min_new_tokens', () => {
    const { scheduler } = setUp();
    const free = makeRequest('free', prompt(10), { stop: { maxNewTokens: 30 } });
    scheduler.add(free);
    const { tokens } = runToEnd(scheduler).get('free');
    const stopId = tokens[2]!;
    const stopped = makeRequest('stopped', prompt(10), { stop: { maxNewTokens: 30, stopTokenIds: [stopId] } });
    const later = makeRequest('later', prompt(10), {
      sampling: { logitBias: [[stopId, Infinity]] },
      stop: { maxNewTokens: 30, stopTokenIds: [stopId], minNewTokens: 7 },
    });
    scheduler.add(stopped);
    scheduler.add(later);
    const collector = runToEnd(scheduler);
    expect(collector.get('stopped').tokens).toEqual(tokens.slice(0, tokens.indexOf(stopId) + 1));
    expect(collector.get('stopped').finish).toEqual({ type: 'stop', matched: stopId });
    expect(collector.get('later').tokens.indexOf(stopId)).toBe(7);
    expect(collector.get('later').tokens).toHaveLength(8);
  });

  test('a stop id that is the last token allowed is a stop', () => {
    const { scheduler } = setUp();
    scheduler.add(makeRequest('free', prompt(10), { stop: { maxNewTokens: 1 } }));
    const [token] = runToEnd(scheduler).get('free').tokens;
    scheduler.add(makeRequest('stopped', prompt(10), { stop: { maxNewTokens: 1, stopTokenIds: [token!] } }));
    expect(runToEnd(scheduler).get('stopped').finish).toEqual({ type: 'stop', matched: token });
  });

  test('aborts end running and waiting requests at once and free their pages', () => {
    const { scheduler } = setUp({ maxRunningRequests: 1 });
    for (const id of ['a', 'b', 'c']) scheduler.add(makeRequest(id, prompt(40, id.charCodeAt(0))));
    scheduler.step();
    const events = scheduler.abort(['b', 'nobody', 'a'], 'the client went away');
    expect(events).toEqual(
      ['b', 'a'].map((id) => ({ id, tokens: [], finish: { type: 'abort', message: 'the client went away' } })),
    );
    expect(scheduler.status()).toMatchObject({ runningRequests: 0, waitingRequests: 1, usedTokens: 0 });
    expect([...runToEnd(scheduler).requests.keys()]).toEqual(['c']);
    expect(scheduler.abort(['a'], 'again')).toEqual([]);
  });

  test('abortAll ends everything with a code', () => {
    const { scheduler } = setUp();
    for (const id of ['a', 'b']) scheduler.add(makeRequest(id, prompt(5)));
    const finish = { type: 'abort', message: 'stopping', code: 'SHUTTING_DOWN' };
    expect(scheduler.abortAll('stopping', 'SHUTTING_DOWN')).toEqual(['a', 'b'].map((id) => ({ id, tokens: [], finish })));
    expect(scheduler.isBusy).toBe(false);
    expect(scheduler.step()).toEqual([]);
  });
});

describe('refusals', () => {
  const refusal = (scheduler: Scheduler, request: WorkerRequest): unknown => {
    try {
      scheduler.add(request);
    } catch (error) {
      return error;
    }
    throw new Error('the request was accepted');
  };

  test('a prompt over the context length', () => {
    const { scheduler } = setUp({ contextLength: 30 });
    expect(refusal(scheduler, makeRequest('a', prompt(31)))).toMatchObject({
      code: 'INVALID_REQUEST',
      message: 'the prompt has 31 tokens, the limit is 30; shorten the prompt',
    });
  });

  test('a prompt that the pages cannot hold', () => {
    const { scheduler } = setUp({ pages: 2 });
    expect(refusal(scheduler, makeRequest('a', prompt(33)))).toMatchObject({
      code: 'INVALID_REQUEST',
      message: 'the prompt has 33 tokens, the limit is 32; raise --max-total-tokens or shorten the prompt',
    });
  });

  test('an empty prompt and a live id', () => {
    const { scheduler } = setUp();
    expect(refusal(scheduler, makeRequest('a', []))).toMatchObject({ code: 'INVALID_REQUEST' });
    scheduler.add(makeRequest('a', prompt(3)));
    expect(refusal(scheduler, makeRequest('a', prompt(3)))).toMatchObject({ code: 'INVALID_REQUEST' });
    runToEnd(scheduler);
    scheduler.add(makeRequest('a', prompt(3)));
    runToEnd(scheduler);
  });
});
