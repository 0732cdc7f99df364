import { afterEach, describe, expect, test } from '@jest/globals';
import { readModelFolder } from '../../../lib/engine/model-folder.js';
import { DetinferError } from '../../../lib/protocol/errors.js';
import type { WorkerRequest } from '../../../lib/protocol/messages.js';
import { Replicas } from '../../../lib/worker/replicas.js';
import { FakeWorker } from '../server/fake-worker.js';
import { Collector, makeRequest } from '../scheduler/requests.js';
import { workerArgs } from './worker-args.js';

/** Replicas whose workers are fakes in this process; every start makes another one. */
interface Fleet {
  replicas: Replicas;
  collector: Collector;
  /** All workers that were started, in order. */
  workers: FakeWorker[];
  exits: DetinferError[];
}

let fleet: Fleet;
afterEach(() => fleet.replicas.shutdown());

async function open(
  dpSize: number,
  prepare: (worker: FakeWorker) => void | Promise<void> = (worker) => worker.pause(),
): Promise<Fleet> {
  const collector = new Collector();
  const workers: FakeWorker[] = [];
  const exits: DetinferError[] = [];
  const replicas = await Replicas.open(
    workerArgs({ dpSize }),
    {
      onProgress: () => {},
      log: () => {},
      onStep: (events) => collector.add(events),
      onExit: (error) => exits.push(error),
    },
    async (_args, handlers) => {
      const worker = new FakeWorker();
      worker.handlers = handlers;
      workers.push(worker);
      await prepare(worker);
      return worker;
    },
  );
  return (fleet = { replicas, collector, workers, exits });
}

async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 2000) throw new Error('it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const ids = (requests: WorkerRequest[]): string[] => requests.map(({ id }) => id);
const counting = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);
/** A prompt of two pages, the same for the same salt. */
const pages = (salt: number): number[] => Array.from({ length: 40 }, (_, i) => (i * salt) % 4000);
const LONG = { stop: { maxNewTokens: 30 } };

describe('the death of a worker', () => {
  test('lets every request go on in the next one, in order, with nothing said twice', async () => {
    const { replicas, collector, workers } = await open(1);
    const logprobs = { promptStart: 0, top: 0, tokenIds: [] };
    const requests = [1, 2, 3].map((first) => makeRequest(`r${first}`, [first], { ...LONG, logprobs }));
    replicas.submit(requests.slice(0, 2));
    workers[0]!.step();
    workers[0]!.step();
    replicas.submit(requests.slice(2));
    workers[0]!.die();
    expect(replicas.isUp).toBe(false);
    await until(() => workers.length === 2 && workers[1]!.submitted.length === 3);
    expect(replicas.isUp).toBe(true);
    expect(workers[1]!.submitted.map(({ id, outputIds }) => [id, outputIds])).toEqual([
      ['r1', [1, 2]],
      ['r2', [2, 3]],
      ['r3', []],
    ]);
    workers[1]!.resume();
    await until(() => workers[1]!.liveCount === 0);
    for (const [i, { id }] of requests.entries()) {
      // The collector refuses a second prompt and an event after the last.
      expect(collector.get(id).tokens).toEqual(counting(i + 1, 30));
      expect(collector.get(id).logprobs).toHaveLength(30);
      expect(collector.get(id).finish).toEqual({ type: 'length', length: 30 });
    }
    expect(await replicas.status()).toMatchObject({ workerDeaths: 1, replays: 3 });
  });

  test('requests that come while there is no worker wait, and can be aborted', async () => {
    const { replicas, collector, workers } = await open(1);
    workers[0]!.die();
    replicas.submit([makeRequest('a', [1]), makeRequest('b', [2])]);
    expect((await replicas.status()).scheduler.waitingRequests).toBe(2);
    expect(await replicas.flushCache()).toMatchObject({ success: false });
    replicas.abort(['a'], 'enough');
    expect(collector.requests.size).toBe(0);
    await until(() => workers.length === 2 && collector.requests.has('a'));
    expect(collector.get('a').finish).toEqual({ type: 'abort', message: 'enough' });
    expect(ids(workers[1]!.submitted)).toEqual(['b']);
  });

  test('a request whose abort was on its way ends', async () => {
    const { replicas, collector, workers } = await open(1);
    replicas.submit([makeRequest('a', [1], LONG)]);
    workers[0]!.step();
    replicas.abort(['a'], 'enough');
    workers[0]!.die();
    await until(() => collector.get('a').finish !== undefined);
    expect(collector.get('a').finish).toEqual({ type: 'abort', message: 'enough' });
    await until(() => workers.length === 2);
    expect(workers[1]!.submitted).toEqual([]);
  });

  test('a model that has changed on disk is not taken for the old one', async () => {
    let started = 0;
    const { replicas, workers } = await open(1, (worker) => {
      if (++started === 2) Object.assign(worker.info, { vocabSize: 5 });
    });
    workers[0]!.die();
    await until(() => workers.length === 3);
    expect(workers[1]!.isShutDown).toBe(true);
    expect(replicas.isUp).toBe(true);
  });
});

