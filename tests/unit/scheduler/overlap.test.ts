import { describe, expect, test } from '@jest/globals';
import type { ForwardSlice, SliceResult } from '../../../lib/engine/types.js';
import { Scheduler, type SchedulerOptions } from '../../../lib/scheduler/scheduler.js';
import { FakeEngine } from './fake-engine.js';
import { Collector, makeRequest, runToEnd } from './requests.js';
import { expectAnswers, prompt, setUp, shape } from './set-up.js';

/** Writes down in which order steps are submitted and collected. */
class RecordingEngine extends FakeEngine {
  readonly calls: string[] = [];

  override submit(slices: ForwardSlice[]): void {
    super.submit(slices);
    this.calls.push(`submit ${this.forwards.length}`);
  }

  override collect(): SliceResult[] {
    const results = super.collect();
    this.calls.push('collect');
    return results;
  }
}

function recording(given: Partial<SchedulerOptions> = {}): { engine: RecordingEngine; scheduler: Scheduler } {
  const engine = new RecordingEngine(16, 100, 1000);
  const options = { chunkedPrefillSize: 64, maxPrefillTokens: 128, maxRunningRequests: 64, disableRadixCache: false };
  return { engine, scheduler: new Scheduler(engine, { ...options, overlap: true, ...given }) };
}

describe('overlap', () => {
  test('a step is submitted before the one before it is collected, whose token it names by its slice', () => {
    const { engine, scheduler } = recording();
    const requests = ['a', 'b'].map((id, i) => makeRequest(id, prompt(5, i), { stop: { maxNewTokens: 3 } }));
    for (const request of requests) scheduler.add(request);
    expect(scheduler.step()).toEqual([]);
    const collector = new Collector();
    collector.add(scheduler.step());
    expect(['a', 'b'].map((id) => collector.get(id).tokens.length)).toEqual([1, 1]);
    expectAnswers(runToEnd(scheduler, collector), requests);
    expect(engine.calls).toEqual(['submit 1', 'submit 2', 'collect', 'submit 3', 'collect', 'collect']);
    expect(engine.forwards.slice(1).map((slices) => slices.map(({ tokens }) => Array.from(tokens)))).toEqual([
      [[-1], [-2]],
      [[-1], [-2]],
    ]);
  });

  test('nothing is computed past the length limit, nor for max_new_tokens 0', () => {
    const { engine, scheduler } = recording();
    const requests = [0, 1, 2, 4].map((maxNewTokens) =>
      makeRequest(`r${maxNewTokens}`, prompt(9, maxNewTokens), { stop: { maxNewTokens } }),
    );
    for (const request of requests) scheduler.add(request);
    expectAnswers(runToEnd(scheduler), requests);
    expect(shape(engine)).toEqual([[9, 9, 9, 9], [1, 1], [1], [1]]);
  });

  test('what follows a stop token is dropped, and its pages are free at once', () => {
    const { engine, scheduler } = recording();
    const free = makeRequest('free', prompt(10), { stop: { maxNewTokens: 30 } });
    scheduler.add(free);
    const { tokens } = runToEnd(scheduler).get('free');
    const stopped = makeRequest('stopped', prompt(10), { stop: { maxNewTokens: 30, stopTokenIds: [tokens[4]!] } });
    scheduler.add(stopped);
    const before = engine.forwards.length;
    const collector = new Collector();
    while (collector.requests.get('stopped')?.finish === undefined) collector.add(scheduler.step());
    expectAnswers(collector, [stopped]);
    const length = collector.get('stopped').tokens.length;
    expect(engine.forwards.length - before).toBe(length + 1);
    // One step too many is under way, yet whoever was told of the end may empty the cache.
    expect(scheduler.isBusy).toBe(true);
    expect(scheduler.status()).toMatchObject({ runningRequests: 0, usedTokens: 0 });
    expect(scheduler.flushCache()).toMatchObject({ success: true });
    expect(scheduler.step()).toEqual([]);
    expect(scheduler.isBusy).toBe(false);
    expect(() => engine.collect()).toThrow('no step is under way');
  });

  test('pages given up by an aborted request serve the next one while the old step is under way', () => {
    const engine = new RecordingEngine(16, 3, 48);
    const options = { chunkedPrefillSize: -1, maxPrefillTokens: 128, maxRunningRequests: 4, disableRadixCache: true };
    const scheduler = new Scheduler(engine, { ...options, overlap: true });
    scheduler.add(makeRequest('old', prompt(40), { stop: { maxNewTokens: 8 } }));
    scheduler.step();
    scheduler.abort(['old'], 'gone');
    const next = makeRequest('next', prompt(40, 5), { stop: { maxNewTokens: 8 } });
    scheduler.add(next);
    const collector = runToEnd(scheduler);
    expectAnswers(collector, [next], 48);
    expect([...collector.requests.keys()]).toEqual(['next']);
    expect(engine.calls.slice(0, 3)).toEqual(['submit 1', 'submit 2', 'collect']);
  });

  test('penalties wait for the tokens that they count, and only where there are any', () => {
    const { engine, scheduler } = recording();
    const request = makeRequest('a', prompt(100), {
      sampling: { temperature: 1, frequencyPenalty: 0.7, repetitionPenalty: 1.2 },
      stop: { maxNewTokens: 3 },
    });
    scheduler.add(request);
    expectAnswers(runToEnd(scheduler), [request]);
    expect(engine.calls).toEqual([
      ...['submit 1', 'submit 2', 'collect'],
      ...['collect', 'submit 3', 'collect', 'submit 4', 'collect'],
    ]);
  });

  test('nobody is preempted before the step under way has said who ends', () => {
    const { engine, scheduler } = setUp({ pages: 4, overlap: true });
    // `a` ends with its 32nd token, just when `b` needs the last page.
    const requests = [
      makeRequest('a', prompt(28, 1), { stop: { maxNewTokens: 5 } }),
      makeRequest('b', prompt(12, 2), { stop: { maxNewTokens: 40 } }),
    ];
    for (const request of requests) scheduler.add(request);
    expectAnswers(runToEnd(scheduler), requests);
    expect(scheduler.status().preemptions).toBe(0);
    expect(engine.forwards.length).toBeGreaterThan(0);
  });

  test('a page can be shared as soon as the step that fills it is submitted', () => {
    const { engine, scheduler } = recording();
    const requests = ['first', 'copy'].map((id, i) =>
      makeRequest(id, [...prompt(64), i], { stop: { maxNewTokens: 2 } }),
    );
    for (const request of requests) scheduler.add(request);
    const collector = runToEnd(scheduler);
    expectAnswers(collector, requests);
    expect(collector.get('copy').prompt!.cachedTokens).toBe(64);
    expect(shape(engine)).toEqual([[64], [1, 1], [1, 1]]);
  });

  test('output is cached as far as it is known', () => {
    const { scheduler } = recording();
    const first = makeRequest('first', prompt(20), { stop: { maxNewTokens: 29 } });
    scheduler.add(first);
    const whole = [...first.inputIds, ...runToEnd(scheduler).get('first').tokens];
    const again = makeRequest('again', [...whole, 1]);
    scheduler.add(again);
    const collector = runToEnd(scheduler);
    expect(collector.get('again').prompt!.cachedTokens).toBe(48);
    expectAnswers(collector, [again]);
  });
});
