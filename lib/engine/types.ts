import type { EngineInfo } from '../protocol/messages.js';

/**
 * The engine as the scheduler sees it. Everything that a step may look at is in ForwardSlice, so an engine holds no
 * per-request state but the KV pages.
 */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * Starts a step: every slice goes through the model, and its keys and values into its pages. What a slice gets does
   * not depend on the others. Steps run one after another, and at most two may be under way. Nothing that the slices
   * refer to is read after the call.
   * @throws DetinferError INVALID_REQUEST before anything ran; ENGINE_FAILED: the engine is unusable afterwards.
   */
  submit(slices: ForwardSlice[]): void;
  /**
   * Waits for the oldest step that was not collected. @returns one result per slice, in order.
   * @throws DetinferError as submit().
   */
  collect(): SliceResult[];
  /** CPU time of this process in submit() and collect() so far, on all threads. */
  readonly cpuSeconds: number;
  close(): void;
}

/** A run of consecutive tokens of one sequence: a prefill chunk (many tokens) or a decode (one). */
export interface ForwardSlice {
  /**
   * Ids at positions start, start + 1, …; at least one. The last may be drawnBy(j): the token that slice j of the step
   * submitted just before draws, whether that step was collected or not.
   */
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

/** What stands for a token that is not known yet in ForwardSlice.tokens. @param slice of the step submitted before. */
export function drawnBy(slice: number): number {
  return -1 - slice;
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