describe('a request that takes its worker down', () => {
  const mortal = (worker: FakeWorker): void => void worker.killers.add(666);

  test('alone: fails at the third death', async () => {
    const { replicas, collector, workers } = await open(1, mortal);
    replicas.submit([makeRequest('poison', [666])]);
    await until(() => collector.requests.has('poison'));
    expect(workers.length).toBe(3);
    expect(collector.get('poison').finish).toEqual({
      type: 'abort',
      code: 'WORKER_DIED',
      message: expect.stringMatching(/died 3 times over this request.*was killed/),
    });
    await until(() => replicas.isUp);
  });

  test('among others: it alone fails, the others end as if nothing had happened', async () => {
    const { replicas, collector, workers } = await open(1, mortal);
    const others = counting(1, 20).map((first) => makeRequest(`r${first}`, [first], LONG));
    replicas.submit([...others.slice(0, 10), makeRequest('poison', [666], LONG), ...others.slice(10)]);
    await until(() => others.every(({ id }) => collector.requests.get(id)?.finish !== undefined));
    expect(collector.get('poison').finish).toMatchObject({ type: 'abort', code: 'WORKER_DIED' });
    for (const [i, { id }] of others.entries()) expect(collector.get(id).tokens).toEqual(counting(i + 1, 30));
    expect(workers.length).toBeLessThanOrEqual(5);
  });

  test('two of them: both fail, and nobody else', async () => {
    const { replicas, collector } = await open(1, mortal);
    const poisons = ['p1', 'p2'].map((id) => makeRequest(id, [666], LONG));
    const others = counting(1, 5).map((first) => makeRequest(`r${first}`, [first], LONG));
    replicas.submit([...poisons, ...others]);
    await until(() => [...others, ...poisons].every(({ id }) => collector.requests.get(id)?.finish !== undefined));
    for (const { id } of poisons) expect(collector.get(id).finish).toMatchObject({ code: 'WORKER_DIED' });
    for (const [i, { id }] of others.entries()) expect(collector.get(id).tokens).toEqual(counting(i + 1, 30));
  });

  test('suspects are tried one at a time; what has proved itself may run beside, what comes new waits', async () => {
    const { replicas, workers } = await open(1);
    replicas.submit([makeRequest('a', [1], LONG), makeRequest('b', [2], LONG)]);
    for (const count of [1, 2]) {
      workers[count - 1]!.die();
      await until(() => workers.length === count + 1 && replicas.isUp);
    }
    const worker = workers[2]!;
    replicas.submit([makeRequest('new', [3], LONG)]);
    expect(ids(worker.submitted)).toEqual(['a']);
    worker.step();
    expect(ids(worker.submitted)).toEqual(['a', 'b']);
    worker.step();
    expect(ids(worker.submitted)).toEqual(['a', 'b', 'new']);
  });

  test('suspects are tried in order of arrival, one whose trial somebody ended again', async () => {
    const { replicas, workers } = await open(1);
    replicas.submit([makeRequest('a', [1], LONG), makeRequest('b', [2], LONG)]);
    for (const [i, wasKilled] of [false, false, true].entries()) {
      workers[i]!.die(wasKilled);
      await until(() => workers.length === i + 2 && replicas.isUp);
    }
    expect(workers.slice(2).map(({ submitted }) => ids(submitted))).toEqual([['a'], ['a']]);
  });

  test('is not convicted where another one may be to blame', async () => {
    const { replicas, collector, workers } = await open(2);
    replicas.submit([makeRequest('suspect', [1], LONG), makeRequest('other', [2], LONG)]);
    workers[0]!.die();
    await until(() => workers.length === 3 && ids(workers[1]!.submitted).includes('suspect'));
    replicas.submit([makeRequest('new', [3], LONG)]);
    workers[1]!.die();
    // Its trial, beside one that has not proved itself.
    expect(ids(workers[2]!.submitted)).toEqual(['new', 'suspect']);
    workers[2]!.die();
    await until(() => {
      for (const worker of workers) worker.resume();
      return ['suspect', 'other', 'new'].every((id) => collector.requests.get(id)?.finish !== undefined);
    });
    expect(collector.get('suspect').tokens).toEqual(counting(1, 30));
  });

  test('suspects are tried one at a time, however many replicas there are', async () => {
    const { replicas, workers } = await open(2);
    const suspects = ['a', 'b', 'c', 'd'].map((id, i) => makeRequest(id, [i], LONG));
    replicas.submit(suspects);
    for (const count of [2, 3]) {
      const [first, second] = workers.slice(-2);
      first!.die();
      second!.die();
      await until(() => workers.length === 2 * count && replicas.isUp);
    }
    await until(() => workers.slice(-2).some(({ liveCount }) => liveCount > 0));
    const sent = () => workers.slice(-2).flatMap(({ submitted }) => ids(submitted));
    expect(sent()).toHaveLength(1);
    workers.find(({ liveCount }) => liveCount > 0)!.step();
    expect(sent()).toHaveLength(2);
  });

  test('progress clears it, and so does a death that somebody brought about', async () => {
    const { replicas, collector, workers } = await open(1);
    replicas.submit([makeRequest('a', [1], { stop: { maxNewTokens: 400 } })]);
    for (let death = 1; death <= 12; death++) {
      const isCrash = death % 2 === 1;
      if (isCrash) workers.at(-1)!.step();
      workers.at(-1)!.die(!isCrash);
      await until(() => workers.length === death + 1 && replicas.isUp);
    }
    for (let death = 13; death <= 20; death++) {
      // Nor does a crash after many of them.
      workers.at(-1)!.die(death < 20);
      await until(() => workers.length === death + 1 && replicas.isUp);
    }
    workers.at(-1)!.resume();
    await until(() => collector.get('a').finish !== undefined);
    expect(collector.get('a').tokens).toEqual(counting(1, 400));
  });
});

