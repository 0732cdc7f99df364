import { drawnBy, type ForwardSlice, type ScoreSpec, type SliceResult } from '../engine/types.js';
import type { GrammarMatcher } from '../grammar/matcher.js';
import type { FinishReason, RequestEvent, TokenLogprob, WorkerRequest } from '../protocol/messages.js';
import { IntList } from './int-list.js';
import { outputEntry, scoredEntry, unscoredEntry } from './logprobs.js';
import { Sampler } from './sampling.js';

/**
 * One request and its progress. `tokens` are known; up to two more are being drawn by steps that are under way. The keys
 * and values of the first `computed` of all these are in `pages`, or will be before any later step looks. A sequence is a
 * prefill while more than one of them is not computed, and a decode when just the last one isn't; nothing else tells the
 * two apart, so a preempted sequence merely starts over with computed = 0.
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
  /** The first row that is still to be scored; promptLength - 1 or more when none is. */
  private nextScored: number;
  private promptSent: boolean;
  /** Number of tokens that steps under way draw. */
  private drawing = 0;
  /** The slice of the step submitted last that draws this sequence's next token, if drawing > 0. */
  private drawingSlice = 0;

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
    this.promptSent = request.outputIds.length > 0;
    for (const id of request.outputIds) {
      this.tokens.push(id);
      this.sampler.record(id);
    }
    const first = this.promptStart;
    this.nextScored = this.promptLength;
    if (request.logprobs !== null && first < this.promptLength && !this.promptSent) {
      this.nextScored = first;
      this.promptLogprobs.push(unscoredEntry(request.logprobs, this.tokens.get(first)));
    }
  }

  /** Number of tokens, those being drawn included. */
  get length(): number {
    return this.tokens.length + this.drawing;
  }

  /** Number of tokens that are to be computed; 0 once the steps under way bring the sequence to its length limit. */
  get pending(): number {
    const reachesLimit = this.drawing > 0 && this.length >= this.maxLength;
    return reachesLimit ? 0 : this.length - this.computed;
  }

  /** Whether the next slice can't be made before the tokens being drawn are known. */
  get needsKnownTokens(): boolean {
    return this.sampler.dependsOnOutput && this.drawing > 0 && this.pending > 0;
  }

  /** Number of leading tokens that may come from the prefix cache: no row that is still to be scored, nor the last. */
  get maxCachedTokens(): number {
    const last = this.tokens.length - 1;
    return this.nextScored < this.promptLength - 1 ? Math.min(last, this.nextScored) : last;
  }

  /**
   * Moves on by the next `length` pending tokens. @param index of the slice in its step.
   * @returns the slice that computes them; its arrays are valid until the sequence changes.
   */
  advance(length: number, index: number): ForwardSlice {
    const start = this.computed;
    const end = start + length;
    const draws = end === this.length && end < this.maxLength;
    const slice: ForwardSlice = {
      // The token being drawn is pending alone: the step that draws it has computed all that come before.
      tokens: this.drawing > 0 ? [drawnBy(this.drawingSlice)] : this.tokens.view(start, end),
      start,
      pages: this.pages.view(0, this.pages.length),
      logprobTemperature: this.sampler.logprobTemperature,
      score: this.scoreSpec(start, end),
      sample: draws ? this.sampler.spec(end - 1, end - this.promptLength) : null,
    };
    this.computed = end;
    this.nextScored += slice.score?.targets.length ?? 0;
    if (draws) {
      this.drawing++;
      this.drawingSlice = index;
    }
    return slice;
  }

  /**
   * Takes in the result of the oldest slice of advance() that has none. @param endsPrompt whether it went as far as the
   * tokens of its time. @returns the event to emit; null when a chunk did not end the prompt.
   */
  accept(endsPrompt: boolean, result: SliceResult): RequestEvent | null {
    this.acceptScores(result);
    if (!endsPrompt) return null;
    const event: RequestEvent = { id: this.id, tokens: [] };
    if (!this.promptSent) {
      event.prompt = { cachedTokens: this.cachedTokens ?? 0, logprobs: this.promptLogprobs };
      this.promptSent = true;
    }
    const { logprobs } = this.request;
    if (logprobs !== null) event.logprobs = [];
    if (this.drawing > 0) {
      this.drawing--;
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
    // The next entry is that of the prompt's token with this index.
    const first = this.promptStart + this.promptLogprobs.length;
    const rows = score.logprobs.length;
    for (let row = 0; row < rows; row++) {
      this.promptLogprobs.push(scoredEntry(logprobs, this.tokens.get(first + row), score, row, rows));
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
