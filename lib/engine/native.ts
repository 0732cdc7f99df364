/**
 * The addon's exports, implemented in cuda/addon. Every method throws an Error whose `code` is an ErrorCode; only
 * load-addon.ts and engine.ts see these types.
 */
import type { JsonObject } from './json.js';
import type { WeightTables } from './safetensors.js';

export interface NativeAddon {
  NativeEngine: new (options: NativeOptions) => NativeEngine;
  numericContract: string;
  /** Has the kernel kill this process when its parent dies. */
  dieWithParent(): void;
}

export interface NativeOptions {
  config: JsonObject;
  threads: number;
  /** null: dummy weights. */
  weights: WeightTables | null;
}

/** The constructor checks config and weights and allocates nothing; then load, allocateCache, forward, close. */
export interface NativeEngine {
  facts(): NativeFacts;
  /** Returns the bytes of weights that one decoded token must read. */
  load(onProgress: (done: number, total: number) => void): number;
  allocateCache(pageSize: number, pages: number, contextLength: number): void;
  forward(slices: NativeSlice[]): NativeResult[];
  close(): void;
}

export interface NativeFacts {
  deviceName: string;
  threads: number;
  vocabSize: number;
  maxPositions: number;
  weightBytes: number;
  kvBytesPerToken: number;
}

/** ForwardSlice with every array typed. */
export interface NativeSlice {
  tokens: Int32Array;
  start: number;
  pages: Int32Array;
  logprobTemperature: number;
  score: NativeScore | null;
  sample: NativeSample | null;
}

export interface NativeScore {
  firstRow: number;
  targets: Int32Array;
  top: number;
  tokenIds: Int32Array;
}

export interface NativeSample {
  greedy: boolean;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  seedLow: number;
  seedHigh: number;
  position: number;
  biasIds: Int32Array;
  biasValues: Float32Array;
  penalties: NativePenalties | null;
  allowed: Uint32Array | null;
  logprob: boolean;
  top: number;
  tokenIds: Int32Array;
}

export interface NativePenalties {
  frequency: number;
  presence: number;
  repetition: number;
  ids: Int32Array;
  counts: Int32Array;
}

/** Row-major over the rows. */
export interface NativeReport {
  logprobs: Float32Array;
  topLogprobs: Float32Array;
  topIds: Int32Array;
  tokenIdLogprobs: Float32Array;
}

export interface NativeResult {
  token: number;
  sampled?: NativeReport;
  scored?: NativeReport;
}
