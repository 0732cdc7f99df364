import { beforeEach, describe, expect, test } from '@jest/globals';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DetinferError } from '../../../lib/protocol/errors.js';
import type { FromWorker, RequestEvent } from '../../../lib/protocol/messages.js';
import { Scheduler } from '../../../lib/scheduler/scheduler.js';
import { WorkerLoop } from '../../../lib/worker/worker-loop.js';
import { FakeEngine } from '../scheduler/fake-engine.js';
import { referenceAnswer } from '../scheduler/reference-answer.js';
import { Collector, makeRequest } from '../scheduler/requests.js';

class FailingEngine extends FakeEngine {
  failsAt = Infinity;
  collectFails = false;

  override submit(slices: Parameters<FakeEngine['submit']>[0]): void {
    if (this.forwards.length >= this.failsAt) throw new DetinferError('ENGINE_FAILED', 'the engine broke');
    super.submit(slices);
  }

  /** Where the errors of a GPU come up: it is at work when submit returns. */
  override collect(): ReturnType<FakeEngine['collect']> {
    if (this.collectFails) throw new DetinferError('ENGINE_FAILED', 'CUDA error 700');
    return super.collect();
  }
}

let engine: FailingEngine;
let loop: WorkerLoop;
let sent: FromWorker[];
let errors: unknown[];

function setUp(overlap: boolean): void {
  engine = new FailingEngine(16, 20, 200);
  const scheduler = new Scheduler(engine, {
    chunkedPrefillSize: 64,
    maxPrefillTokens: 64,
    maxRunningRequests: 4,
    disableRadixCache: false,
    overlap,
  });
  sent = [];
  errors = [];
  loop = new WorkerLoop(
    scheduler,
    5,
    (message) => sent.push(message),
    (error) => errors.push(error),
  );
}

beforeEach(() => setUp(false));

const events = (): RequestEvent[] => sent.flatMap((message) => (message.type === 'step' ? message.events : []));

async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 1000) throw new Error('the loop does not get there');
    await nextTurn();
  }
}

const finished = (count: number) => (): boolean =>
  events().filter(({ finish }) => finish !== undefined).length >= count;

describe('WorkerLoop', () => {
  test('runs requests to their end, one message per step, and then rests', async () => {
    const requests = [makeRequest('a', [1, 2, 3]), makeRequest('b', [4, 5])];
    loop.handle({ type: 'submit', requests });
    expect(sent).toEqual([]);
    await until(finished(2));
    const collector = new Collector();
    collector.add(events());
    for (const request of requests)
      expect(collector.get(request.id).tokens).toEqual(referenceAnswer(request, 200).tokens);
    expect(sent.filter(({ type }) => type === 'step')).toHaveLength(8);
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(engine.forwards).toHaveLength(8);
    loop.handle({ type: 'submit', requests: [makeRequest('c', [1])] });
    await until(finished(3));
  });

  test.each([false, true])('plans no step while it is paused, overlap %s', async (overlap) => {
    setUp(overlap);
    const request = makeRequest('a', [1, 2, 3], { stop: { maxNewTokens: 20 } });
    loop.handle({ type: 'submit', requests: [request] });
    await until(() => engine.forwards.length === 5);
    loop.handle({ type: 'pause', isPaused: true });
    loop.handle({ type: 'submit', requests: [makeRequest('b', [1]), makeRequest('c', [2])] });
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(engine.forwards).toHaveLength(5);
    loop.handle({ type: 'abort', ids: ['c'], message: 'enough' });
    expect(events().at(-1)).toMatchObject({ id: 'c', finish: { type: 'abort' } });
    loop.handle({ type: 'pause', isPaused: false });
    await until(finished(3));
    const collector = new Collector();
    collector.add(events());
    expect(collector.get('a').tokens).toEqual(referenceAnswer(request, 200).tokens);
  });

  test('heeds a message between two steps', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1, 2, 3], { stop: { maxNewTokens: 100 } })] });
    await until(() => events().length === 3);
    loop.handle({ type: 'submit', requests: [makeRequest('b', [7])] });
    loop.handle({ type: 'abort', ids: ['a', 'unknown'], message: 'gone' });
    expect(events().at(-1)).toEqual({ id: 'a', tokens: [], finish: { type: 'abort', message: 'gone' } });
    await until(finished(2));
    expect(engine.forwards.slice(3).every((slices) => slices.length === 1)).toBe(true);
  });

  test('answers a refused request and goes on with the others', async () => {
    loop.handle({
      type: 'submit',
      requests: [makeRequest('long', new Array<number>(201).fill(1)), makeRequest('a', [1])],
    });
    expect(events()).toEqual([
      {
        id: 'long',
        tokens: [],
        finish: { type: 'abort', code: 'INVALID_REQUEST', message: expect.stringContaining('201 tokens') },
      },
    ]);
    await until(finished(2));
  });

  test('answers calls by their id', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1])] });
    loop.handle({ type: 'flushCache', callId: 7 });
    loop.handle({ type: 'status', callId: 8 });
    expect(sent).toMatchObject([
      { type: 'flushed', callId: 7, success: false },
      { type: 'status', callId: 8, status: { waitingRequests: 1, runningRequests: 0 } },
    ]);
    await until(finished(1));
    loop.handle({ type: 'flushCache', callId: 9 });
    expect(sent.at(-1)).toMatchObject({ type: 'flushed', callId: 9, success: true });
  });

  test('stops at an error of the engine and reports it once', async () => {
    engine.failsAt = 2;
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1])] });
    await until(() => errors.length > 0);
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(errors).toMatchObject([{ code: 'ENGINE_FAILED', message: 'the engine broke' }]);
    loop.handle({ type: 'submit', requests: [makeRequest('b', [1])] });
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(errors).toHaveLength(1);
    expect(engine.forwards).toHaveLength(2);
  });

  test('stop aborts what is live and steps no more', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1]), makeRequest('b', [2])] });
    await until(() => events().length > 0);
    const steps = engine.forwards.length;
    const finish = { type: 'abort', message: 'stopping', code: 'SHUTTING_DOWN' };
    expect(loop.stop('stopping')).toEqual(['a', 'b'].map((id) => ({ id, tokens: [], finish })));
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(engine.forwards).toHaveLength(steps);
  });

  test('logs a line every so many decode steps', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1, 2, 3], { stop: { maxNewTokens: 14 } })] });
    await until(finished(1));
    const lines = sent.filter(({ type }) => type === 'log');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatchObject({
      level: 'info',
      message: expect.stringMatching(
        /^Decode batch\. #running-req: 1, #token: 16, token usage: 0\.05, gen throughput \(token\/s\): \d+\.\d\d, #queue-req: 0$/,
      ),
    });
  });
});