describe('an update of the weights', () => {
  const { architectures, modelType, vocabSize, eosTokenIds } = readModelFolder('models/demo');
  const isDemo = (worker: FakeWorker): void => {
    Object.assign(worker.info, { architectures, modelType, vocabSize, eosTokenIds });
    worker.pause();
  };

  test('waits for the requests before it, a replayed one included, and holds those after it', async () => {
    const { replicas, collector, workers } = await open(1, isDemo);
    replicas.submit([makeRequest('before', [1], LONG)]);
    workers[0]!.step();
    const update = replicas.updateWeights('models/demo', null);
    replicas.submit([makeRequest('after', [2], LONG)]);
    workers[0]!.die();
    await until(() => workers.length === 2 && workers[1]!.submitted.length === 1);
    workers[1]!.resume();
    expect(await update).toBe(1);
    expect(collector.get('before').tokens).toEqual(counting(1, 30));
    expect(workers.map(({ submitted }) => ids(submitted))).toEqual([['before'], ['before'], ['after']]);
    expect(workers[1]!.isShutDown).toBe(true);
    workers[2]!.resume();
    await until(() => collector.requests.get('after')?.finish !== undefined);
    expect(collector.get('after').tokens).toEqual(counting(2, 30));
  });

  test('what the old worker says after its end is passed over', async () => {
    const { replicas, collector, workers } = await open(1, isDemo);
    await replicas.setPaused(true);
    replicas.submit([makeRequest('a', [1], LONG)]);
    await replicas.updateWeights('models/demo', null);
    workers[0]!.handlers.onStep([{ id: 'a', tokens: [], finish: { type: 'abort', message: 'shut down' } }]);
    expect(collector.requests.size).toBe(0);
    expect(ids(workers[1]!.submitted)).toEqual(['a']);
    await replicas.setPaused(false);
    await until(() => collector.requests.get('a')?.finish !== undefined);
    expect(collector.get('a').tokens).toEqual(counting(1, 30));
  });

  test('a worker with another model is not used: the old weights come back', async () => {
    let started = 0;
    const { replicas, workers } = await open(2, (worker) => {
      isDemo(worker);
      if (++started === 4) Object.assign(worker.info, { contextLength: 5 });
    });
    await expect(replicas.updateWeights('models/demo', null)).rejects.toThrow(/holds another model/);
    expect(workers.slice(0, 4).every(({ isShutDown }) => isShutDown)).toBe(true);
    expect(workers.slice(4).map(({ isShutDown }) => isShutDown)).toEqual([false, false]);
    replicas.submit([makeRequest('a', [1]), makeRequest('b', [2])]);
    expect(workers.slice(4).map(({ submitted }) => ids(submitted))).toEqual([['a'], ['b']]);
  });

  test('a worker that does not come back with the old weights either: the others go on', async () => {
    let started = 0;
    const { replicas, collector, workers } = await open(2, (worker) => {
      if (++started === 4 || started > 5) throw new DetinferError('OUT_OF_MEMORY', 'no room');
      isDemo(worker);
    });
    const update = replicas.updateWeights('models/demo', null);
    replicas.submit([makeRequest('held', [2], LONG)]);
    await expect(update).rejects.toThrow('no room');
    await until(() => replicas.isUp);
    workers[4]!.resume();
    await until(() => collector.requests.get('held')?.finish !== undefined);
    expect(collector.get('held').tokens).toEqual(counting(2, 30));
  });

  test('while paused: a request whose abort was on its way ends, and is not in the way', async () => {
    const { replicas, collector, workers } = await open(1, isDemo);
    await replicas.setPaused(true);
    replicas.submit([makeRequest('begun', [1], LONG)]);
    workers[0]!.step();
    replicas.submit([makeRequest('kept', [2], LONG)]);
    replicas.abort(['begun'], 'enough');
    expect(await replicas.updateWeights('models/demo', null)).toBe(1);
    await until(() => collector.requests.get('begun')?.finish !== undefined);
    expect(collector.get('begun').finish).toEqual({ type: 'abort', message: 'enough' });
    expect(ids(workers[1]!.submitted)).toEqual(['kept']);
  });
});

