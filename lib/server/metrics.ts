import { Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { RequestEvent } from '../protocol/messages.js';
import type { ReplicasStatus } from '../worker/replicas.js';
import type { Sequence } from './sequence.js';
import { within } from './time.js';

/** A worker in the middle of a long step answers late; a scraper waits seconds only. */
const STATUS_LIMIT_MS = 2000;

const REQUEST_BUCKETS = [0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400];
const TOKEN_BUCKETS = [0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5];

export interface MetricsOptions {
  modelName: string;
  version: string;
  numericContract: string;
  /** Of all workers together; null while the model loads. */
  status: () => Promise<ReplicasStatus> | null;
}

/** What happened to one sequence so far, in milliseconds of performance.now(). */
interface Times {
  first: number;
  last: number;
}

/**
 * The figures of /metrics, under SGLang's names where it has them. A request is one sequence here: a prompt of a batch,
 * or one of n copies.
 */
export class Metrics {
  private readonly registry = new Registry();
  private readonly times = new WeakMap<Sequence, Times>();
  private readonly requests = this.counter('sglang:num_requests_total', 'Requests that ended.');
  private readonly aborted = this.counter('sglang:num_aborted_requests_total', 'Requests that were aborted or failed.');
  private readonly promptTokens = this.counter('sglang:prompt_tokens_total', 'Prompt tokens of requests that began.');
  private readonly cachedTokens = this.counter('sglang:cached_tokens_total', 'Prompt tokens found in the prefix cache.');
  private readonly generationTokens = this.counter('sglang:generation_tokens_total', 'Tokens generated.');
  private readonly firstToken = this.histogram(
    'sglang:time_to_first_token_seconds',
    'From the arrival of a request to its first token.',
    REQUEST_BUCKETS,
  );
  private readonly betweenTokens = this.histogram(
    'sglang:inter_token_latency_seconds',
    'Between two tokens of a request.',
    TOKEN_BUCKETS,
  );
  private readonly perToken = this.histogram(
    'sglang:time_per_output_token_seconds',
    'Mean time of the tokens of a request after its first.',
    TOKEN_BUCKETS,
  );
  private readonly latency = this.histogram(
    'sglang:e2e_request_latency_seconds',
    'From the arrival of a request to its end.',
    REQUEST_BUCKETS,
  );
  private readonly running = this.gauge('sglang:num_running_reqs', 'Requests that run.');
  private readonly queued = this.gauge('sglang:num_queue_reqs', 'Requests that wait.');
  private readonly usedTokens = this.gauge('sglang:num_used_tokens', 'Tokens of the KV cache that requests hold.');
  private readonly tokenUsage = this.gauge('sglang:token_usage', 'Share of the KV cache that requests hold.');
  private readonly hitRate = this.gauge('sglang:cache_hit_rate', 'Share of all prompt tokens found in the prefix cache.');
  private readonly workersUp = this.gauge('detinfer:workers_ready', 'Workers that are ready.');
  private readonly workerDeaths = this.counter('detinfer:worker_deaths_total', 'Workers that were lost and replaced.');
  private readonly replays = this.counter('detinfer:replays_total', 'Times that a request was taken up by another worker.');
  private readonly responses: Counter<'code'>;
  /** What the counters of workers stand at. */
  private shown = { workerDeaths: 0, replays: 0 };

  constructor(private readonly options: MetricsOptions) {
    this.registry.setDefaultLabels({ model_name: options.modelName });
    this.responses = new Counter({
      name: 'detinfer:http_responses_total',
      help: 'Answers by HTTP status.',
      labelNames: ['code'],
      registers: [this.registry],
    });
    new Gauge({
      name: 'detinfer:build_info',
      help: 'Always 1.',
      labelNames: ['version', 'numeric_contract'],
      registers: [this.registry],
    }).set({ version: options.version, numeric_contract: options.numericContract }, 1);
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** A sequence has taken an event in. */
  applied(sequence: Sequence, { prompt, tokens }: RequestEvent): void {
    const now = performance.now();
    if (prompt) {
      this.promptTokens.inc(sequence.workerRequest.inputIds.length);
      this.cachedTokens.inc(prompt.cachedTokens);
    }
    if (tokens.length > 0) this.countTokens(sequence, tokens.length, now);
    if (sequence.finish) this.ended(sequence, now);
  }

  /** A sequence ends without an answer. */
  failed(): void {
    this.requests.inc();
    this.aborted.inc();
  }

  /** An HTTP request was answered. */
  answered(code: number): void {
    this.responses.inc({ code });
  }

  /** Prometheus' text format. */
  async render(): Promise<string> {
    const status = this.options.status();
    // What a worker does not say in time keeps its last value.
    const current = status && (await within(STATUS_LIMIT_MS, status));
    if (current) this.show(current);
    return this.registry.metrics();
  }

  private countTokens(sequence: Sequence, count: number, now: number): void {
    this.generationTokens.inc(count);
    const times = this.times.get(sequence);
    if (times === undefined) {
      this.times.set(sequence, { first: now, last: now });
      this.firstToken.observe((now - sequence.startedAt) / 1000);
      return;
    }
    for (let i = 0; i < count; i++) this.betweenTokens.observe((now - times.last) / 1000 / count);
    times.last = now;
  }

  private ended(sequence: Sequence, now: number): void {
    this.requests.inc();
    if (sequence.finish!.type === 'abort') this.aborted.inc();
    this.latency.observe((now - sequence.startedAt) / 1000);
    const times = this.times.get(sequence);
    const later = sequence.tokens.length - 1;
    if (times !== undefined && later > 0) this.perToken.observe((times.last - times.first) / 1000 / later);
  }

  private show({ scheduler, replicas, workerDeaths, replays }: ReplicasStatus): void {
    this.running.set(scheduler.runningRequests);
    this.queued.set(scheduler.waitingRequests);
    this.usedTokens.set(scheduler.usedTokens);
    this.tokenUsage.set(scheduler.totalTokens === 0 ? 0 : scheduler.usedTokens / scheduler.totalTokens);
    this.hitRate.set(scheduler.cacheHitRate);
    this.workersUp.set(replicas.length);
    this.workerDeaths.inc(workerDeaths - this.shown.workerDeaths);
    this.replays.inc(replays - this.shown.replays);
    this.shown = { workerDeaths, replays };
  }

  private counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.registry] });
  }

  private gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] });
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }
}
