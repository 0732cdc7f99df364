import type { AddressInfo } from 'node:net';

import type { FastifyInstance } from 'fastify';

import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, RequestEvent } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { readSigningKey } from '../receipt/signature.js';
import { ChatTemplate } from '../tokenizer/chat-template.js';
import { Tokenizer } from '../tokenizer/tokenizer.js';
import { Replicas } from '../worker/replicas.js';
import type { startWorker } from '../worker/supervisor.js';
import { createApp } from './app.js';
import type { Log } from './context.js';
import { Frontend } from './frontend.js';
import { Metrics } from './metrics.js';
import { Receipts } from './receipts.js';
import { within } from './time.js';
import { readGenerateRequest } from './validate.js';

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
  /**
   * Resolves to the error that ended the server, when everything is closed. Stays pending when it is stopped, and while
   * workers that die can be replaced.
   */
  readonly closed: Promise<DetinferError>;
  /**
   * Stops accepting, lets running requests end within a time limit (and then fails them with SHUTTING_DOWN), and ends
   * the workers.
   */
  stop(): Promise<void>;
}

/**
 * Starts the HTTP server and its workers, and resolves when requests can be answered. It listens from the beginning,
 * with /health at 503 while the model loads.
 * @throws DetinferError; nothing is left running then.
 */
export async function startServer(args: ServerArgs, options: ServerOptions): Promise<RunningServer> {
  const folders = options.folders ?? { model: args.modelPath, tokenizer: args.tokenizerPath };
  // What the server reports is the name that was given; what is loaded is the folder.
  const localArgs = { ...args, modelPath: folders.model, tokenizerPath: folders.tokenizer };
  const receipts = new Receipts(localArgs, args.signingKey === null ? null : readSigningKey(args.signingKey));
  const tokenizer = args.skipTokenizerInit ? null : Tokenizer.load(folders.tokenizer);
  const chatTemplate = tokenizer && (await loadChatTemplate(folders.tokenizer, args.chatTemplate, options.log));
  const metrics = args.enableMetrics
    ? new Metrics({
        modelName: args.servedModelName,
        version: options.version,
        numericContract: NUMERIC_CONTRACT,
        status: () => frontend.status(),
      })
    : null;
  const frontend: Frontend = new Frontend(args, tokenizer, metrics, receipts);
  const app = createApp({ args, frontend, metrics, chatTemplate, version: options.version, log: options.log });
  const url = await listen(app, args);
  let workers: Replicas | null = null;
  let end!: (error: DetinferError) => void;
  const closed = new Promise<DetinferError>((resolve) => (end = resolve));
  const onExit = (error: DetinferError): void => {
    frontend.fail(error);
    void closeApp(app).then(() => end(error));
  };
  try {
    const handlers = {
      log: options.log,
      onProgress: options.onProgress,
      onStep: (events: RequestEvent[]) => frontend.onStep(events),
      onExit,
    };
    workers = await Replicas.open(localArgs, handlers, options.startWorker);
    frontend.attach(workers);
    if (!args.skipServerWarmup) await warmUp(frontend, workers.info, args.dpSize);
  } catch (error) {
    frontend.fail(new DetinferError('NOT_READY', 'The server could not start.'));
    await workers?.shutdown();
    await closeApp(app);
    throw error;
  }
  const { info } = workers;
  const running = workers;
  let stopping: Promise<void> | null = null;
  const stop = async (): Promise<void> => {
    const shuttingDown = new DetinferError('SHUTTING_DOWN', 'The server is shutting down.');
    frontend.refuse(shuttingDown);
    const closing = app.close();
    // What is paused would not end.
    if (!running.isPaused) await frontend.untilIdle(args.drainTimeout * 1000);
    frontend.fail(shuttingDown);
    await running.shutdown();
    await finishClosing(app, closing);
  };
  return { url, info, closed, stop: () => (stopping ??= stop()) };
}

/** A model whose own template can't be used is served without a chat. */
async function loadChatTemplate(folder: string, given: string | null, log: Log): Promise<ChatTemplate | null> {
  try {
    return await ChatTemplate.load(folder, given);
  } catch (error) {
    if (!(error instanceof DetinferError && error.code === 'INVALID_MODEL')) throw error;
    log('warning', `${error.message} Chats are refused; pass another template as --chat-template.`);
    return null;
  }
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

/** The first request compiles and touches what later ones find ready. Prompts of less than a page go to the idlest worker. */
async function warmUp(frontend: Frontend, { contextLength }: EngineInfo, workers: number): Promise<void> {
  const prompt = [0, 1, 2, 3].slice(0, Math.max(1, contextLength - 1));
  const prompts = new Array<number[]>(workers).fill(prompt);
  const tokens = Math.min(WARM_UP_TOKENS, contextLength - prompt.length);
  const sampling = { max_new_tokens: tokens, temperature: 0, ignore_eos: true };
  const request = readGenerateRequest({ input_ids: prompts, sampling_params: sampling }, frontend.limits);
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