describe('several replicas', () => {
  test('prompts with a common prefix go to the same one, others to the idlest', async () => {
    const { replicas, workers } = await open(3);
    for (const [i, salt] of [1, 2, 3, 2, 1, 3, 3].entries()) replicas.submit([makeRequest(`r${i}`, pages(salt))]);
    expect(workers.map(({ submitted }) => ids(submitted))).toEqual([
      ['r0', 'r4'],
      ['r1', 'r3'],
      ['r2', 'r5', 'r6'],
    ]);
  });

  test('a request moves to another when its own dies', async () => {
    const { replicas, collector, workers } = await open(2);
    replicas.submit([makeRequest('a', [1], LONG), makeRequest('b', [2], LONG)]);
    expect(workers.map(({ submitted }) => ids(submitted))).toEqual([['a'], ['b']]);
    workers[0]!.step();
    workers[0]!.die();
    expect(workers[1]!.submitted.map(({ id, outputIds }) => [id, outputIds])).toEqual([
      ['b', []],
      ['a', [1]],
    ]);
    expect(replicas.isUp).toBe(true);
    workers[1]!.resume();
    await until(() => collector.requests.get('a')?.finish !== undefined);
    expect(collector.get('a').tokens).toEqual(counting(1, 30));
    expect(collector.get('b').tokens).toEqual(counting(2, 30));
  });

  test('one whose requests have ended is the idlest again', async () => {
    const { replicas, workers } = await open(2);
    replicas.submit([makeRequest('a', [1], LONG), makeRequest('b', [2], LONG)]);
    workers[1]!.resume();
    await until(() => workers[1]!.liveCount === 0);
    replicas.submit([makeRequest('c', [3], LONG)]);
    expect(workers.map(({ submitted }) => ids(submitted))).toEqual([['a'], ['b', 'c']]);
  });

  test('a new worker is not taken to know the prefixes of the one before', async () => {
    const { replicas, workers } = await open(2);
    replicas.submit([makeRequest('a', pages(1)), makeRequest('b', pages(2))]);
    workers[0]!.die();
    await until(() => workers.length === 3 && workers[1]!.liveCount === 2);
    // It is the idlest, but the other one has computed this prompt.
    replicas.submit([makeRequest('c', pages(1))]);
    expect(workers.map(({ submitted }) => ids(submitted))).toEqual([['a'], ['b', 'a', 'c'], []]);
  });

  test('status and flush speak for all of them', async () => {
    const { replicas, workers } = await open(2);
    replicas.submit([makeRequest('a', [1], LONG), makeRequest('b', [2], LONG), makeRequest('c', [3], LONG)]);
    const { scheduler, replicas: each } = await replicas.status();
    expect([scheduler.runningRequests, each.map(({ runningRequests }) => runningRequests)]).toEqual([3, [2, 1]]);
    expect(scheduler.totalTokens).toBe(2 * workers[0]!.info.maxTotalTokens);
    expect(replicas.capacity).toBe(2 * workers[0]!.info.maxRunningRequests);
    expect(await replicas.flushCache()).toMatchObject({ success: false });
    replicas.abort(['a', 'b', 'c'], 'enough');
    await until(() => workers.every(({ liveCount }) => liveCount === 0));
    expect(await replicas.flushCache()).toMatchObject({ success: true });
  });

  test('one that never comes back does not end the server while another is being started', async () => {
    let end!: () => void;
    const loading = new Promise<void>((resolve) => (end = resolve));
    let starts = 0;
    const { replicas, workers, exits } = await open(2, () => {
      starts++;
      if (starts <= 2) return;
      if (starts === 9) return loading;
      throw new DetinferError('OUT_OF_MEMORY', 'no room');
    });
    workers[0]!.die(true);
    await until(() => workers.length === 8);
    workers[1]!.die(true);
    await until(() => workers.length === 10);
    expect(replicas.isUp).toBe(false);
    end();
    await until(() => replicas.isUp);
    expect(exits).toEqual([]);
  });

  test('one that cannot be started at first ends them all', async () => {
    const workers: FakeWorker[] = [];
    const handlers = { onProgress: () => {}, log: () => {}, onStep: () => {}, onExit: () => {} };
    const opening = Replicas.open(workerArgs({ dpSize: 3 }), handlers, async () => {
      if (workers.length === 2) throw new DetinferError('OUT_OF_MEMORY', 'no room');
      workers.push(new FakeWorker());
      return workers.at(-1)!;
    });
    await expect(opening).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
    expect(workers.map(({ isShutDown }) => isShutDown)).toEqual([true, true]);
  });

  test('all get a KV cache of the size of the first, and their share of the machine', async () => {
    const seen: unknown[] = [];
    const workers: FakeWorker[] = [];
    const handlers = { onProgress: () => {}, log: () => {}, onStep: () => {}, onExit: () => {} };
    const replicas = await Replicas.open(
      { ...workerArgs({ dpSize: 2 }), maxTotalTokens: null, threads: 3, memFractionStatic: 0.8 },
      handlers,
      async ({ maxTotalTokens, threads, memFractionStatic }, workerHandlers) => {
        seen.push([maxTotalTokens, threads, memFractionStatic]);
        workers.push(new FakeWorker());
        workers.at(-1)!.handlers = workerHandlers;
        return workers.at(-1)!;
      },
    );
    // The first, too, when it is replaced: a length may depend on it.
    workers[0]!.die();
    await until(() => workers.length === 3);
    expect(seen).toEqual([
      [null, 3, 0.4],
      [4096, 3, 0.4],
      [4096, 3, 0.4],
    ]);
    await replicas.shutdown();
  });
});
