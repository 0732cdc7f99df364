import type { FastifyInstance } from 'fastify';
import { Agent, request } from 'undici';

import type { EngineInfo } from '../../../lib/protocol/messages.js';
import type { ServerArgs } from '../../../lib/protocol/server-args.js';
import { createApp } from '../../../lib/server/app.js';
import { Frontend } from '../../../lib/server/frontend.js';
import { Metrics } from '../../../lib/server/metrics.js';
import { ChatTemplate } from '../../../lib/tokenizer/chat-template.js';
import { Tokenizer } from '../../../lib/tokenizer/tokenizer.js';
import { Replicas } from '../../../lib/worker/replicas.js';
import { FakeWorker } from './fake-worker.js';

export const demoTokenizer = Tokenizer.load('models/demo');
const demoTemplate = await ChatTemplate.load('models/demo', null);

/** Sampling parameters of a short and predictable answer. */
export const GREEDY = { temperature: 0, max_new_tokens: 4 };

export function serverArgs(overrides: Partial<ServerArgs> = {}): ServerArgs {
  return {
    modelPath: 'models/demo',
    isDemoModel: true,
    tokenizerPath: 'models/demo',
    revision: null,
    skipTokenizerInit: false,
    loadFormat: 'auto',
    trustRemoteCode: false,
    contextLength: null,
    jsonModelOverrideArgs: '{}',
    dtype: 'auto',
    kvCacheDtype: 'auto',
    device: 'cpu',
    baseGpuId: 0,
    attentionBackend: 'fa3',
    disableCudaGraph: false,
    cudaGraphMaxBs: null,
    enableDeterministicInference: true,
    memFractionStatic: 0.8,
    maxRunningRequests: 8,
    maxQueuedRequests: null,
    dpSize: 1,
    maxTotalTokens: null,
    chunkedPrefillSize: -1,
    maxPrefillTokens: 16384,
    schedulePolicy: 'fcfs',
    pageSize: 16,
    disableRadixCache: false,
    disableOverlapSchedule: false,
    threads: null,
    host: '127.0.0.1',
    port: 0,
    apiKey: null,
    signingKey: null,
    maxBodySize: 64 * 1024 * 1024,
    requestTimeout: null,
    drainTimeout: 5,
    enableMetrics: false,
    skipServerWarmup: true,
    servedModelName: 'models/demo',
    chatTemplate: null,
    weightVersion: 'default',
    streamInterval: 1,
    logLevel: 'info',
    logFormat: 'text',
    logRequests: false,
    decodeLogInterval: 40,
    watchdogTimeout: 300,
    randomSeed: null,
    ...overrides,
  };
}

export interface Reply {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  text: string;
  json: any;
}

/** A server on a real socket whose worker is a fake in this process. */
export class TestServer {
  private readonly agent = new Agent();

  private constructor(
    readonly app: FastifyInstance,
    readonly frontend: Frontend,
    readonly worker: FakeWorker,
    readonly workers: Replicas,
    readonly url: string,
    /** What was logged. */
    readonly lines: string[],
  ) {}

  static async start(
    options: { args?: Partial<ServerArgs>; info?: Partial<EngineInfo>; isLoading?: boolean } = {},
  ): Promise<TestServer> {
    const args = serverArgs(options.args);
    const worker = new FakeWorker(options.info);
    const metrics = args.enableMetrics
      ? new Metrics({ modelName: 'm', version: '1.2.3', numericContract: 'c/1', status: () => frontend.status() })
      : null;
    const frontend: Frontend = new Frontend(args, args.skipTokenizerInit ? null : demoTokenizer, metrics);
    const lines: string[] = [];
    const app = createApp({
      args,
      frontend,
      metrics,
      chatTemplate: demoTemplate,
      version: '1.2.3',
      log: (level, message) => lines.push(`${level} ${message}`),
    });
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    const workers = await Replicas.open(
      args,
      { onProgress: () => {}, log: () => {}, onStep: (events) => frontend.onStep(events), onExit: (error) => frontend.fail(error) },
      async (_args, handlers) => {
        worker.handlers = handlers;
        worker.isDead = false;
        return worker;
      },
    );
    if (!options.isLoading) frontend.attach(workers);
    return new TestServer(app, frontend, worker, workers, url, lines);
  }

  async send(
    method: 'GET' | 'POST' | 'PUT',
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const response = await request(this.url + path, {
      method,
      dispatcher: this.agent,
      headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
      body: body === undefined ? null : typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
    });
    const text = await response.body.text();
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: response.statusCode, headers: response.headers, text, json };
  }

  /** Makes every request answer with the tokens of a text, which it returns, and then with end-of-sequence. */
  answerWith(text: string): number[] {
    const ids = demoTokenizer.encode(text, false);
    this.worker.script = () => [...ids, 4095];
    return ids;
  }

  generate(body: object): Promise<Reply> {
    return this.send('POST', '/generate', body);
  }

  /** The payloads of a stream, the last of them "[DONE]". */
  async stream(body: object): Promise<{ headers: Reply['headers']; events: any[]; done: boolean }> {
    const { headers, text } = await this.generate({ ...body, stream: true });
    const payloads = text
      .split('\n\n')
      .filter((event) => event !== '')
      .map((event) => event.replace(/^data: /, ''));
    const done = payloads.at(-1) === '[DONE]';
    return { headers, events: payloads.slice(0, done ? -1 : undefined).map((payload) => JSON.parse(payload)), done };
  }

  async close(): Promise<void> {
    await this.agent.destroy();
    this.app.server.closeAllConnections();
    await this.app.close();
  }
}

/** Waits for something that takes a few turns of the event loop. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000; ++i) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error('it did not happen');
}
