import type { FinishReason, RequestEvent, TokenLogprob, WorkerRequest } from '../protocol/messages.js';
import type { Receipt } from '../receipt/receipt.js';
import type { IncrementalDetokenizer } from '../tokenizer/incremental-detokenizer.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { JsonList, JsonString } from './growing-json.js';
import { LogprobJson } from './logprob-json.js';
import type { Receipts } from './receipts.js';
import { type Released, StopMatcher } from './stop-matcher.js';
import type { PromptRequest } from './validate.js';

/** One sequence to generate: a prompt of a request, or one of its n copies. */
export interface SequenceSpec {
  /** Names by which it can be aborted; the last one is its own. */
  rids: string[];
  request: PromptRequest;
  worker: WorkerRequest;
  /** Stop strings that are special tokens of the model, by token id: these the worker stops at. */
  stopTokens: ReadonlyMap<number, string>;
  /** Of the weights that are served when it arrives. */
  weightVersion: string;
  /** Null: the answer carries no receipt. */
  receipts: Receipts | null;
}

/**
 * The output of one sequence while it grows: takes the worker's events in, makes text, finds stop strings, and renders
 * the answer so far. It keeps prompt and tokens, so that the request can be given to another worker at any time.
 */
export class Sequence {
  readonly rids: string[];
  readonly tokens: number[] = [];
  text = '';
  finish: FinishReason | null = null;
  /** Once it has finished, if one was asked for. */
  receipt: Receipt | null = null;
  cachedTokens = 0;
  /** Of the weights that it runs with, once it has begun. */
  weightVersion: string;
  /** In milliseconds of performance.now(). */
  readonly startedAt = performance.now();
  /** The entries themselves, where LogprobOptions asks for them. */
  promptLogprobs: readonly TokenLogprob[] = [];
  readonly outputLogprobs: TokenLogprob[] = [];
  private finishedAt = 0;
  private readonly detokenizer: IncrementalDetokenizer | null;
  private readonly matcher: StopMatcher;
  private readonly logprobs: LogprobJson | null;
  private readonly keepsEntries: boolean;
  private readonly tokensJson = new JsonList();
  private readonly textJson = new JsonString();
  /** Of the output, for the receipt. */
  private readonly receiptLogprobs: number[] = [];

  /** @param tokenizer null: token ids only. */
  constructor(
    private readonly spec: SequenceSpec,
    tokenizer: Tokenizer | null,
  ) {
    const { sampling, logprobs } = spec.request;
    this.rids = spec.rids;
    this.weightVersion = spec.weightVersion;
    this.detokenizer = tokenizer?.detokenizer(sampling.skipSpecialTokens) ?? null;
    this.matcher = new StopMatcher(sampling.stopStrings, sampling.stopRegexes, sampling.noStopTrim);
    const tokenText = tokenizer && logprobs?.withText ? (id: number) => tokenizer.decode([id]) : null;
    this.keepsEntries = logprobs?.keepEntries ?? false;
    this.logprobs = logprobs && !this.keepsEntries ? new LogprobJson(logprobs, tokenText) : null;
  }

  get workerRequest(): WorkerRequest {
    return this.spec.worker;
  }

  /** Of the drawn tokens; null where nothing is drawn at random. */
  get seed(): number | null {
    const { seed } = this.spec.worker.sampling;
    return this.spec.request.sampling.token.temperature === 0 ? null : seed;
  }

  get skipsSpecialTokens(): boolean {
    return this.spec.request.sampling.skipSpecialTokens;
  }

  get rid(): string {
    return this.rids.at(-1)!;
  }

  /** Takes an event of the worker in. Does nothing once the sequence has finished, by a stop string say. */
  apply(event: RequestEvent): void {
    if (this.finish) return;
    if (event.prompt) {
      this.cachedTokens = event.prompt.cachedTokens;
      this.logprobs?.addPrompt(event.prompt.logprobs);
      if (this.keepsEntries) this.promptLogprobs = event.prompt.logprobs;
    }
    const trimmed = this.isTrimmed(event.finish) ? event.tokens.length - 1 : event.tokens.length;
    for (let i = 0; i < event.tokens.length; ++i) {
      const id = event.tokens[i]!;
      this.tokens.push(id);
      this.tokensJson.push(String(id));
      if (event.logprobs) this.logprobs?.addOutput(event.logprobs[i]!);
      if (this.spec.receipts) this.receiptLogprobs.push(event.logprobs![i]!.logprob!);
      if (event.logprobs && this.keepsEntries) this.outputLogprobs.push(event.logprobs[i]!);
      if (this.detokenizer && i < trimmed && this.release(this.matcher.push(this.detokenizer.push(id)))) return;
    }
    if (event.finish) this.end(event.finish);
  }

  /**
   * The answer so far as JSON: {text, output_ids, meta_info}, and `index` in a stream of several sequences. Without a
   * tokenizer there is no text.
   */
  render(index?: number): string {
    const { worker } = this.spec;
    let json = '{';
    if (this.detokenizer) json += `"text":${this.textJson},`;
    json += `"output_ids":${this.tokensJson},"meta_info":{"id":${JSON.stringify(this.rid)}`;
    json += `,"finish_reason":${JSON.stringify(this.finish)}`;
    json += `,"prompt_tokens":${worker.inputIds.length},"completion_tokens":${this.tokens.length}`;
    json += `,"cached_tokens":${this.cachedTokens},"weight_version":${JSON.stringify(this.weightVersion)}`;
    if (this.seed !== null) json += `,"sampling_seed":${this.seed}`;
    if (this.logprobs) json += this.logprobs.fields;
    if (this.receipt !== null) json += `,"receipt":${JSON.stringify(this.receipt)}`;
    if (this.finish) json += `,"e2e_latency":${(this.finishedAt - this.startedAt) / 1000}`;
    json += index === undefined ? '}}' : `},"index":${index}}`;
    return json;
  }

  /** Whether the last token of an event with this finish is a stop token that the text leaves out. */
  private isTrimmed(finish: FinishReason | undefined): boolean {
    return finish?.type === 'stop' && typeof finish.matched === 'number' && !this.spec.request.sampling.noStopTrim;
  }

  private end(finish: FinishReason): void {
    if (this.detokenizer) {
      if (this.release(this.matcher.push(this.detokenizer.finish()))) return;
      if (this.release(this.matcher.finish())) return;
    }
    const stopString = finish.type === 'stop' ? this.spec.stopTokens.get(finish.matched as number) : undefined;
    this.finishAs(stopString === undefined ? finish : { type: 'stop', matched: stopString });
  }

  /** @returns whether a stop string ended the sequence. */
  private release({ text, matched }: Released): boolean {
    if (text !== '') {
      this.text += text;
      this.textJson.push(text);
    }
    if (matched === null) return false;
    this.finishAs({ type: 'stop', matched });
    return true;
  }

  private finishAs(finish: FinishReason): void {
    this.finish = finish;
    this.finishedAt = performance.now();
    const { receipts, worker } = this.spec;
    if (receipts === null) return;
    const { inputIds, sampling, stop } = worker;
    this.receipt = receipts.write({
      ...{ inputIds, sampling, stop, outputIds: this.tokens },
      ...{ logprobs: this.receiptLogprobs, finish },
    });
  }
}
