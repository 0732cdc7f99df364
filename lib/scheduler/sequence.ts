import type { ForwardSlice, ScoreSpec, SliceResult } from '../engine/types.js';
import type { GrammarMatcher } from '../grammar/matcher.js';
import type { FinishReason, RequestEvent, TokenLogprob, WorkerRequest } from '../protocol/messages.js';
import { IntList } from './int-list.js';
import { outputEntry, scoredEntry, unscoredEntry } from './logprobs.js';
import { Sampler } from './sampling.js';

/**
 * One request and its progress. `tokens` are known; the keys and values of the first `computed` of them are in `pages`.
 * A sequence is a prefill while more than one known token is not computed, and a decode when just the last one isn't;
 * nothing else tells the two apart, so a preempted sequence merely starts over with computed = 0.
 */
export class Sequence {
  readonly id: string;
  /** Number in the order of arrival. */
  readonly arrival: number;
  readonly promptLength: number;
  /** The prompt, then the output. */
  readonly tokens: IntList;
  readonly pages = new IntList(8);
  computed = 0;
  /** The first `cachedPages` pages belong to the prefix cache, which this sequence has locked; it owns the others. */
  cachedPages = 0;
  isRunning = false;
  /** Prompt tokens found in the prefix cache when the request first started; null before. */
  cachedTokens: number | null = null;
  /** A running sequence about to compute pages that this waiting one can share, and the number of them all. */
  donor: { sequence: Sequence; pages: number } | null = null;

  private readonly request: WorkerRequest;
  private readonly sampler: Sampler;
  private readonly stopIds: Set<number>;
  /** Number of tokens at which the length limit ends the request. */
  private readonly maxLength: number;
  private readonly promptLogprobs: TokenLogprob[] = [];
  private promptSent = false;

  /**
   * @param lengthLimit most tokens, prompt and output together, that the engine can hold.
   * @param matcher of the request's grammar, or null.
   */
  constructor(request: WorkerRequest, arrival: number, lengthLimit: number, matcher: GrammarMatcher | null) {
    this.request = request;
    this.id = request.id;
    this.arrival = arrival;
    this.promptLength = request.inputIds.length;
    this.maxLength = Math.min(this.promptLength + request.stop.maxNewTokens, lengthLimit);
    this.tokens = new IntList(Math.min(this.maxLength, this.promptLength + 128));
    for (const id of request.inputIds) this.tokens.push(id);
    this.sampler = new Sampler(request.sampling, request.stop, request.logprobs, matcher);
    this.stopIds = new Set(request.stop.stopTokenIds);
    const first = this.promptStart;
    if (request.logprobs !== null && first < this.promptLength) {
      this.promptLogprobs.push(unscoredEntry(request.logprobs, this.tokens.get(first)));
    }
  }

  /** Number of known tokens that are not computed; at least 1 in a live sequence. */
  get pending(): number {
    return this.tokens.length - this.computed;
  }

  /** Number of leading tokens that may come from the prefix cache: no row that is still to be scored, nor the last. */
  get maxCachedTokens(): number {
    const last = this.tokens.length - 1;
    return this.nextScored < this.promptLength - 1 ? Math.min(last, this.nextScored) : last;
  }

  /** The slice that computes the next `length` pending tokens. */
  slice(length: number): ForwardSlice {
    const start = this.computed;
    const end = start + length;
    const draws = end === this.tokens.length && end < this.maxLength;
    return {
      tokens: this.tokens.view(start, end),
      start,
      pages: this.pages.view(0, this.pages.length),
      logprobTemperature: this.sampler.logprobTemperature,
      score: this.scoreSpec(start, end),
      sample: draws ? this.sampler.spec(end - 1, end - this.promptLength) : null,
    };
  }

  /** Takes in what slice(length) gave. @returns the event to emit; null when a chunk did not end the prompt. */
  accept(length: number, result: SliceResult): RequestEvent | null {
    this.computed += length;
    this.acceptScores(result);
    if (this.pending > 0) return null;
    const event: RequestEvent = { id: this.id, tokens: [] };
    if (!this.promptSent) {
      event.prompt = { cachedTokens: this.cachedTokens ?? 0, logprobs: this.promptLogprobs };
      this.promptSent = true;
    }
    const { logprobs } = this.request;
    if (logprobs !== null) event.logprobs = [];
    if (this.tokens.length < this.maxLength) {
      this.tokens.push(result.token);
      this.sampler.record(result.token);
      event.tokens.push(result.token);
      if (logprobs !== null) event.logprobs!.push(outputEntry(logprobs, result));
    }
    const finish = this.finishReason();
    if (finish !== null) event.finish = finish;
    return event;
  }

  private get promptStart(): number {
    return this.request.logprobs?.promptStart ?? this.promptLength;
  }

  /** The first row that is still to be scored; promptLength - 1 or more when none is. */
  private get nextScored(): number {
    // The first entry has no row of its own, so the entries' number is one more than that of the scored rows.
    return this.promptLogprobs.length === 0 ? this.promptLength : this.promptStart + this.promptLogprobs.length - 1;
  }

  private scoreSpec(start: number, end: number): ScoreSpec | null {
    const { logprobs } = this.request;
    const first = this.nextScored;
    const last = Math.min(end, this.promptLength - 1);
    if (logprobs === null || first >= last) return null;
    return {
      firstRow: first - start,
      targets: this.tokens.view(first + 1, last + 1),
      top: logprobs.top,
      tokenIds: logprobs.tokenIds,
    };
  }

  private acceptScores(result: SliceResult): void {
    const { score } = result;
    const { logprobs } = this.request;
    if (score === null || logprobs === null) return;
    const first = this.nextScored;
    const rows = score.logprobs.length;
    for (let row = 0; row < rows; row++) {
      this.promptLogprobs.push(scoredEntry(logprobs, this.tokens.get(first + row + 1), score, row, rows));
    }
  }

  private finishReason(): FinishReason | null {
    const outputLength = this.tokens.length - this.promptLength;
    if (outputLength > 0) {
      const token = this.tokens.get(this.tokens.length - 1);
      if (this.stopIds.has(token)) return { type: 'stop', matched: token };
    }
    return this.tokens.length >= this.maxLength ? { type: 'length', length: outputLength } : null;
  }
}
