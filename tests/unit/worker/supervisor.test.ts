import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { DetinferError } from '../../../lib/protocol/errors.js';
import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { startWorker, type WorkerHandle } from '../../../lib/worker/supervisor.js';
import { Collector, makeRequest } from '../scheduler/requests.js';
import { workerArgs } from './worker-args.js';

const PROMPT = Array.from({ length: 100 }, (_, i) => (i * 37) % 4000);
const PARENT = fileURLToPath(new URL('./parent.js', import.meta.url));

interface Started {
  worker: WorkerHandle;
  collector: Collector;
  progress: [done: number, total: number][];
  logs: string[];
  exits: DetinferError[];
  /** For each exit whether somebody killed the worker. */
  killings: boolean[];
}

const pids: number[] = [];

async function start(given: Partial<ServerArgs> = {}): Promise<Started> {
  const collector = new Collector();
  const progress: Started['progress'] = [];
  const logs: string[] = [];
  const exits: DetinferError[] = [];
  const killings: boolean[] = [];
  const worker = await startWorker(workerArgs(given), {
    onProgress: (done, total) => progress.push([done, total]),
    log: (_, message) => logs.push(message),
    onStep: (events) => collector.add(events),
    onExit: (error, wasKilled) => {
      exits.push(error);
      killings.push(wasKilled);
    },
  });
  pids.push(worker.pid);
  return { worker, collector, progress, logs, exits, killings };
}

async function until(condition: () => boolean, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error('it did not happen in time');
    await sleep(5);
  }
}

