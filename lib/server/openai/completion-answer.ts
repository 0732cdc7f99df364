import type { Tokenizer } from '../../tokenizer/tokenizer.js';
import type { Generation } from '../generation.js';
import { type News, OpenAIAnswer } from './answer.js';
import { CompletionLogprobs } from './logprobs.js';
import type { AnswerOptions } from './request.js';

/** Answers of /v1/completions. */
export class CompletionAnswer extends OpenAIAnswer {
  protected readonly objects = { whole: 'text_completion', chunk: 'text_completion' };
  private readonly writers: CompletionLogprobs[];

  constructor(generation: Generation, options: AnswerOptions, tokenizer: Tokenizer) {
    super(generation, options);
    this.writers = generation.sequences.map(
      ({ skipsSpecialTokens }, index) => new CompletionLogprobs(tokenizer, skipsSpecialTokens, this.prefix(index)),
    );
  }

  protected choice(index: number, news: News): object {
    const text = news.isFirst ? this.prefix(index) + news.text : news.text;
    return { index, text, logprobs: this.logprobs(index, news), ...this.ending(index) };
  }

  protected chunkChoices(index: number, news: News): object[] {
    const hasNews = news.text !== '' || news.logprobs.length > 0 || (news.isFirst && this.options.echo !== null);
    return hasNews || this.isFinished(index) ? [this.choice(index, news)] : [];
  }

  private prefix(index: number): string {
    const { echo, n } = this.options;
    return echo === null ? '' : echo[Math.floor(index / n)]!;
  }

  private logprobs(index: number, { promptLogprobs, logprobs }: News): object | null {
    const { topLogprobs } = this.options;
    return topLogprobs === null ? null : this.writers[index]!.write(promptLogprobs, logprobs, topLogprobs > 0);
  }
}
