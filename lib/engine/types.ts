import type { EngineInfo } from '../protocol/messages.js';

/**
 * The engine as the scheduler sees it. Everything that a step may look at is in ForwardSlice, so an engine holds no
 * per-request state but the KV pages.
 */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * Runs every slice through the model, writes its keys and values into its pages, and returns one result per slice,
   * in order. Synchronous. What a slice gets does not depend on the others.
   * @throws DetinferError ENGINE_FAILED; the engine is unusable afterwards.
   */
  forward(slices: ForwardSlice[]): SliceResult[];
  close(): void;
}

/** A run of consecutive tokens of one sequence: a prefill chunk (many tokens) or a decode (one). */
export interface ForwardSlice {
  /** Ids at positions start, start + 1, …; at least one. */
  tokens: ArrayLike<number>;
  /** Absolute position of tokens[0]; the keys and values of 0 … start-1 are already in the pages. */
  start: number;
  /** Page ids; page i holds positions i·pageSize … (i+1)·pageSize - 1 and covers start + tokens.length at least. */
  pages: ArrayLike<number>;
  /** Temperature of reported logprobs: the request's, or 1 when it is greedy. */
  logprobTemperature: number;
  /** Log-probabilities of known next tokens (prompt logprobs), or null. */
  score: ScoreSpec | null;
  /** Draws a token from the logits of the last row, or null (a chunk that doesn't end its prompt). */
  sample: SampleSpec | null;
}

export interface ScoreSpec {
  /** Index into `tokens` of the first row whose logits are wanted. */
  firstRow: number;
  /** targets[i] is the token that follows row firstRow + i. */
  targets: ArrayLike<number>;
  top: number;
  tokenIds: ArrayLike<number>;
}

export interface SampleSpec {
  greedy: boolean;
  temperature: number;
  /** -1: no limit. */
  topK: number;
  topP: number;
  minP: number;
  /** Two's complement halves of the seed. */
  seedLow: number;
  seedHigh: number;
  /** Position that keys the noise: the row's absolute position, so prompt length - 1 for the first sampled token. */
  position: number;
  /** Added to logits before sampling: biases, penalties already applied by `penalties` come first. -Infinity bans. */
  biasIds: ArrayLike<number>;
  biasValues: ArrayLike<number>;
  /** Tokens that were output before with their counts, or null when no penalty is set. */
  penalties: PenaltySpec | null;
  /** Bit i % 32 of word i / 32: token i may be drawn, at least one; null: every token. Applies after the biases. */
  allowed: Uint32Array | null;
  /** Report the drawn token's logprob. */
  logprob: boolean;
  top: number;
  tokenIds: ArrayLike<number>;
}

export interface PenaltySpec {
  frequency: number;
  presence: number;
  repetition: number;
  ids: ArrayLike<number>;
  counts: ArrayLike<number>;
}

export interface SliceResult {
  /** The drawn token, or -1 without a SampleSpec. */
  token: number;
  /** NaN unless asked for. */
  logprob: number;
  /** Most likely tokens at the sampled row, best first. */
  topLogprobs: Float32Array;
  topIds: Int32Array;
  /** In the order of SampleSpec.tokenIds. */
  tokenIdLogprobs: Float32Array;
  score: ScoreResult | null;
}

/** Row-major over the scored rows. */
export interface ScoreResult {
  logprobs: Float32Array;
  topLogprobs: Float32Array;
  topIds: Int32Array;
  tokenIdLogprobs: Float32Array;
}
