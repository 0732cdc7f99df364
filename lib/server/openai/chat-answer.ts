import type { Generation } from '../generation.js';
import type { Tokenizer } from '../../tokenizer/tokenizer.js';
import { type News, OpenAIAnswer } from './answer.js';
import { chatLogprobs } from './logprobs.js';
import type { AnswerOptions } from './request.js';

/** Answers of /v1/chat/completions. */
export class ChatAnswer extends OpenAIAnswer {
  protected readonly objects = { whole: 'chat.completion', chunk: 'chat.completion.chunk' };

  constructor(
    generation: Generation,
    options: AnswerOptions,
    private readonly tokenizer: Tokenizer,
  ) {
    super(generation, options);
  }

  protected choice(index: number, news: News): object {
    const message = { role: 'assistant', content: news.text, refusal: null };
    return { index, message, logprobs: this.logprobs(news), ...this.ending(index) };
  }

  protected chunkChoices(index: number, news: News): object[] {
    const going = { finish_reason: null, matched_stop: null };
    const choices: object[] = [];
    if (news.isFirst) choices.push({ index, delta: { role: 'assistant', content: '' }, logprobs: null, ...going });
    if (news.text !== '' || news.logprobs.length > 0) {
      choices.push({ index, delta: { content: news.text }, logprobs: this.logprobs(news), ...going });
    }
    if (this.isFinished(index)) choices.push({ index, delta: {}, logprobs: null, ...this.ending(index) });
    return choices;
  }

  private logprobs({ logprobs }: News): object | null {
    return this.options.topLogprobs === null
      ? null
      : { content: chatLogprobs(logprobs, this.tokenizer), refusal: null };
  }
}
