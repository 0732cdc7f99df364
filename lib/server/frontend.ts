import { DetinferError, type ErrorCode, ERRORS } from '../protocol/errors.js';
import type { FinishReason, RequestEvent } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import type { Replicas, ReplicasStatus } from '../worker/replicas.js';
import { badValue } from './errors.js';
import { Generation } from './generation.js';
import { GrammarCheck } from './grammar-check.js';
import type { Metrics } from './metrics.js';
import { prepare } from './prepare.js';
import type { ModelLimits } from './sampling-params.js';
import { Receipts } from './receipts.js';
import { SeedSource } from './seeds.js';
import { Sequence } from './sequence.js';
import { within } from './time.js';
import { type GenerateRequest, readGenerateRequest } from './validate.js';

/** A sequence that the worker has not ended yet. */
interface Live {
  sequence: Sequence;
  generation: Generation;
  index: number;
  /** Nobody waits for it any more: a stop string ended it, or its request did. */
  isDropped: boolean;
  /** Null: it counts nowhere. */
  metrics: Metrics | null;
}

/** Where the weights come from, by the name that was given, and the version that answers report. */
export interface Weights {
  modelPath: string;
  version: string;
}

/**
 * Stands between HTTP and the workers: turns requests into theirs and their events into answers.
 */
export class Frontend {
  /** What is served now. */
  weights: Weights;
  private workers: Replicas | null = null;
  private refusal: DetinferError | null = new DetinferError('NOT_READY', 'The model is loading; try again later.');
  private readonly seeds: SeedSource;
  private readonly grammars: GrammarCheck | null;
  /** By the workers' request id. */
  private readonly live = new Map<string, Live>();
  /** Names of the sequences that somebody waits for. */
  private readonly rids = new Set<string>();
  private stepListeners: (() => void)[] = [];
  private idleListeners: (() => void)[] = [];
  private nextId = 0;

  /** @param tokenizer null: token ids only. */
  constructor(
    private readonly args: ServerArgs,
    readonly tokenizer: Tokenizer | null,
    private readonly metrics: Metrics | null = null,
    readonly receipts = new Receipts(args, null),
  ) {
    this.weights = { modelPath: args.modelPath, version: args.weightVersion };
    this.seeds = new SeedSource(args);
    this.grammars = tokenizer && new GrammarCheck(() => tokenizer.textTokens(this.limits.vocabSize));
  }

  /** Whether requests run now. While a worker is replaced they are taken, and wait. */
  get isReady(): boolean {
    return this.refusal === null && this.workers!.isUp;
  }

  /** The workers, while they take requests. @throws DetinferError NOT_READY, SHUTTING_DOWN or what ended them */
  get readyWorkers(): Replicas {
    if (this.refusal) throw this.refusal;
    return this.workers!;
  }

  get limits(): ModelLimits {
    return { vocabSize: this.readyWorkers.info.vocabSize, hasTokenizer: this.tokenizer !== null };
  }

  /** Requests can come from now on. */
  attach(workers: Replicas): void {
    this.workers = workers;
    this.refusal = null;
  }

  /** Refuses new requests; those that run go on. */
  refuse(error: DetinferError): void {
    this.refusal = error;
  }

  /** Refuses new requests and ends those that run with an error. */
  fail(error: DetinferError): void {
    this.refuse(error);
    const generations = new Set([...this.live.values()].map(({ generation }) => generation));
    this.live.clear();
    this.rids.clear();
    for (const generation of generations) generation.fail(error);
    this.notifyIdle();
  }

  /**
   * Starts a request.
   * @throws DetinferError INVALID_REQUEST, NOT_READY, OVERLOADED, …; nothing runs then.
   */
  generate(request: GenerateRequest): Generation {
    this.checkMemory();
    this.checkLoad(request.prompts.reduce((sum, { sampling }) => sum + sampling.n, 0));
    const generation = this.start(request, this.metrics);
    if (this.args.requestTimeout !== null) this.limitTime(generation, this.args.requestTimeout);
    return generation;
  }

  /**
   * Aborts what runs under a name: a sequence, the copies of a prompt, or a batch; null: everything. Aborted sequences
   * finish with what they have so far and finish_reason abort.
   */
  abort(rid: string | null, message: string): void {
    const workers = this.readyWorkers;
    const isMeant = ({ sequence, isDropped }: Live) => !isDropped && (rid === null || sequence.rids.includes(rid));
    const ids = [...this.live].filter(([, entry]) => isMeant(entry)).map(([id]) => id);
    if (ids.length > 0) workers.abort(ids, message);
  }

  /** Fails a request and stops its sequences: nobody waits for them any more. */
  abandon(generation: Generation, error: DetinferError): void {
    generation.fail(error);
    const ids: string[] = [];
    for (const [id, entry] of this.live) {
      if (entry.generation !== generation || entry.isDropped) continue;
      this.drop(entry);
      ids.push(id);
    }
    if (ids.length > 0) this.workers!.abort(ids, error.message);
  }

  /** Serves other weights; see Replicas.updateWeights. */
  updateWeights(weights: Weights, abortMessage: string | null): Promise<number> {
    const workers = this.readyWorkers;
    return this.receipts.during(weights.modelPath, async () => {
      const waited = await workers.updateWeights(weights.modelPath, abortMessage);
      this.weights = weights;
      return waited;
    });
  }

