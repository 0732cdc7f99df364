import type { Engine } from '../engine/types.js';
import type { Grammars } from '../grammar/grammars.js';
import type { GrammarMatcher } from '../grammar/matcher.js';
import { DetinferError, type ErrorCode } from '../protocol/errors.js';
import type { FinishReason, RequestEvent, SchedulerStatus, WorkerRequest } from '../protocol/messages.js';
import { KvMemory } from './kv-memory.js';
import { chunkLength, mayStart, pageDemand, type PrefillLimits } from './policy.js';
import { Sequence } from './sequence.js';

export interface SchedulerOptions extends PrefillLimits {
  maxRunningRequests: number;
  disableRadixCache: boolean;
  /** Plan a step while the engine runs the one before. Changes no bit; of use where the engine is another device. */
  overlap: boolean;
}

/** What a sequence computes in a step. */
interface Scheduled {
  sequence: Sequence;
  length: number;
}

/** A slice of a step under way. */
interface Submitted {
  sequence: Sequence;
  /** It goes as far as the sequence's tokens of its time: its result is a token, or the end. */
  endsPrompt: boolean;
}

/**
 * Continuous batching over one engine: each step is a decode of every running request and chunks of prompts. With
 * `overlap`, step() submits the next step before it takes in the results of the one before, whose tokens it does not know
 * yet. A request that turns out to have ended has one slice too many in the step under way, whose result is dropped.
 *
 * Requests start first come, first served. When pages run out, the youngest running request gives up its pages
 * and goes back to its place in the queue; later it computes prompt and output so far again (to the same bits) and goes
 * on. So the oldest running request always progresses, and every request ends.
 */
export class Scheduler {
  private readonly engine: Engine;
  private readonly options: SchedulerOptions;
  private readonly pageSize: number;
  private readonly memory: KvMemory;
  /** Most tokens of one request, prompt and output together. */
  private readonly lengthLimit: number;
  private readonly live = new Map<string, Sequence>();
  /** Both in order of arrival. */
  private running: Sequence[] = [];
  private waiting: Sequence[] = [];
  /** Steps submitted and not collected, the oldest first: none or one between two calls of step(). */
  private readonly underWay: Submitted[][] = [];
  private arrivals = 0;
  private steps = 0;
  private preemptions = 0;
  private promptTokens = 0;
  private cacheHitTokens = 0;

  /** @param grammars null: requests with a grammar are refused. */
  constructor(
    engine: Engine,
    options: SchedulerOptions,
    private readonly grammars: Grammars | null = null,
  ) {
    const { pageSize, maxTotalTokens, contextLength } = engine.info;
    const pages = Math.floor(maxTotalTokens / pageSize);
    this.engine = engine;
    this.options = options;
    this.pageSize = pageSize;
    this.memory = new KvMemory(pages, pageSize, !options.disableRadixCache);
    this.lengthLimit = Math.min(contextLength, pages * pageSize);
  }

  /** Whether step() has anything to do. */
  get isBusy(): boolean {
    return this.live.size > 0 || this.underWay.length > 0;
  }

  /**
   * Queues a request.
   * @throws DetinferError INVALID_REQUEST when it can never run; nothing is kept then.
   */
  add(request: WorkerRequest): void {
    const length = request.inputIds.length;
    if (this.live.has(request.id)) {
      throw new DetinferError('INVALID_REQUEST', `request id ${request.id} is in use; choose another`);
    }
    if (length === 0) throw new DetinferError('INVALID_REQUEST', 'the prompt is empty; send at least one token');
    if (length > this.lengthLimit) throw this.tooLong(length);
    const sequence = new Sequence(request, this.arrivals++, this.lengthLimit, this.matcher(request));
    this.live.set(request.id, sequence);
    this.waiting.push(sequence);
  }

  /** Ends the given requests; ids that are not live are passed over, for they have ended. @returns the last events. */
  abort(ids: Iterable<string>, message: string, code?: ErrorCode): RequestEvent[] {
    const aborted = new Set<Sequence>();
    for (const id of ids) {
      const sequence = this.live.get(id);
      if (sequence !== undefined) aborted.add(sequence);
    }
    for (const sequence of aborted) this.end(sequence);
    this.running = this.running.filter((sequence) => !aborted.has(sequence));
    this.waiting = this.waiting.filter((sequence) => !aborted.has(sequence));
    const finish: FinishReason = code === undefined ? { type: 'abort', message } : { type: 'abort', message, code };
    return [...aborted].map(({ id }) => ({ id, tokens: [], finish }));
  }

