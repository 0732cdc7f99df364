import { NUMERIC_CONTRACT } from '../../protocol/contract.js';
import type { DetinferError } from '../../protocol/errors.js';
import type { TokenLogprob } from '../../protocol/messages.js';
import type { AnswerForm } from '../answer.js';
import type { Generation } from '../generation.js';
import type { Sequence } from '../sequence.js';
import { openAIErrorBody } from './errors.js';
import type { AnswerOptions } from './request.js';

/** What of a sequence is new since it was last shown. */
export interface News {
  text: string;
  /** Of the prompt, in the first news. */
  promptLogprobs: readonly TokenLogprob[];
  logprobs: readonly TokenLogprob[];
  isFirst: boolean;
}

/** How far a sequence has been shown. */
class Shown {
  private textLength = 0;
  private logprobs = 0;
  private isFirst = true;

  take({ text, promptLogprobs, outputLogprobs }: Sequence): News {
    const news = {
      text: text.slice(this.textLength),
      promptLogprobs: this.isFirst ? promptLogprobs : [],
      logprobs: outputLogprobs.slice(this.logprobs),
      isFirst: this.isFirst,
    };
    this.textLength = text.length;
    this.logprobs = outputLogprobs.length;
    this.isFirst = false;
    return news;
  }
}

/** What the answers of both endpoints have in common: whole, or as chunks that each hold what is new. */
export abstract class OpenAIAnswer implements AnswerForm {
  private readonly created = Math.floor(Date.now() / 1000);
  private readonly shown: Shown[];
  /** What all chunks begin with, up to the fingerprint. */
  private chunkHead: string | null = null;

  constructor(
    protected readonly generation: Generation,
    protected readonly options: AnswerOptions,
  ) {
    this.shown = generation.sequences.map(() => new Shown());
  }

  /** Kind of a whole answer, and of a chunk. */
  protected abstract readonly objects: { whole: string; chunk: string };
  protected abstract choice(index: number, news: News): object;
  /** Choices of the chunks that say what is new. */
  protected abstract chunkChoices(index: number, news: News): object[];

  private get weightVersion(): string {
    return this.generation.sequences[0]!.weightVersion;
  }

  /** Known for sure once the request has begun: it may have waited for other weights. */
  private get fingerprint(): string {
    return `${NUMERIC_CONTRACT}:${this.weightVersion}`;
  }

  whole(): string {
    const choices = this.generation.sequences.map((_, index) => this.choice(index, this.take(index)));
    return JSON.stringify({
      ...this.head(this.objects.whole),
      system_fingerprint: this.fingerprint,
      choices,
      usage: this.usage(),
      metadata: { weight_version: this.weightVersion },
    });
  }

  news(index: number): string[] {
    return this.chunkChoices(index, this.take(index)).map((choice) =>
      this.chunk([choice], this.options.continuousUsage),
    );
  }

  last(): string[] {
    return this.options.includeUsage ? [this.chunk([], true)] : [];
  }

  failure(error: DetinferError): string {
    return JSON.stringify(openAIErrorBody(error));
  }

  /** How a sequence ended, or that it has not. */
  protected ending(index: number): object {
    const { finish, seed, receipt } = this.generation.sequences[index]!;
    const matched = finish?.type === 'stop' ? finish.matched : null;
    return {
      finish_reason: finish?.type ?? null,
      matched_stop: matched,
      ...(finish !== null && seed !== null && { sampling_seed: seed }),
      ...(receipt !== null && { receipt }),
    };
  }

  protected isFinished(index: number): boolean {
    return this.generation.sequences[index]!.finish !== null;
  }

  private take(index: number): News {
    return this.shown[index]!.take(this.generation.sequences[index]!);
  }

  private head(object: string): object {
    const { id, model } = this.options;
    return { id, object, created: this.created, model };
  }

  private chunk(choices: object[], withUsage: boolean): string {
    const { includeUsage, continuousUsage } = this.options;
    this.chunkHead ??= JSON.stringify(this.head(this.objects.chunk)).slice(0, -1);
    let json = `${this.chunkHead},"system_fingerprint":${JSON.stringify(this.fingerprint)}`;
    json += `,"choices":${JSON.stringify(choices)}`;
    if (includeUsage || continuousUsage) json += `,"usage":${withUsage ? JSON.stringify(this.usage()) : 'null'}`;
    return `${json}}`;
  }

  /** The copies of a prompt share its tokens. */
  private usage(): object {
    const { sequences } = this.generation;
    const prompts = sequences.filter((_, i) => i % this.options.n === 0);
    const sum = (list: readonly Sequence[], count: (sequence: Sequence) => number): number =>
      list.reduce((total, sequence) => total + count(sequence), 0);
    const promptTokens = sum(prompts, ({ workerRequest }) => workerRequest.inputIds.length);
    const completionTokens = sum(sequences, ({ tokens }) => tokens.length);
    return {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
      prompt_tokens_details: { cached_tokens: sum(prompts, ({ cachedTokens }) => cachedTokens) },
    };
  }
}