  /** Takes in what a step of a worker brought. */
  onStep(events: RequestEvent[]): void {
    const stopped: string[] = [];
    for (const event of events) {
      const entry = this.live.get(event.id);
      if (!entry) continue;
      if (event.finish) this.live.delete(event.id);
      if (entry.isDropped) continue;
      const error = errorOf(event.finish);
      if (error) {
        this.drop(entry);
        this.abandon(entry.generation, error);
        continue;
      }
      // Only now is it certain: a request may have waited for other weights.
      if (event.prompt) entry.sequence.weightVersion = this.weights.version;
      entry.sequence.apply(event);
      entry.metrics?.applied(entry.sequence, event);
      if (entry.sequence.finish) {
        this.drop(entry);
        if (!event.finish) stopped.push(event.id);
      }
      entry.generation.updated(entry.index);
    }
    if (stopped.length > 0) this.workers!.abort(stopped, 'ended by a stop string');
    for (const listener of this.stepListeners.splice(0)) listener();
    this.notifyIdle();
  }

  /** Of all workers; null before there are any. */
  status(): Promise<ReplicasStatus> | null {
    return this.workers?.status() ?? null;
  }

  /** Resolves when no request is left, or after a time limit. */
  async untilIdle(limitMs: number): Promise<void> {
    if (this.live.size === 0) return;
    await within(limitMs, new Promise<void>((resolve) => this.idleListeners.push(resolve)));
  }

  /**
   * Runs one token through a worker, however long the queue is. Any sign of life counts, so that a busy worker need
   * not get as far as this token, and one that is paused only answers.
   */
  async isAlive(limitMs: number): Promise<boolean> {
    if (!this.isReady) return false;
    if (this.workers!.isPaused) return this.answers(limitMs);
    const body = { input_ids: [0], sampling_params: { max_new_tokens: 1, temperature: 0 } };
    const probe = this.start(readGenerateRequest(body, this.limits), null);
    let isAlive = false;
    const step = new Promise<void>((resolve) => {
      this.stepListeners.push(() => {
        isAlive = true;
        resolve();
      });
    });
    await within(limitMs, Promise.race([step, probe.done.catch(() => {})]));
    this.abandon(probe, new DetinferError('NOT_READY', 'the health check is over'));
    return isAlive && this.isReady;
  }

  /** Whether a worker says that it is there; while generation is paused it could not do more. */
  private async answers(limitMs: number): Promise<boolean> {
    const status = await within(limitMs, this.readyWorkers.status());
    return status !== undefined && status.replicas.length > 0;
  }

  private start(request: GenerateRequest, metrics: Metrics | null): Generation {
    const workers = this.readyWorkers;
    const specs = prepare(request, {
      info: workers.info,
      tokenizer: this.tokenizer,
      seeds: this.seeds,
      grammars: this.grammars,
      weightVersion: this.weights.version,
      receipts: this.receipts,
      newId: () => String(this.nextId++),
    });
    const sequences = specs.map((spec) => new Sequence(spec, this.tokenizer));
    this.claimRids(sequences);
    workers.submit(specs.map((spec) => spec.worker));
    const generation = new Generation(sequences, request.isList, this.args.streamInterval);
    sequences.forEach((sequence, index) => {
      this.live.set(sequence.workerRequest.id, { sequence, generation, index, isDropped: false, metrics });
    });
    return generation;
  }

  /** @param limit in seconds. */
  private limitTime(generation: Generation, limit: number): void {
    const error = new DetinferError('TIMED_OUT', `The request took more than ${limit} s (--request-timeout).`);
    const timer = setTimeout(() => this.abandon(generation, error), limit * 1000);
    const stop = (): void => clearTimeout(timer);
    generation.done.then(stop, stop);
  }

  private claimRids(sequences: Sequence[]): void {
    const claimed = new Set<string>();
    for (const { rid } of sequences) {
      const name = `rid ${JSON.stringify(rid)}`;
      if (this.rids.has(rid)) throw badValue(`${name} is in use by a request that is still running; choose another.`);
      // Copies are numbered, and a prompt may be called as the copy of another.
      if (claimed.has(rid)) throw badValue(`${name} names two answers of this request; choose others.`);
      claimed.add(rid);
    }
    for (const rid of claimed) this.rids.add(rid);
  }

  private checkMemory(): void {
    if (!this.readyWorkers.isReleased) return;
    const message = 'The memory of the engine is released; POST /resume_memory_occupation first.';
    throw new DetinferError('NOT_READY', message);
  }

  private checkLoad(added: number): void {
    const { maxQueuedRequests } = this.args;
    if (maxQueuedRequests === null) return;
    const waiting = this.live.size + added - this.readyWorkers.capacity;
    if (waiting > maxQueuedRequests) {
      throw new DetinferError(
        'OVERLOADED',
        `More than ${maxQueuedRequests} requests would wait (--max-queued-requests); try again later.`,
      );
    }
  }

  private drop(entry: Live): void {
    entry.isDropped = true;
    if (!entry.sequence.finish) entry.metrics?.failed();
    this.rids.delete(entry.sequence.rid);
  }

  private notifyIdle(): void {
    if (this.live.size > 0) return;
    for (const listener of this.idleListeners.splice(0)) listener();
  }
}

/** The error that ended a request in the worker; an abort that was asked for is none. */
function errorOf(finish: FinishReason | undefined): DetinferError | null {
  if (finish?.type !== 'abort' || finish.code === undefined) return null;
  const code = finish.code in ERRORS ? (finish.code as ErrorCode) : 'ENGINE_FAILED';
  return new DetinferError(code, finish.message);
}
