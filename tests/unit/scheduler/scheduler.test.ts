import { describe, expect, test } from '@jest/globals';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import type { Scheduler } from '../../../lib/scheduler/scheduler.js';
import { Collector, makeRequest, runToEnd } from './requests.js';
import { expectAnswers, prompt, setUp, shape } from './set-up.js';

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

  test('a short prompt does not overtake one that waits for the budget of a step', () => {
    const { engine, scheduler } = setUp({ chunkedPrefillSize: -1, maxPrefillTokens: 100 });
    for (const [i, length] of [80, 90, 10].entries()) scheduler.add(makeRequest(`r${i}`, prompt(length, i)));
    scheduler.step();
    scheduler.step();
    expect(shape(engine)).toEqual([[80], [1, 90, 10]]);
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
    for (const [id, salt] of [
      ['first', 0],
      ['copy', 0],
      ['other', 9],
    ] as const) {
      scheduler.add(makeRequest(id, prompt(40, salt)));
    }
    expect(scheduler.step().map(({ id }) => id)).toEqual(['first', 'other']);
    for (let i = 0; i < 2; i++) {
      expect(scheduler.step().map(({ id }) => id)).toEqual(['first', 'copy', 'other']);
    }
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
    expect(scheduler.abortAll('stopping', 'SHUTTING_DOWN')).toEqual(
      ['a', 'b'].map((id) => ({ id, tokens: [], finish })),
    );
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