  /** Ends all requests. @returns their last events. */
  abortAll(message: string, code?: ErrorCode): RequestEvent[] {
    return this.abort(this.live.keys(), message, code);
  }

  /**
   * Plans a step, submits it and returns what came of the step before (with `overlap`) or of this one, in order of
   * arrival.
   * @throws DetinferError ENGINE_FAILED from the engine; the scheduler is unusable afterwards.
   */
  step(): RequestEvent[] {
    if (!this.isBusy) return [];
    const events: RequestEvent[] = [];
    if (this.running.some((sequence) => sequence.needsKnownTokens)) events.push(...this.collect());
    let batch = this.plan();
    if (batch === null) {
      events.push(...this.collect());
      batch = this.plan()!;
    }
    if (batch.length > 0) this.submit(batch);
    else if (this.underWay.length === 0 && this.live.size > 0) {
      throw new Error(`no request can run, yet ${this.live.size} are live`);
    }
    const mayStayUnderWay = this.options.overlap && batch.length > 0 ? 1 : 0;
    while (this.underWay.length > mayStayUnderWay) events.push(...this.collect());
    return events;
  }

  private submit(batch: Scheduled[]): void {
    const step: Submitted[] = [];
    const slices = batch.map(({ sequence, length }, index) => {
      step.push({ sequence, endsPrompt: length === sequence.pending });
      return sequence.advance(length, index);
    });
    this.engine.submit(slices);
    this.underWay.push(step);
    this.steps++;
    for (const { sequence } of batch) this.memory.share(sequence);
  }

  /** Takes in the results of the oldest step under way. @returns what came of it, in order of arrival. */
  private collect(): RequestEvent[] {
    const step = this.underWay.shift()!;
    const results = this.engine.collect();
    const events: RequestEvent[] = [];
    let anyEnded = false;
    for (let i = 0; i < step.length; i++) {
      const { sequence, endsPrompt } = step[i]!;
      // Nobody is preempted while a step is under way, so one that does not run has ended.
      if (!sequence.isRunning) continue;
      const event = sequence.accept(endsPrompt, results[i]!);
      this.memory.share(sequence);
      if (event === null) continue;
      events.push(event);
      if (event.finish === undefined) continue;
      this.end(sequence);
      anyEnded = true;
    }
    if (anyEnded) this.running = this.running.filter((sequence) => sequence.isRunning);
    if (this.live.size === 0) this.memory.checkIdle();
    return events;
  }

  /** Empties the prefix cache, unless requests are live. */
  flushCache(): { success: boolean; message: string } {
    if (this.live.size > 0) {
      const message = `the cache is in use: ${this.running.length} requests run and ${this.waiting.length} wait`;
      return { success: false, message };
    }
    this.memory.clear();
    return { success: true, message: 'the prefix cache is empty' };
  }

  status(): SchedulerStatus {
    const { pool, cache, available, evictions } = this.memory;
    return {
      runningRequests: this.running.length,
      waitingRequests: this.waiting.length,
      totalTokens: pool.size * this.pageSize,
      usedTokens: (pool.size - available) * this.pageSize,
      cachedTokens: cache.size * this.pageSize,
      cacheHitRate: this.promptTokens === 0 ? 0 : this.cacheHitTokens / this.promptTokens,
      preemptions: this.preemptions,
      evictions,
      steps: this.steps,
      engineCpuSeconds: this.engine.cpuSeconds,
    };
  }

  private matcher({ sampling, stop }: WorkerRequest): GrammarMatcher | null {
    if (sampling.grammar === null) return null;
    if (this.grammars === null) throw new DetinferError('UNSUPPORTED', 'grammars need a tokenizer');
    return this.grammars.matcher(sampling.grammar, stop.stopTokenIds);
  }

  private tooLong(length: number): DetinferError {
    const { contextLength } = this.engine.info;
    const advice =
      this.lengthLimit < contextLength ? 'raise --max-total-tokens or shorten the prompt' : 'shorten the prompt';
    const limit = `the limit is ${this.lengthLimit}; ${advice}`;
    return new DetinferError('INVALID_REQUEST', `the prompt has ${length} tokens, ${limit}`);
  }

