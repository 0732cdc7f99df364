/**
 * The addon's exports, implemented in cuda/addon. Every method throws an Error whose `code` is an ErrorCode; only
 * load-addon.ts and engine.ts see these types.
 */
import type { AttentionBackend } from '../protocol/server-args.js';
import type { JsonObject } from './json.js';
import type { WeightTables } from './safetensors.js';

export interface NativeAddon {
  NativeEngine: new (options: NativeOptions) => NativeEngine;
  numericContract: string;
  /** Has the kernel kill this process when its parent dies. */
  dieWithParent(): void;
  /** The devices that the addon can run on, by index; throws when their driver does not answer. */
  deviceNames(): string[];
  /** Bytes per second that the device (host memory: so many threads) reads. */
  measureBandwidth(threads: number): number;
}

export interface NativeOptions {
  config: JsonObject;
  threads: number;
  /** null: dummy weights. */
  weights: WeightTables | null;
  /** For the CUDA addon, which needs it; the CPU's takes none. */
  cuda?: {
    /** Index of the GPU. */
    device: number;
    attentionBackend: AttentionBackend;
    /** Largest batch of decodes that gets a CUDA graph; 0: none does. */
    graphMaxBatch: number;
  };
}

/**
 * The constructor checks config and weights and allocates nothing; then load, reserve, allocateCache, any number of
 * submit and collect, close.
 */
export interface NativeEngine {
  facts(): NativeFacts;
  /** Memory of the GPU now; null: the engine uses host memory. */
  deviceMemory(): DeviceMemory | null;
  /** Returns the bytes of weights that one decoded token must read. */
  load(onProgress: (done: number, total: number) => void): number;
  /** Reserves the buffers of a step of at most so many rows and slices; larger steps are computed in passes. */
  reserve(stepTokens: number, stepSequences: number): void;
  allocateCache(pageSize: number, pages: number, contextLength: number): void;
  /** Checks a step and starts it; may return before it is done. The arrays of the slices are not read afterwards. */
  submit(slices: NativeSlice[]): void;
  /** Waits for the oldest step that was not collected. */
  collect(): NativeResult[];
  /** Runs slices by themselves; logits of every scored and every drawing row, row-major. */
  logits(slices: NativeSlice[]): Float32Array;
  close(): void;
}

/** In bytes. */
export interface DeviceMemory {
  total: number;
  free: number;
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
