import { describe, expect, test } from '@jest/globals';
import { Collector, makeRequest, runToEnd } from './requests.js';
import { expectAnswers, prompt, setUp, shape } from './set-up.js';

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
    const prefilled = shape(engine)
      .flat()
      .filter((length) => length > 1);
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
    expect(engine.forwards.at(-1)!.map(({ start, tokens }) => [start, tokens.length])).toEqual([
      [16, 16],
      [16, 16],
    ]);
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
    expect(scheduler.flushCache()).toEqual({
      success: false,
      message: expect.stringContaining('0 requests run and 1 wait'),
    });
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

  test('a small request does not overtake one that waits for pages', () => {
    const { engine, scheduler } = setUp({ pages: 10, maxPrefillTokens: 1000, chunkedPrefillSize: -1 });
    for (const [i, length] of [80, 90, 16].entries()) scheduler.add(makeRequest(`r${i}`, prompt(length, i)));
    runToEnd(scheduler);
    expect(shape(engine).slice(0, 9)).toEqual([[80], ...new Array(7).fill([1]), [90, 16]]);
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
