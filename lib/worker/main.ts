/**
 * Entry of the worker process: loads the engine, then serves the parent's messages until it is told to stop, the parent
 * goes away or the engine fails. Started by supervisor.ts alone.
 */
import type { Engine } from '../engine/types.js';
import { Grammars } from '../grammar/grammars.js';
import type { TokenTable } from '../grammar/token-trie.js';
import { toErrorData } from '../protocol/errors.js';
import type { FromWorker, ToWorker } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { Scheduler } from '../scheduler/scheduler.js';
import { system } from '../system/system.js';
import { Tokenizer } from '../tokenizer/tokenizer.js';
import { WorkerLoop } from './worker-loop.js';

const PROGRESS_INTERVAL_MS = 50;

interface Serving {
  engine: Engine;
  loop: WorkerLoop;
}

let serving: Serving | null = null;

function send(message: FromWorker, then?: () => void): void {
  process.send!(message, undefined, undefined, (error) => {
    if (error !== null) process.exit(1);
    then?.();
  });
}

function fail(type: 'startFailed' | 'fatal', error: unknown): void {
  // Whatever code a step's error has, it does not tell a client what to change.
  const data = type === 'fatal' ? { ...toErrorData(error), code: 'ENGINE_FAILED' as const } : toErrorData(error);
  // The message of an error that nobody foresaw is not enough to find its cause.
  if (data.code === 'ENGINE_FAILED') console.error(error);
  send({ type, error: data }, () => process.exit(1));
}

async function start(args: ServerArgs): Promise<void> {
  // Loading weights and long steps keep the event loop from noticing that the parent is gone.
  system().dieWithParent();
  const { loadEngine } = await import('../engine/engine.js');
  let lastProgress = -Infinity;
  const engine = loadEngine(args, (done, total) => {
    const now = performance.now();
    if (done < total && now - lastProgress < PROGRESS_INTERVAL_MS) return;
    lastProgress = now;
    send({ type: 'progress', phase: 'weights', done, total });
  });
  const options = {
    chunkedPrefillSize: engine.info.chunkedPrefillSize,
    maxPrefillTokens: args.maxPrefillTokens,
    maxRunningRequests: engine.info.maxRunningRequests,
    disableRadixCache: args.disableRadixCache,
    overlap: engine.info.device === 'cuda' && !args.disableOverlapSchedule,
  };
  const tokens = (): TokenTable => Tokenizer.load(args.tokenizerPath).textTokens(engine.info.vocabSize);
  const scheduler = new Scheduler(engine, options, args.skipTokenizerInit ? null : new Grammars(tokens));
  const loop = new WorkerLoop(scheduler, args.decodeLogInterval, send, (error) => fail('fatal', error));
  serving = { engine, loop };
  send({ type: 'ready', info: engine.info });
}

function shutDown(): void {
  const events = serving?.loop.stop('the server is shutting down') ?? [];
  send({ type: 'step', events }, () => {
    serving?.engine.close();
    process.exit(0);
  });
}

function receive(message: ToWorker): void {
  switch (message.type) {
    case 'start':
      start(message.args).catch((error: unknown) => fail('startFailed', error));
      break;
    case 'shutdown':
      shutDown();
      break;
    default:
      serving?.loop.handle(message);
  }
}

if (process.send === undefined) {
  console.error('This is the worker process of detinfer; `detinfer launch` starts it.');
  process.exit(2);
}
process.on('message', receive);
process.on('disconnect', () => process.exit(1));
// Ctrl-C reaches every process of a terminal, and a service manager's signal every process of a service; what becomes of the
// worker is for its parent to say, which may have requests to finish.
process.on('SIGINT', () => {}).on('SIGTERM', () => {});