describe('WorkerLoop with overlap', () => {
  beforeEach(() => setUp(true));

  test('tells of a step once the next one is submitted, and collects all before it rests', async () => {
    const stepsAtEvents: number[] = [];
    const send = sent.push.bind(sent);
    sent.push = (...messages) => {
      stepsAtEvents.push(engine.forwards.length);
      return send(...messages);
    };
    const request = makeRequest('a', [1, 2, 3], { stop: { maxNewTokens: 4 } });
    loop.handle({ type: 'submit', requests: [request] });
    await until(finished(1));
    expect(stepsAtEvents).toEqual([2, 3, 4, 4]);
    const collector = new Collector();
    collector.add(events());
    expect(collector.get('a').tokens).toEqual(referenceAnswer(request, 200).tokens);
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(() => engine.collect()).toThrow('no step is under way');
  });

  test('heeds an abort while a step is under way, and forgets what that one gives', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1, 2, 3], { stop: { maxNewTokens: 100 } })] });
    await until(() => events().length === 3);
    loop.handle({ type: 'abort', ids: ['a'], message: 'gone' });
    loop.handle({ type: 'flushCache', callId: 1 });
    const steps = engine.forwards.length;
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(engine.forwards).toHaveLength(steps);
    expect(() => engine.collect()).toThrow('no step is under way');
    expect(events().at(-1)).toEqual({ id: 'a', tokens: [], finish: { type: 'abort', message: 'gone' } });
    expect(sent.at(-1)).toMatchObject({ type: 'flushed', success: true });
  });

  test('stops at an error of the engine and reports it once', async () => {
    engine.failsAt = 2;
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1])] });
    await until(() => errors.length > 0);
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(errors).toMatchObject([{ code: 'ENGINE_FAILED', message: 'the engine broke' }]);
    expect(engine.forwards).toHaveLength(2);
  });

  test('stops at an error that comes up while a step runs', async () => {
    loop.handle({ type: 'submit', requests: [makeRequest('a', [1, 2], { stop: { maxNewTokens: 50 } })] });
    await until(() => events().length === 2);
    engine.collectFails = true;
    await until(() => errors.length > 0);
    const steps = engine.forwards.length;
    for (let i = 0; i < 10; i++) await nextTurn();
    expect(errors).toMatchObject([{ code: 'ENGINE_FAILED', message: 'CUDA error 700' }]);
    expect(engine.forwards).toHaveLength(steps);
    expect(events()).toHaveLength(2);
  });
});