/** Whether a process runs; one that has ended but that nobody has waited for does not. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

const hasFinished = (collector: Collector, id: string) => (): boolean =>
  collector.requests.get(id)?.finish !== undefined;

afterEach(() => {
  for (const pid of pids.splice(0)) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
});

describe('a worker on the demo model', () => {
  test('loads, answers, flushes and shuts down', async () => {
    const { worker, collector, progress, logs, exits } = await start({ decodeLogInterval: 4 });
    expect(progress.at(-1)![0]).toBe(progress.at(-1)![1]);
    expect(worker.info).toMatchObject({ vocabSize: 4096, modelType: 'qwen3', device: 'cpu' });
    const request = makeRequest('a', PROMPT, { logprobs: { promptStart: 0, top: 2, tokenIds: [7] } });
    worker.submit([request, { ...request, id: 'b' }]);
    await until(hasFinished(collector, 'b'));
    const [a, b] = [collector.get('a'), collector.get('b')];
    expect(a.tokens).toHaveLength(8);
    expect([a.tokens, a.logprobs, a.prompt!.logprobs]).toEqual([b.tokens, b.logprobs, b.prompt!.logprobs]);
    expect(a.prompt!.logprobs).toHaveLength(PROMPT.length);
    await until(() => logs.length > 0);
    expect(await worker.status()).toMatchObject({ runningRequests: 0, waitingRequests: 0, usedTokens: 0 });
    expect(await worker.flushCache()).toMatchObject({ success: true });
    expect((await worker.status()).cachedTokens).toBe(0);

    worker.submit([makeRequest('long', PROMPT, { stop: { maxNewTokens: 3000 } })]);
    await until(() => collector.requests.has('long'));
    expect(await worker.flushCache()).toMatchObject({ success: false });
    await worker.shutdown();
    expect(collector.get('long').finish).toMatchObject({ type: 'abort', code: 'SHUTTING_DOWN' });
    expect(isAlive(worker.pid)).toBe(false);
    expect(exits).toEqual([]);
  });

  test('aborts on request, refuses what cannot run, and is deaf to Ctrl-C', async () => {
    const { worker, collector } = await start();
    process.kill(worker.pid, 'SIGINT');
    worker.submit([
      makeRequest('a', PROMPT, { stop: { maxNewTokens: 3000 } }),
      makeRequest('too long', new Array<number>(5000).fill(1)),
    ]);
    await until(() => (collector.requests.get('a')?.tokens.length ?? 0) > 3);
    worker.abort(['a'], 'enough');
    await until(hasFinished(collector, 'a'));
    expect(collector.get('a').finish).toEqual({ type: 'abort', message: 'enough' });
    expect(collector.get('too long').finish).toMatchObject({ type: 'abort', code: 'INVALID_REQUEST' });
    await worker.shutdown();
  });
});

describe('a worker that fails', () => {
  test('a model that cannot be loaded is its own error', async () => {
    await expect(start({ modelPath: '/no/such/model' })).rejects.toMatchObject({
      name: 'DetinferError',
      code: 'INVALID_MODEL',
      message: expect.stringContaining('/no/such/model'),
    });
  });

  test('an engine that fails ends its worker', async () => {
    const { worker, exits, killings } = await start();
    // The server never sends an id outside the vocabulary; the engine takes it for what it is, a broken caller.
    worker.submit([makeRequest('a', [1, 1_000_000])]);
    await until(() => exits.length > 0);
    expect(exits).toMatchObject([{ code: 'ENGINE_FAILED', message: expect.stringContaining('1000000') }]);
    expect(killings).toEqual([false]);
    expect(isAlive(worker.pid)).toBe(false);
  });

  test('a killed worker is reported, and calls fail', async () => {
    const { worker, exits } = await start();
    process.kill(worker.pid, 'SIGSTOP');
    const call = worker.status();
    process.kill(worker.pid, 'SIGKILL');
    await expect(call).rejects.toMatchObject({
      code: 'WORKER_DIED',
      message: expect.stringContaining('was killed by SIGKILL'),
    });
    expect(exits).toMatchObject([{ code: 'WORKER_DIED' }]);
    await expect(worker.flushCache()).rejects.toBe(exits[0]);
    worker.submit([makeRequest('a', PROMPT)]);
    await worker.shutdown();
    expect(exits).toHaveLength(1);
  });

  test.each([
    ['SIGKILL', true],
    ['SIGHUP', true],
    ['SIGSEGV', false],
    ['SIGABRT', false],
  ] as const)('%s: killed by somebody: %s', async (signal, wasKilled) => {
    const { worker, exits, killings } = await start();
    process.kill(worker.pid, signal);
    await until(() => exits.length > 0);
    expect(killings).toEqual([wasKilled]);
  });

  test('a start that is called off leaves no process', async () => {
    const controller = new AbortController();
    const handlers = { onProgress: () => controller.abort(), log: () => {}, onStep: () => {}, onExit: () => {} };
    await expect(startWorker(workerArgs(), handlers, controller.signal)).rejects.toMatchObject({ code: 'WORKER_DIED' });
  });

  test('a worker that hangs is given up', async () => {
    // Long enough for one that lives to answer on a machine with much else to do.
    const { worker, exits, killings } = await start({ watchdogTimeout: 2 });
    await sleep(4000);
    expect(exits).toEqual([]);
    process.kill(worker.pid, 'SIGSTOP');
    await until(() => exits.length > 0);
    expect(exits).toMatchObject([{ code: 'WORKER_DIED', message: expect.stringContaining('not answered for 2 s') }]);
    expect(killings).toEqual([false]);
    expect(isAlive(worker.pid)).toBe(false);
  });

  test('a worker that does not shut down is killed', async () => {
    const { worker, exits } = await start();
    process.kill(worker.pid, 'SIGSTOP');
    await worker.shutdown();
    expect(isAlive(worker.pid)).toBe(false);
    expect(exits).toEqual([]);
  });
});

describe('no worker outlives its parent', () => {
  const childOf = (pid: number): number =>
    Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0]);

  for (const [when, isTime] of [
    ['while it starts', (pid: number) => childOf(pid) > 0],
    ['while it works', (_: number, output: string) => output.includes('ready')],
  ] as const) {
    test(`killed ${when}`, async () => {
      const parent = spawn(process.execPath, [PARENT], { stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      parent.stdout.on('data', (data: Buffer) => (output += data.toString()));
      await until(() => isTime(parent.pid!, output));
      const worker = childOf(parent.pid!);
      pids.push(worker);
      expect(isAlive(worker)).toBe(true);
      parent.kill('SIGKILL');
      await once(parent, 'exit');
      await until(() => !isAlive(worker), 5000);
    });
  }
});
