import type { TokenLogprob } from '../../protocol/messages.js';
import type { IncrementalDetokenizer } from '../../tokenizer/incremental-detokenizer.js';
import type { Tokenizer } from '../../tokenizer/tokenizer.js';

/** `logprobs.content` of a chat: one entry per generated token. A token may be a part of a character: `bytes` has it. */
export function chatLogprobs(entries: readonly TokenLogprob[], tokenizer: Tokenizer): object[] {
  const shown = (id: number, logprob: number) => ({
    token: tokenizer.decode([id]),
    bytes: [...tokenizer.bytes(id)],
    logprob,
  });
  return entries.map(({ tokenId, logprob, top }) => ({
    ...shown(tokenId, logprob!),
    top_logprobs: (top ?? []).map(([value, id]) => shown(id, value)),
  }));
}

/** `logprobs` of a completion: parallel lists, with the place of every token in the text, counted in characters. */
export class CompletionLogprobs {
  private readonly detokenizer: IncrementalDetokenizer;
  private offset: number;

  /** @param prompt the text that comes before the answer, '' without echo. */
  constructor(
    private readonly tokenizer: Tokenizer,
    skipSpecialTokens: boolean,
    private readonly prompt: string,
  ) {
    this.detokenizer = tokenizer.detokenizer(skipSpecialTokens);
    this.offset = characters(prompt);
  }

  /** The next entries; those of the prompt come once, before all others. */
  write(prompt: readonly TokenLogprob[], output: readonly TokenLogprob[], withTop: boolean): object {
    const entries = [...prompt, ...output];
    const offsets = [...this.promptOffsets(prompt), ...output.map(({ tokenId }) => this.next(tokenId))];
    return {
      tokens: entries.map(({ tokenId }) => this.tokenizer.decode([tokenId])),
      token_logprobs: entries.map(({ logprob }) => logprob),
      top_logprobs: withTop ? entries.map(({ top }) => this.byText(top)) : null,
      text_offset: offsets,
    };
  }

  /** Offset of a generated token, where its first whole character stands. */
  private next(id: number): number {
    const { offset } = this;
    this.offset += characters(this.detokenizer.push(id));
    return offset;
  }

  /** A token that the tokenizer adds to a text (begin-of-text, say) has no room in it. */
  private promptOffsets(entries: readonly TokenLogprob[]): number[] {
    const detokenizer = this.tokenizer.detokenizer(false);
    let unit = 0;
    let offset = 0;
    return entries.map(({ tokenId }) => {
      const at = offset;
      const text = detokenizer.push(tokenId);
      if (this.prompt.startsWith(text, unit)) {
        unit += text.length;
        offset += characters(text);
      }
      return at;
    });
  }

  /** Tokens that read the same (parts of characters) share a key, which the likeliest gets. */
  private byText(top: TokenLogprob['top']): Record<string, number> | null {
    if (!top) return null;
    const values = new Map<string, number>();
    for (const [logprob, id] of top) {
      const text = this.tokenizer.decode([id]);
      if (!values.has(text)) values.set(text, logprob);
    }
    return Object.fromEntries(values);
  }
}

function characters(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