  /** Plans the next step. @returns null when it takes a preemption and a step is under way: collect that one first. */
  private plan(): Scheduled[] | null {
    const batch: Scheduled[] = [];
    let prefillTokens = 0;
    // Preemption takes requests from the end of `running`, which this loop has not reached.
    for (let i = 0; i < this.running.length; i++) {
      const sequence = this.running[i]!;
      const { pending } = sequence;
      const length = chunkLength(pending, prefillTokens, this.options);
      if (length === 0) continue;
      if (!this.memory.reserve(sequence, length)) {
        // The step under way may end requests and free their pages.
        if (this.underWay.length > 0) return null;
        if (!this.makeRoom(sequence, length)) continue;
      }
      if (pending > 1) prefillTokens += length;
      batch.push({ sequence, length });
    }
    this.start(batch, prefillTokens);
    return batch;
  }

  /**
   * Gets pages for the next `length` tokens, from younger requests if need be.
   * @returns false when the request had to give up its own.
   */
  private makeRoom(sequence: Sequence, length: number): boolean {
    while (!this.memory.reserve(sequence, length)) {
      const victim = this.running.pop()!;
      this.memory.release(victim);
      victim.isRunning = false;
      insertByArrival(this.waiting, victim);
      this.preemptions++;
      if (victim === sequence) return false;
    }
    return true;
  }

  /** Starts waiting requests, as far as slots, pages and the prefill budget go, and adds them to the batch. */
  private start(batch: Scheduled[], prefillTokens: number): void {
    if (this.waiting.length === 0) return;
    const runningBefore = this.running.length;
    const demand = (sequence: Sequence, held: number): number =>
      pageDemand(sequence.length, held, this.pageSize);
    let reserved = 0;
    for (const running of this.running) reserved += demand(running, running.pages.length);
    for (const sequence of this.waiting) {
      if (this.running.length >= this.options.maxRunningRequests) break;
      if (isAwaitingDonor(sequence)) continue;
      const path = this.memory.match(sequence);
      sequence.donor = this.findDonor(sequence, path);
      if (sequence.donor !== null) continue;
      const state = {
        running: this.running.length,
        available: this.memory.available - this.memory.cache.countUnlocked(path),
        reserved,
        demand: demand(sequence, path.length),
      };
      const pending = sequence.tokens.length - path.length * this.pageSize;
      const length = chunkLength(pending, prefillTokens, this.options);
      // Nobody overtakes a request for want of pages or budget.
      if (length === 0 || !mayStart(state)) break;
      this.memory.adopt(sequence, path);
      if (!this.memory.reserve(sequence, length)) throw new Error(`no pages for request ${sequence.id}`);
      this.countHits(sequence);
      sequence.isRunning = true;
      insertByArrival(this.running, sequence);
      reserved += demand(sequence, sequence.pages.length);
      if (pending > 1) prefillTokens += length;
      batch.push({ sequence, length });
    }
    if (this.running.length === runningBefore) return;
    this.waiting = this.waiting.filter((sequence) => !sequence.isRunning);
    batch.sort((a, b) => a.sequence.arrival - b.sequence.arrival);
  }

  /** A running request that is about to compute the page which `sequence` needs next: it is worth waiting for. */
  private findDonor(sequence: Sequence, path: readonly number[]): Sequence['donor'] {
    for (const running of this.running) {
      const pages = this.memory.sharedPagesAhead(sequence, path, running);
      if (pages > 0) return { sequence: running, pages };
    }
    return null;
  }

  private countHits(sequence: Sequence): void {
    if (sequence.cachedTokens !== null) return;
    // A request that another worker began may find some of its output, too.
    sequence.cachedTokens = Math.min(sequence.computed, sequence.promptLength);
    this.promptTokens += sequence.promptLength;
    this.cacheHitTokens += sequence.cachedTokens;
  }

  private end(sequence: Sequence): void {
    if (sequence.isRunning) this.memory.release(sequence);
    sequence.isRunning = false;
    this.live.delete(sequence.id);
  }
}

function isAwaitingDonor({ donor }: Sequence): boolean {
  return donor !== null && donor.sequence.isRunning && donor.sequence.cachedPages < donor.pages;
}

/** Puts a sequence in its place in a list that is in order of arrival. */
function insertByArrival(list: Sequence[], sequence: Sequence): void {
  let index = list.length;
  while (index > 0 && list[index - 1]!.arrival > sequence.arrival) index--;
  list.splice(index, 0, sequence);
}
