import type { AddressInfo } from 'node:net';

import type { FastifyInstance } from 'fastify';

import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { Tokenizer } from '../tokenizer/tokenizer.js';
import { startWorker, type WorkerHandle } from '../worker/supervisor.js';
import { createApp } from './app.js';
import type { Log } from './context.js';
import { Frontend } from './frontend.js';
import { within } from './time.js';
import { readGenerateRequest } from './validate.js';

/** How long requests that run when the server is stopped may take to end by themselves. */
const DRAIN_LIMIT_MS = 5000;
/** How long clients may take to read the last bytes of their answers. */
const CLOSE_LIMIT_MS = 1000;
const WARM_UP_TOKENS = 8;

/** Where the model and its tokenizer are on this machine. */
export interface ModelFolders {
  model: string;
  tokenizer: string;
}

export interface ServerOptions {
  /** Of detinfer. */
  version: string;
  log: Log;
  /** Local folders of modelPath and tokenizerPath, which may be names on the hub; by default they are folders. */
  folders?: ModelFolders;
  /** Bytes of weights loaded so far, and of all. */
  onProgress: (done: number, total: number) => void;
  /** Another way to get a worker than a process of its own, for tests. */
  startWorker?: typeof startWorker;
}

export interface RunningServer {
  /** Where it listens: http://host:port, with the port that it got for port 0. */
  readonly url: string;
  readonly info: EngineInfo;
  /** Resolves to the error that ended the server, when everything is closed. Stays pending when it is stopped. */
  readonly closed: Promise<DetinferError>;
  /**
   * Stops accepting, lets running requests end within a time limit (and then fails them with SHUTTING_DOWN), and ends
   * the worker.
   */
  stop(): Promise<void>;
}

/**
 * Starts the HTTP server and its worker, and resolves when requests can be answered. It listens from the beginning,
 * with /health at 503 while the model loads.
 * @throws DetinferError; nothing is left running then.
 */
export async function startServer(args: ServerArgs, options: ServerOptions): Promise<RunningServer> {
  const folders = options.folders ?? { model: args.modelPath, tokenizer: args.tokenizerPath };
  const tokenizer = args.skipTokenizerInit ? null : await Tokenizer.load(folders.tokenizer);
  const frontend = new Frontend(args, tokenizer);
  const app = createApp({ args, frontend, version: options.version, log: options.log });
  const url = await listen(app, args);
  let worker: WorkerHandle | null = null;
  let end!: (error: DetinferError) => void;
  const closed = new Promise<DetinferError>((resolve) => (end = resolve));
  const onExit = (error: DetinferError): void => {
    frontend.fail(error);
    void closeApp(app).then(() => end(error));
  };
  try {
    // What the server reports is the name that was given; what the worker loads is the folder.
    const workerArgs = { ...args, modelPath: folders.model, tokenizerPath: folders.tokenizer };
    worker = await (options.startWorker ?? startWorker)(workerArgs, {
      log: options.log,
      onProgress: options.onProgress,
      onStep: (events) => frontend.onStep(events),
      onExit,
    });
    frontend.attach(worker);
    if (!args.skipServerWarmup) await warmUp(frontend);
  } catch (error) {
    frontend.fail(new DetinferError('NOT_READY', 'The server could not start.'));
    await worker?.shutdown();
    await closeApp(app);
    throw error;
  }
  const { info } = worker;
  const running = worker;
  let stopping: Promise<void> | null = null;
  const stop = async (): Promise<void> => {
    const shuttingDown = new DetinferError('SHUTTING_DOWN', 'The server is shutting down.');
    frontend.refuse(shuttingDown);
    const closing = app.close();
    await frontend.untilIdle(DRAIN_LIMIT_MS);
    frontend.fail(shuttingDown);
    await running.shutdown();
    await finishClosing(app, closing);
  };
  return { url, info, closed, stop: () => (stopping ??= stop()) };
}

async function listen(app: FastifyInstance, { host, port }: ServerArgs): Promise<string> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new DetinferError('INVALID_FLAG', `The server can't listen on ${host}:${port}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const bound = app.server.address() as AddressInfo;
  return `http://${host.includes(':') ? `[${host}]` : host}:${bound.port}`;
}

/** The first request compiles and touches what later ones find ready. */
async function warmUp(frontend: Frontend): Promise<void> {
  const sampling = { max_new_tokens: WARM_UP_TOKENS, temperature: 0, ignore_eos: true };
  const request = readGenerateRequest({ input_ids: [0, 1, 2, 3], sampling_params: sampling }, frontend.limits);
  await frontend.generate(request).done;
}

function closeApp(app: FastifyInstance): Promise<void> {
  return finishClosing(app, app.close());
}

/** Gives clients a moment to read what was sent, then closes their connections. */
async function finishClosing(app: FastifyInstance, closing: PromiseLike<unknown>): Promise<void> {
  await within(CLOSE_LIMIT_MS, Promise.resolve(closing));
  app.server.closeAllConnections();
  await closing;
}
