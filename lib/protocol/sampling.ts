/** A form that the whole output must have: JSON of a schema (as JSON), a regular expression, or a grammar. */
export interface GrammarSpec {
  kind: 'json_schema' | 'regex' | 'ebnf';
  text: string;
}

/** Sampling parameters that change which token is drawn, with every default filled in. */
export interface TokenSampling {
  /** Below GREEDY_TEMPERATURE: argmax, ties to the lower id, and logprobs are those of temperature 1. */
  temperature: number;
  /** Number of most likely tokens kept; -1 keeps all. */
  topK: number;
  /** Tokens are kept while the mass of the more likely ones is at most this share. In (0, 1]. */
  topP: number;
  /** Tokens less likely than this share of the most likely one are dropped. In [0, 1]. */
  minP: number;
  /** Subtracted from a token's logit once per earlier output of it. */
  frequencyPenalty: number;
  /** Subtracted once from the logit of every token that was output before. */
  presencePenalty: number;
  /** Divides positive and multiplies negative logits of tokens that were output before. */
  repetitionPenalty: number;
  /** Added to the logits of the given token ids. */
  logitBias: [tokenId: number, bias: number][];
  /** What the output must be, or null. */
  grammar: GrammarSpec | null;
  /** A safe integer; its two's complement 64 bits key the noise. */
  seed: number;
}

export const GREEDY_TEMPERATURE = 1e-6;

/** When a request ends, apart from max_new_tokens. Strings are matched by the server, ids by the scheduler. */
export interface StopConditions {
  stopTokenIds: number[];
  minNewTokens: number;
  maxNewTokens: number;
}
